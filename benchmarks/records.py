"""Records in memory, as a consumer hands them out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NOW_MS", "Written"]

NOW_MS = 1_459_419_080_000


@dataclass
class Written:
    """A record without a place; its time is held against the clock."""

    key_: bytes
    value_: bytes
    topic_: str = "user-actions"

    def topic(self) -> str:
        return self.topic_

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, -1
