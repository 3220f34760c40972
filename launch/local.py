"""Run a command as several processes of this machine, and start it again when one of them is lost.

    python -m launch.local --processes=2 --devices=4 -- python -m experiments.train --config=... --workdir=...

Every process gets the command with `--coordinator=127.0.0.1:PORT --processes=N --process=K` at its end, and, if asked for, `--devices`
simulated CPU devices. Its lines are shown behind `[K]`. When a process dies, the others hang in a computation that it has no more
part in, and JAX ends them much later with a C++ stack; so they are ended here at once, and all start again from the last checkpoint. A
process that exits with 2 has said what the user must mend, one that exits with 130 or 143 was interrupted: then nothing is started again.
SIGINT and SIGTERM are passed on to all.

Exit codes: 0 when all processes ended with 0, else that of the process that was lost, 128 + the signal where one killed it.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any, NoReturn

POLL = 0.05  # seconds between two looks at the processes
GRACE = 1.5  # seconds in which the others may still say why they end, before they are killed
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
MENDABLE = 2  # the exit code of a command whose user has to mend something
GLOO = re.compile(  # says that it is connected, at every new group of devices
    r"\[Gloo\] Rank \d+ is connected to \d+ peer ranks\. Expected number of connected peer ranks is : \d+"
)
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)  # of one that a signal ended which was sent to it or to another


@dataclasses.dataclass(frozen=True)
class Lost:
    """The process that ended a start: its number, process id and exit code (negative: minus the signal), as `Popen.returncode`."""

    process: int
    pid: int
    code: int

    @property
    def text(self) -> str:
        how = f"exited with {self.code}" if self.code > 0 else f"was killed by {signal.Signals(-self.code).name}"
        return f"process {self.process} (pid {self.pid}) {how}"

    @property
    def exit_code(self) -> int:
        return self.code if self.code > 0 else 128 - self.code


class Launch:
    """The processes of one command, over all its starts."""

    def __init__(self, command: Sequence[str], processes: int, devices: int | None, restarts: int):
        self._command, self._count, self._devices, self._restarts = list(command), processes, devices, restarts
        self._running: list[subprocess.Popen[str]] = []
        self._asked: int | None = None  # the signal that was passed on

    def run(self) -> int:
        """Start, and start again; returns the exit code."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._pass_on)
        starts = 0
        while True:
            lost = self._once()
            if lost is None:
                return 0
            starts += 1
            rest = f"{lost.text}; the other {self._count - 1} ended" if self._count > 1 else lost.text
            if self._asked is not None:
                say(f"{rest}, after {signal.Signals(self._asked).name}")
            elif lost.code == MENDABLE:
                say(f"{rest}; its line says what to mend")
            elif lost.code in STOPPED:
                say(f"{rest}; it was asked to")
            elif starts > self._restarts:
                say(f"{rest}; not started again, after {starts} starts (--restarts={self._restarts})")
            else:
                say(f"{rest}; starting again, {starts} of {self._restarts}")
                continue
            return lost.exit_code

    def _pass_on(self, number: int, frame: Any) -> None:
        del frame
        self._asked = number
        for child in self._running:
            if child.poll() is None:
                child.send_signal(number)

    def _once(self) -> Lost | None:
        """One start of all processes, until all have ended; the lost one, or None where all is well."""
        port = free_port()
        for k in range(self._count):
            flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={self._count}", f"--process={k}"]
            child = subprocess.Popen(
                [*self._command, *flags],
                env=environment(os.environ, self._devices),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
                preexec_fn=end_with_launcher if LIBC is not None else None,
            )
            self._running = [*(self._running if k else []), child]
        say(f"started {self._count} processes, pids {' '.join(str(child.pid) for child in self._running)}, coordinator 127.0.0.1:{port}")
        readers = [threading.Thread(target=copy_lines, args=(k, child.stdout), daemon=True) for k, child in enumerate(self._running)]
        for reader in readers:
            reader.start()
        if self._asked is not None:  # a signal that came while they were being started
            self._pass_on(self._asked, None)
        lost = self._watch()
        for reader in readers:
            reader.join(timeout=5)
        return lost

    def _watch(self) -> Lost | None:
        children = self._running
        while True:
            codes = [child.poll() for child in children]
            if all(code == 0 for code in codes):
                return None
            if any(codes):
                break
            time.sleep(POLL)
        first = codes
        wait_for(children, GRACE)
        codes = [child.poll() for child in children]
        for child in children:
            if child.poll() is None:
                child.kill()  # whatever it would still save, the others could not
        for child in children:
            child.wait()
        k = culprit(first, codes)
        return Lost(k, children[k].pid, int(codes[k] or 0))


def end_with_launcher() -> None:
    """In a child: be killed when the launcher is, however it ends; nobody would watch over what is left (Linux, PR_SET_PDEATHSIG = 1)."""
    if LIBC is not None:
        LIBC.prctl(1, int(signal.SIGKILL))


def culprit(first: Sequence[int | None], final: Sequence[int | None]) -> int:
    """Which process ended a start, from the exit codes when the first loss was seen and those GRACE later.

    One that says what to mend (2) is the cause; else one of the first, and of these rather not one that JAX aborted for another's sake.
    """
    told = [k for k, code in enumerate(final) if code == MENDABLE]
    return min(told or [k for k, code in enumerate(first) if code], key=lambda k: final[k] == -signal.SIGABRT)


def wait_for(children: Sequence[subprocess.Popen[str]], seconds: float) -> None:
    """Until all have ended, at most so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(child.poll() is None for child in children):
        time.sleep(POLL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(given: Mapping[str, str], devices: int | None) -> dict[str, str]:
    """What the processes see: lines as they are written, and `devices` simulated CPU devices each."""
    changed = {**given, "PYTHONUNBUFFERED": "1"}
    if devices is not None:
        others = [word for word in given.get("XLA_FLAGS", "").split() if "xla_force_host_platform_device_count" not in word]
        changed["XLA_FLAGS"] = " ".join([*others, f"--xla_force_host_platform_device_count={devices}"])
        changed["JAX_PLATFORMS"] = "cpu"
    return changed


def copy_lines(process: int, lines: IO[str] | None) -> None:
    for line in lines or ():
        shown = GLOO.sub("", line)  # nothing else of the line is lost: a thread of C++ may write it into the middle of one of Python's
        if shown == line or shown.strip():
            sys.stdout.write(f"[{process}] {shown.rstrip()}\n")
            sys.stdout.flush()


def say(text: str) -> None:
    print(f"launch.local: {text}", flush=True)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the commands of experiments/ do."""

    def error(self, message: str) -> NoReturn:
        self.exit(MENDABLE, f"error: {message}; --help shows an example\n")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def main(argv: Sequence[str]) -> int:
    """The command line; returns the exit code."""
    parser = Parser(
        prog="python -m launch.local", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--processes", type=positive, default=2, help="how many [2]")
    parser.add_argument("--devices", type=positive, default=None, help="simulated CPU devices of each process [the machine's own devices]")
    parser.add_argument("--restarts", type=int, default=3, help="how often to start again after a loss [3]")
    parser.add_argument("command", nargs="*", help="after --: the command, such as python -m experiments.train --workdir=...")
    options = parser.parse_args(argv)
    if not options.command:
        parser.error("the command is missing: write it after --")
    return Launch(options.command, options.processes, options.devices, options.restarts).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
