"""One run a workdir: the file `.lock` names host, process and start of the run that trains there, and when it was last alive.

On one machine the file is locked by the kernel, which lets go of it however the process ends, so that a kill -9 blocks nobody. Of a run on
another host, or in a folder that knows no locks, only what is written can tell: it counts as dead once it has given no sign of life for
PATIENCE seconds, a time in which it would have given many. Commands that only read a workdir do not ask.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from causal_gen.types import WorkdirError

BEAT, PATIENCE = 2.0, 60.0  # seconds


class Lock:
    """A context that holds `workdir` for this process, or raises WorkdirError naming who does. Its thread gives a sign of life every BEAT.

    `before` is the record of an earlier run that was killed or failed ("over"), {"host", "pid", "start", "over", "seen"}, times in Unix
    seconds; None where the last one ended well. Of several processes of one run the `first` holds the lock for all.
    """

    def __init__(self, workdir: Path, first: bool = True):
        self._first = first
        self._path, self._done = workdir / ".lock", threading.Event()
        self._record: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "start": time.time(), "over": False}
        self.before: dict[str, Any] | None = None

    def __enter__(self) -> Lock:
        if not self._first:
            return self
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise WorkdirError(f"cannot write {self._path} ({error.strerror or error}): give a --workdir that can be written") from error
        try:
            self._take()
            self._beat()
        except BaseException:
            os.close(self._file)
            raise
        self._thread = threading.Thread(target=self._live, name="lock", daemon=True)
        self._thread.start()
        return self

    def _take(self) -> None:
        held = locked = False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError as error:
            held = error.errno in (errno.EWOULDBLOCK, errno.EACCES)  # others: a file system that knows no locks
        self.before = self._read()
        who = self.before or {"host": "this host", "pid": "unknown", "start": time.time(), "over": False, "seen": 0.0}
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(who["start"]))
        name = f"process {who['pid']} on {who['host']}, started {started},"
        if held:
            raise WorkdirError(f"{self._path.parent} is being trained by {name} already: wait for it, end it, or give another --workdir")
        silent = time.time() - who["seen"]
        if not (locked and who["host"] == self._record["host"]) and silent < PATIENCE and not who["over"]:
            raise WorkdirError(
                f"{self._path.parent} is being trained by {name} which gave a sign of life {max(silent, 0):.0f} s ago: end it, or if that "
                f"host is gone, start again in {PATIENCE - silent:.0f} s"
            )

    def _read(self) -> dict[str, Any] | None:
        try:
            record = json.loads(os.pread(self._file, 4096, 0))
            return {name: record[name] for name in ("host", "pid", "start", "over", "seen")}
        except (ValueError, KeyError, TypeError):  # empty: nobody; anything else: cut short by a kill
            return None

    def _beat(self) -> None:
        text = json.dumps({**self._record, "seen": time.time()}).encode().ljust(256)  # one write of one length is never seen by halves
        with contextlib.suppress(OSError):  # a full disk is told of by what cannot do without it
            os.pwrite(self._file, text, 0)

    def _live(self) -> None:
        while not self._done.wait(BEAT):
            self._beat()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if not self._first:
            return
        self._done.set()
        self._thread.join()
        if kind is None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)
        else:  # the record stays, since time was lost
            self._record["over"] = True
            self._beat()
        os.close(self._file)
