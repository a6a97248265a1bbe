"""Whether the ratios of `make bench` are still those of the run that was recorded: `make bench-check`.

    python -m benchmarks.ratios build/bench.json [--recorded FILE]     # status 1 and their names, where some fell
    python -m benchmarks.ratios build/bench.json --record              # this run is the one to hold from now on

Never times: another machine has others. A ratio that rose is no fault; record it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["RECORDED", "TOLERANCE", "Compared", "Run", "compare", "ratios"]

RECORDED = Path(__file__).parent / "recorded.json"
TOLERANCE = 0.15

# name → the system above, and those of which the slower one is below; round by round
RATIOS = {
    "ours / echo, constant model": ("ours, constant", ("echo",)),
    "ours / min(features, model), demo's net": ("ours, net", ("features", "model")),
    "ours / Quix Streams": ("ours, constant", ("Quix Streams",)),
    "ours / Quix Streams without a model": ("ours, constant", ("Quix Streams, no model",)),
    "ours / the tutorial's own way": ("ours, constant", ("tutorial",)),
}


def ratios(per_s: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Each ratio, round by round; without those whose systems were not measured.

    Args:
        per_s: of each system its events per second, round by round.
    """
    return {
        name: [mine / min(others) for mine, *others in zip(per_s[ours], *(per_s[one] for one in below), strict=True)]
        for name, (ours, below) in RATIOS.items()
        if per_s.keys() >= {ours, *below}
    }


@dataclass(frozen=True)
class Run:
    """One run of `make bench`.

    Attributes:
        about: the machine, versions, commit, settings.
        per_s: of each system its events per second, round by round.
    """

    about: dict[str, Any]
    per_s: dict[str, list[float]]

    @property
    def rounds(self) -> int:
        return max(map(len, self.per_s.values()), default=0)

    def medians(self) -> dict[str, float]:
        """Of each ratio, over the rounds."""
        return {name: statistics.median(values) for name, values in ratios(self.per_s).items()}

    def write(self, file: Path) -> None:
        """As JSON, with the ratios' medians for who reads it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        told = {**self.about, "rounds": self.rounds, "ratios": self.medians(), "per_s": self.per_s}
        file.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Run:
        """What `write` wrote.

        Raises:
            SystemExit: there is no such file, or it is none of these.
        """
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            per_s = {str(name): [float(value) for value in values] for name, values in told.pop("per_s").items()}
        except FileNotFoundError:
            raise SystemExit(
                f"{file} does not exist: `make bench` writes build/bench.json, `make bench-record` {RECORDED.name}"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SystemExit(f"{file} is no run of `make bench`: {error!r}") from None
        return cls({name: value for name, value in told.items() if name not in ("rounds", "ratios")}, per_s)


@dataclass(frozen=True)
class Compared:
    """A ratio of the recorded run and what became of it.

    Attributes:
        now: None where this run did not measure it.
    """

    name: str
    recorded: float
    now: float | None

    @property
    def fell(self) -> bool:
        """It is lower than the tolerance allows, or was not measured."""
        return self.now is None or self.now < self.recorded * (1 - TOLERANCE)

    @property
    def rose(self) -> bool:
        """It is higher than the tolerance: the recorded one is out of date."""
        return self.now is not None and self.now > self.recorded * (1 + TOLERANCE)

    def __str__(self) -> str:
        if self.now is None:
            return f"{self.name}: {self.recorded:.3g} recorded, not measured now"
        word = "FELL" if self.fell else "rose: `make bench-record` holds it" if self.rose else "holds"
        return (
            f"{self.name}: {self.recorded:.3g} recorded, {self.now:.3g} now ({self.now / self.recorded:.2f}×), {word}"
        )


def compare(recorded: Run, now: Run) -> list[Compared]:
    """Every ratio of the recorded run."""
    medians = now.medians()
    return [Compared(name, value, medians.get(name)) for name, value in recorded.medians().items()]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="what `make bench` wrote")
    parser.add_argument("--recorded", type=Path, default=RECORDED)
    parser.add_argument("--record", action="store_true", help="write the run there instead")
    words = parser.parse_args(argv)
    now = Run.read(words.run)
    if words.record:
        now.write(words.recorded)
        print(f"{words.recorded} holds: " + ", ".join(f"{name} {value:.3g}" for name, value in now.medians().items()))
        return
    compared = compare(Run.read(words.recorded), now)
    for one in compared:
        print(one)
    if fell := [one.name for one in compared if one.fell]:
        sys.exit(f"fell by more than {TOLERANCE:.0%}: {', '.join(fell)}")


if __name__ == "__main__":
    main()
