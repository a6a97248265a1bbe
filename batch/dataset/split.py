"""Splits requests by time: the oldest train, the next validate, the newest test.

Requests of equal time are never divided, so a part can be a little smaller or larger than asked for. A label looks five
days ahead: the labels of the last five days of a part depend on orders that fall into the next part. No feature sees
them, so nothing leaks into the inputs; who wants strictly separate labels too gives an embargo of five days, which
drops from training (and from validation) what is closer than that to the next part.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from streaming.errors import BadInput

__all__ = ["Split", "by_time", "start_of_test_ms"]


@dataclass(frozen=True)
class Split:
    """Row numbers of each part, sorted by time (equal times in the given order).

    Attributes:
        train: rows of the training part, the oldest.
        val: rows of the validation part.
        test: rows of the test part, the newest.
        val_from_ms: where validation begins, epoch ms.
        test_from_ms: where the test part begins, epoch ms.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]
    val_from_ms: int
    test_from_ms: int


def by_time(
    time_ms: NDArray[np.int64], val_fraction: float = 0.1, test_fraction: float = 0.1, embargo_ms: int = 0
) -> Split:
    """Splits rows by their times (epoch ms, any order).

    Raises:
        BadInput: a fraction out of its range, a negative embargo, or a part that would be empty.
    """
    for name, fraction in (("--val-fraction", val_fraction), ("--test-fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise BadInput(f"{name} must be between 0 and 1, not {fraction}")
    if val_fraction + test_fraction >= 1:
        raise BadInput(f"--val-fraction {val_fraction} and --test-fraction {test_fraction} leave nothing to train on")
    if embargo_ms < 0:
        raise BadInput("--embargo must not be negative")
    n = len(time_ms)
    if n < 3:
        raise BadInput(f"{n} requests cannot make three parts")
    order = np.argsort(time_ms, kind="stable")
    sorted_ms = time_ms[order]
    # The boundary is a time: every request of that very time goes to the later part.
    val_from = int(sorted_ms[min(int(n * (1 - val_fraction - test_fraction) + 0.5), n - 1)])
    test_from = int(sorted_ms[min(int(n * (1 - test_fraction) + 0.5), n - 1)])
    val_at, test_at = np.searchsorted(sorted_ms, [val_from, test_from])
    train_end, val_end = np.searchsorted(sorted_ms, [val_from - embargo_ms, test_from - embargo_ms])
    parts = {
        "train": order[: min(train_end, val_at)],
        "val": order[val_at : max(val_at, min(val_end, test_at))],
        "test": order[test_at:],
    }
    for name, rows in parts.items():
        if not len(rows):
            raise BadInput(
                f"the {name} part is empty: {n} requests from {sorted_ms[0]} to {sorted_ms[-1]} (epoch ms), "
                f"validation from {val_from}, test from {test_from}, embargo {embargo_ms} ms"
            )
    return Split(**parts, val_from_ms=val_from, test_from_ms=test_from)


def start_of_test_ms(dataset: Path) -> int:
    """Where the test part of a dataset folder begins, epoch ms: everything before it is history."""
    info = msgspec.json.decode((dataset / "dataset.json").read_bytes())
    return int(info["split"]["test_from"])
