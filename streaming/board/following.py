"""What `board` and `top` follow, and how much of it they keep: the options that both have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from streaming.errors import ConfigError

__all__ = ["Following", "parse_age"]


@dataclass(frozen=True)
class Following:
    """What the command line says of it.

    Args:
        look_back_s: how old the scores are that are read at the start.
        scores_max: the newest so many are kept.
        metrics: URLs of the scorers' /metrics; empty: where `[http]` of the configuration says.
    """

    look_back_s: float
    scores_max: int
    metrics: Sequence[str] = ()


def parse_age(option: str, text: str) -> float:
    """`90s`, `15m`, `1h` or `2d` in seconds.

    Raises:
        ConfigError: it is none of these.
    """
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise ConfigError(f"{option} {text!r} is no age: a whole number and s, m, h or d, like 15m")
    return float(int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]])
