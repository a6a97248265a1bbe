"""Compiles the kernels into their cache: `python -m streaming.engine.native.warm`, once after an installation.

Every kernel is compiled once per version of its sources, whatever the queries; without this the first call does it.
"""

from __future__ import annotations

import time

from streaming.engine.native.kernel import load

__all__ = ["warm_up"]


def warm_up() -> float:
    """Loads all kernels, compiled before or now; returns the seconds it took."""
    start = time.perf_counter()
    load()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(f"kernels ready after {warm_up():.1f} s")
