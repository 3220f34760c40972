"""What the checkpoint library says on its own, and how little of it a person needs: one line of an error, and silence around it."""

from __future__ import annotations

import contextlib
import logging
import sys
import types
from collections.abc import Iterator
from typing import Any


def line(error: BaseException) -> str:
    """The first line of an error, without the specification of the array that TensorStore appends."""
    text = next((text.strip() for text in str(error).splitlines() if text.strip()), type(error).__name__)
    text = text.split(" See full TensorStore details")[0].split(" [tensorstore_spec=")[0]
    return text if len(text) <= 240 else f"{text[:120]} ... {text[-110:]}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While open, Orbax's threads do not log the failures that are raised here in one line (hundreds of lines of traceback a write)."""
    filter_hooks()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def filter_hooks() -> None:
    """Drop, for the rest of the process, two complaints that follow a failed read or write at any later time and mean nothing more:

    TensorStore calling back into an event loop that Orbax has closed, and the reads that Orbax leaves unawaited. All else passes.
    """
    hook, forgotten = sys.excepthook, sys.unraisablehook
    if getattr(hook, "filters_orbax", False):
        return

    def late(error: BaseException | None) -> bool:
        return isinstance(error, RuntimeError) and str(error) == "Event loop is closed"

    def excepthook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not late(error):
            hook(kind, error, trace)

    def unraisablehook(about: Any) -> None:
        unawaited = isinstance(about.object, types.CoroutineType) and "orbax" in about.object.cr_code.co_filename
        # a callback's error reaches either hook, by the thread it comes on
        if not (unawaited or late(about.exc_value)):
            forgotten(about)

    excepthook.filters_orbax = True
    sys.excepthook, sys.unraisablehook = excepthook, unraisablehook
