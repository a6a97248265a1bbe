"""Imports without the garbage collector: nearly all that they make stays, and a start waits for them."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["what_is_imported_stays"]


@contextlib.contextmanager
def what_is_imported_stays() -> Iterator[None]:
    """Nothing is collected in the block, and what it leaves behind never is: no later collection walks it."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
