"""The sha256 manifest of a checkpoint's files, in the form that `sha256sum -c manifest.sha256` reads inside of its folder.

It is written after the checkpoint is finished and was read back, to a temporary file that is then renamed. It lists every file but
itself, so that a line that is lost is noticed as well: a file that no line names counts as damage (hidden ones aside, which file
systems leave about).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection
from pathlib import Path

NAME = "manifest.sha256"
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


def present(folder: Path) -> bool:
    """Whether a checkpoint has a manifest."""
    return (folder / NAME).is_file()


def write(folder: Path) -> None:
    """Raises OSError where the disk refuses."""
    lines = [f"{_digest(folder / name)}  {name}\n" for name in _files(folder)]
    temporary = folder / f".{NAME}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())  # so that after a power cut the name does not stand for an empty file
    os.replace(temporary, folder / NAME)


def damage(folder: Path, items: Collection[str] | None = None) -> str | None:
    """What is wrong with the files of a folder, first found, or None; with `items`, only of those subfolders and the top.

    Raises FileNotFoundError without a manifest, and OSError for what may not be read.
    """
    listed = {}
    for text in (folder / NAME).read_text(encoding="utf-8", errors="replace").splitlines():
        found = _LINE.fullmatch(text)
        if not found:
            return f"{NAME} is damaged"
        listed[found[2]] = found[1]
    there = set(_files(folder))
    for name in sorted(listed.keys() | there):
        top, inside, _ = name.partition("/")
        if items is not None and inside and top not in items:
            continue
        if name not in there:
            return f"{name} is missing"
        if name not in listed:
            if any(part.startswith(".") for part in name.split("/")):
                continue
            return f"{NAME} does not name {name}"
        if _digest(folder / name) != listed[name]:
            return f"{name} is not what was written"
    return None


def _files(folder: Path) -> list[str]:
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return sorted(name for name in names if name not in (NAME, f".{NAME}"))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
