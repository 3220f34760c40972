"""A signal to any one of several processes ends all of them, in one line: what it asked can be asked again.

Left to itself a signal ends the one process that was sent it, and JAX aborts the others when they miss it, with a C++ stack. So a thread of
every process waits for signals, which Python hands it even while the main thread is inside of XLA, and for a word of the others, a key of
the coordination service. Training goes its own way from its first step to its last (train/guard.py): it saves first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import jax

from causal_gen.parallel import hosts

NUMBERS = (signal.SIGINT, signal.SIGTERM)
POLL, PATIENCE = 0.25, 60.0  # seconds between two looks at what others say, and for which they may still write a file
WORD, SEEN = "interrupt/asked", "interrupt/seen"

_writing = threading.RLock()
_ending = threading.Event()


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write under, which becomes `path` when the block ends well: whole or not at all. A signal waits for it."""
    part = path.with_name(f".{os.getpid()}.{path.name}")
    with _writing:
        try:
            yield part
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def _noted(number: int, frame: FrameType | None) -> None:
    """Python writes the signals that have a handler to the wake-up socket; nothing is left to do here."""
    del number, frame


def end_together() -> None:
    """From now on SIGINT and SIGTERM end all processes, each with exit code 128 + the number; whoever sets a handler over this one's has
    them for himself as long as it stands. One process, and a thread that is not the main one, are left as they are."""
    if hosts.count() == 1 or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    reader.settimeout(POLL)
    for number in NUMBERS:
        signal.signal(number, _noted)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, writer), name="interrupt", daemon=True).start()


def wait_if_ending() -> None:
    """For the main thread, where it fails since the others are on their way out: this process is too, and says so in a line."""
    if _ending.is_set():
        threading.Event().wait(2 * PATIENCE)


def _watch(reader: socket.socket, writer: socket.socket) -> None:
    del writer  # held here, so that it stays open
    while hosts.count() > 1:
        with contextlib.suppress(TimeoutError):
            for number in reader.recv(64):
                if number in NUMBERS and signal.getsignal(number) is _noted:
                    name = signal.Signals(number).name
                    hosts.post(WORD, f"{number} {name} to process {hosts.index()}")
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # parting, or process 0 is gone
            if (word := hosts.posted(WORD)) is not None:
                _end(word)


def _end(word: str) -> NoReturn:
    """Leave when all others are leaving too and no file is half written."""
    number, _, text = word.partition(" ")
    _ending.set()
    deadline = time.monotonic() + PATIENCE
    _writing.acquire(timeout=PATIENCE)
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        hosts.post(f"{SEEN}/{hosts.index()}", "")
        while time.monotonic() < deadline and hosts.posts(SEEN) < hosts.count():
            time.sleep(0.05)
    if hosts.first():
        print(f"interrupted by {text}: all {hosts.count()} processes end; the same command starts again", file=sys.stderr)
    with contextlib.suppress(OSError):  # whoever read it may be gone
        sys.stdout.flush()
        sys.stderr.flush()
    if hosts.first():
        time.sleep(0.5)  # the others' last words go through it
    os._exit(128 + int(number))
