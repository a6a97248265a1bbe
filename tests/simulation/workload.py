"""What is sent in a schedule, and what must come of it: each event answered alone, one after the other."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

from fixtures.scorer import START_MS, Shop

from simulation.application import DELETABLE
from simulation.broker import Entry, Place

__all__ = [
    "ACTIONS",
    "HORIZON_MS",
    "PARTITIONS",
    "TABLES",
    "TAKEN_BYTES",
    "TOPICS",
    "Origin",
    "Truth",
    "Workload",
    "has_deadly",
    "has_repeats",
    "is_deadly",
    "make_workload",
    "repeats",
]

PARTITIONS = 3
ACTIONS = 16
HORIZON_MS = 8_000  # of `dedup`, where it is on
TAKEN_BYTES = 600  # of a value, until the scorers are mended
DEADLY = ("decode kills", "decode fails", "features kill", "features fail")
"""Texts in a record, and what happens to who decodes it, or inserts its row: SIGKILL, or a defect that ends it."""
WRITTEN_MS = START_MS + 10**10

Origin = tuple[Place, int]

TABLES = {"users": ("bo_user", "user_id"), "products": ("bo_product", "sku_id"), "comments": ("bo_comment", "sku_id")}
TOPICS = {"actions": PARTITIONS, "users": 1, "products": 1, "comments": 2, "scores": 1, "dead_letters": 1}


@dataclass
class Workload:
    """One stream of events. `gaps`: that its logs have, a bit per action."""

    dimensions: list[Entry]
    later: list[Entry]
    """Dimension rows that come while actions do; no feature depends on them."""
    actions: list[Entry]
    gaps: list[int]


@dataclass
class Truth:
    """What must come of a workload. `scores`: place of each good action → key and score; `refused`: place → reason."""

    scores: dict[Origin, tuple[bytes, dict[str, Any]]] = field(default_factory=dict)
    refused: dict[Origin, str] = field(default_factory=dict)


def _entry(topic: str, partition: int, key: str, value: bytes | None) -> Entry:
    return Entry((topic, partition), 0, key.encode(), value, [], WRITTEN_MS)


def make_workload(number: int) -> Workload:
    """Late, duplicate and equal-time events, poison, and dimension rows of which some are bad."""
    luck = random.Random(number)
    shop = Shop.seeded(ACTIONS, 1000 + number)
    dimensions = [
        _entry(topic, luck.randrange(TOPICS[topic]), row[TABLES[topic][1]], json.dumps(row).encode())
        for topic, rows in (("users", shop.users[:2]), ("products", shop.products[:2]), ("comments", shop.comments[:3]))
        for row in rows
    ]
    dimensions[luck.randrange(len(dimensions))].record_value = b"{"
    _delete_some(dimensions, random.Random(-1 - number))
    nobody = {**shop.comments[0], "sku_id": "nobody's"}
    later = [
        _entry("comments", luck.randrange(2), "nobody's", json.dumps(nobody).encode()),
        _entry("comments", luck.randrange(2), "nobody's", b'{"sku_id": 1}'),
        _entry("users", 0, "nobody", json.dumps({**shop.users[0], "user_id": "nobody"}).encode()),
        _entry("users", 0, "nobody", None),
        _entry("comments", luck.randrange(2), "nobody's", None),
    ]
    actions: list[Entry] = []
    for action in shop.actions:
        user = str(int(action["user_id"]) % 4)
        row = {**action, "user_id": user, "sku_id": str(int(action["sku_id"]) % 3)}
        if actions and luck.random() < 0.2:
            row["time"] = START_MS  # of equal times the order of the log counts
        if luck.random() < 0.1:  # each doubles the truths that the workload may have
            row["note"] = "x" * TAKEN_BYTES
        entry = _entry("actions", int(user) % PARTITIONS, user, json.dumps(row).encode())
        actions.append(entry)
        if luck.random() < 0.1:
            actions.append(_entry("actions", entry.place[1], user, entry.record_value))  # sent twice
        if luck.random() < 0.1:
            bad = luck.choice((b"{", b"", None, b"\xff", json.dumps({**row, "type": "9"}).encode()))
            actions.append(_entry("actions", entry.place[1], user, bad))
    if has_deadly(number):
        how = number // 8
        row = {**shop.actions[0], "user_id": "0", "br": DEADLY[how % 4], "request_id": "deadly"}
        actions.insert(luck.randrange(len(actions)), _entry("actions", 0, "0", json.dumps(row).encode()))
        if how % 2:
            rows = (dimensions, later)[how // 2 % 2]
            row = {**nobody, "sku_id": "deadly", "has_bad_comment": DEADLY[(how + 1) % 4]}
            rows.insert(luck.randrange(len(rows)), _entry("comments", how // 2 % 2, "deadly", json.dumps(row).encode()))
    if has_repeats(number):
        for entry in luck.sample([entry for entry in actions if not is_deadly(entry)], len(actions) // 3):
            again = _entry("actions", entry.place[1], (entry.key() or b"").decode(), entry.value())
            actions.insert(luck.randrange(actions.index(entry), len(actions)) + 1, again)
        for before, entry in itertools.pairwise(actions):
            entry.written_ms = before.written_ms + luck.choice((-100, 0, 1, 300, 900, 4_000))
    return Workload(dimensions, later, actions, [int(luck.random() < 0.1) for _ in actions])


def _delete_some(dimensions: list[Entry], luck: random.Random) -> None:
    """Puts tombstones among users and products: some before a row of their key, some behind it, some both."""
    for row in [entry for entry in dimensions if entry.place[0] in DELETABLE]:
        for behind in (0, 1):
            if luck.random() < 1 / 3:
                dimensions.insert(dimensions.index(row) + behind, _entry(*row.place, (row.key() or b"").decode(), None))


def has_deadly(number: int) -> bool:
    """Are there deadly records in this workload, and journals against them?"""
    return number % 8 == 3


def has_repeats(number: int) -> bool:
    """Are there many records that repeat a request, some behind the horizon, and is `dedup` on?"""
    return number // 16 % 2 == 1


def repeats(
    accepted: list[tuple[str | None, int]], name: str | None, written_ms: int, horizon_ms: int = HORIZON_MS
) -> bool:
    """Whether a request repeats one that its partition has `accepted`; one that does not is accepted now."""
    now = max([written_ms, *(time for _, time in accepted)])
    if any(name == other and now - time <= horizon_ms for other, time in accepted):
        return True
    accepted.append((name, now))
    return False


def is_deadly(entry: Entry) -> bool:
    return any(text.encode() in (entry.value() or b"") for text in DEADLY)
