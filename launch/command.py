"""What the launchers share: errors of one line, children that end with their parent, files that are whole or not there."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch import local
from launch.local import LIBC, MENDABLE


class LaunchError(Exception):
    """Something that the user can mend. The message is one line: cause, place, way out."""


def finish(main: Callable[[Sequence[str]], int]) -> None:
    """Run a launcher's `main` on the command line and exit with its code; what the user can mend is one line."""
    try:
        code = main(sys.argv[1:])
    except (LaunchError, OSError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        code = MENDABLE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def one_line(error: BaseException) -> str:
    """What an error says, in one line; of a disk or folder that refuses, with its place and the way out."""
    if isinstance(error, OSError):
        return f"{error.filename or 'disk'}: {error.strerror or error}; see to that folder, then run the same command again"
    return " ".join(str(error).split())


def end_with_parent() -> None:
    """In a child: be asked to end (SIGTERM) when the parent is gone, however that went (Linux, PR_SET_PDEATHSIG = 1)."""
    if LIBC is not None:
        LIBC.prctl(1, int(signal.SIGTERM))


def write_text(path: Path, text: str) -> None:
    """Whole or not at all: to a temporary file beside `path`, then renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none, or one that is cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return None


def last_rows(path: Path, size: int = 1 << 16) -> list[dict[str, Any]]:
    """The last objects of a file of one JSON object a line, at most `size` bytes of them; half a line at either end is passed over."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            start = max(file.tell() - size, 0)
            file.seek(start)
            lines = file.read().split(b"\n")[bool(start) : -1]
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            rows += [row] if isinstance(row, dict) else []
    return rows


def hand_over(text: str, command: Sequence[str], only_print: bool, needs: str | None = None) -> int:
    """Print a rendered text, or run `command`, which is given it on its standard input unless it holds it; returns the exit code.

    Raises LaunchError where that program, or `needs`, which the text calls, is not here.
    """
    if only_print:
        print(text, end="")
        return 0
    for program in filter(None, (command[0], needs)):
        if shutil.which(program) is None:
            raise LaunchError(f"{program} is not on the PATH of this machine: run this where it is, or see the text with --print")
    return subprocess.run(list(command), input=None if text in command else text, text=True).returncode


class Parser(local.Parser):
    """Flags of a launcher and, after --, a command."""

    def __init__(self, module: str, text: str | None):
        super().__init__(
            prog=f"python -m launch.{module}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def with_command(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """The flags, and the command after --, which has to be there."""
        words = list(argv)
        command = words[words.index("--") + 1 :] if "--" in words else []
        options = self.parse_args(words[: words.index("--")] if "--" in words else words)
        if not command:
            self.error("the command is missing: write it after --")
        return options, command
