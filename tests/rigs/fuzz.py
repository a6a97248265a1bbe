"""Feeds inputs that nobody would send to the decoders and to the configuration. `make fuzz [INPUTS=1000000]`

    PYTHONPATH=.:tests python -m rigs.fuzz --inputs 1000000 [--seed N]

Hypothesis draws odd values, junk and a seed; messages are made of them near valid ones: fields changed, left out or
added, bytes damaged. TOML and the environment alike. A decoder may answer with an event or `BadEvent`, the
configuration with `Config` or `ConfigError`; what a decoder accepts must also go through all that follows it (columns,
and a request's answer by the engine).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import tomli
from fixtures.jd import jd, jd_decoder, jd_topics
from fixtures.records import Fake
from fixtures.scorer import START_MS, Shop, loaded_store
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from places import REPOSITORY

from streaming.config import Config, load
from streaming.errors import ConfigError
from streaming.events.dead_letter import dead_letter

__all__ = ["fuzz"]

PER_EXAMPLE = 400  # messages of one Hypothesis example, whose bookkeeping costs more than they

ODD_NUMBERS = st.one_of(
    st.integers(), st.integers(2**53, 2**80), st.floats(), st.sampled_from([0, -1, START_MS, 2**63, -(2**63), 1e308])
)
ODD_TEXTS = st.one_of(
    st.text(max_size=8), st.sampled_from(["", "1", "9", "\0", "\ud800", "é" * 200, "x" * 300, "NULL", "2016-01-01"])
)
ODD = st.recursive(
    st.one_of(st.none(), st.booleans(), ODD_NUMBERS, ODD_TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(ODD_TEXTS, inner, max_size=3)),
    max_leaves=4,
)
NOT_JSON = st.one_of(st.none(), st.binary(max_size=40), st.just(b"[" * 2000), st.just(b'{"a":' * 2000))

Example = tuple[str, bytes | None, bytes | None]


def _samples() -> dict[str, tuple[str, dict[str, Any]]]:
    shop = Shop.seeded(1)
    return {
        "actions": ("user_id", shop.actions[0]),
        "users": ("user_id", shop.users[0]),
        "products": ("sku_id", shop.products[0]),
        "comments": ("sku_id", shop.comments[0]),
    }


SAMPLES = _samples()


def message(luck: random.Random, odd: Sequence[Any]) -> Example:
    """Stream, key and value: of a valid message some fields changed, left out or added, then some bytes damaged."""
    table = luck.choice(sorted(SAMPLES))
    key_name, sample = SAMPLES[table]
    row = dict(sample)
    for _ in range(luck.choice((0, 0, 1, 1, 1, 2, 3))):
        row[luck.choice([*row, "x", "request_id"])] = luck.choice(odd)
    if luck.random() < 0.1:
        del row[luck.choice(list(row))]
    value = bytearray(json.dumps(row, ensure_ascii=luck.random() < 0.5).encode("utf-8", "surrogatepass"))
    if luck.random() < 0.3:
        for _ in range(luck.randint(1, 3)):
            at = luck.randint(0, len(value))
            value[at : at + luck.randint(0, 2)] = luck.randbytes(luck.randint(0, 3))
    key = row.get(key_name)
    return table, key.encode("utf-8", "surrogatepass") if isinstance(key, str) else None, bytes(value)


def _tables() -> dict[str, dict[str, Any]]:
    parsed = tomli.loads((REPOSITORY / "deploy" / "scorer.toml").read_text())
    return {name: table for name, table in parsed.items() if isinstance(table, dict)}


TABLES = _tables()


@st.composite
def configurations(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """A file near a valid one, maybe damaged, and variables of the environment near the ones that are read."""
    lines: list[str] = []
    for table in draw(st.lists(st.sampled_from(sorted(TABLES)), max_size=3, unique=True)):
        lines.append(f"[{table}]")
        for key in draw(st.lists(st.sampled_from(sorted(TABLES[table])), max_size=3, unique=True)):
            value = draw(st.one_of(st.just(TABLES[table][key]), ODD))
            lines.append(f"{key} = {json.dumps(value)}")
        if draw(st.integers(0, 9)) == 0:
            lines.append(draw(ODD_TEXTS) + " = 1")
    content = bytearray("\n".join(lines).encode("utf-8", "surrogatepass"))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(content)))
        content[at : at + 1] = draw(st.binary(max_size=3))
    environment = {}
    for _ in range(draw(st.integers(0, 2))):
        table = draw(st.sampled_from(sorted(TABLES)))
        name = draw(st.one_of(st.sampled_from(sorted(TABLES[table])), st.sampled_from(["", "X", "LIBRDKAFKA__COMMON"])))
        text = draw(st.one_of(st.text("0123456789.-e{}[]\"' truefalsenu:,", max_size=12), ODD_TEXTS))
        environment[f"JD_INTENT__{table}__{name}".upper()] = text.replace("\0", "").encode("utf-8", "replace").decode()
    return bytes(content), environment


class Fuzzer:
    """Takes inputs, counts what became of them, and fails on anything but the two answers."""

    def __init__(self, folder: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._file = folder / "scorer.toml"
        self._store = loaded_store()
        self._decoder = jd_decoder()
        self._topics = {stream.name: topic for topic, stream in jd_topics().streams.items()}
        self._records: list[Fake] = []

    def message(self, stream: str, key: bytes | None, value: bytes | None) -> None:
        self.counts["messages"] += 1
        place = (self._topics[stream], 0, len(self._records))
        self._records.append(Fake(key, value, place=place, written_ms=START_MS))

    def answers(self) -> None:
        """What came since the last call is decoded, inserted and asked for."""
        records, self._records = self._records, []
        events, refused = self._decoder.decode(records)
        self.counts["refused"] += len(refused)
        self.counts["accepted"] += len(events)
        if len(events) + len(refused) != len(records):
            raise AssertionError(f"{len(events)} events and {len(refused)} refusals of {len(records)} records")
        for record, error in refused:
            dead_letter(record, error, 10_000, "group")
        asked = int(events.has(jd().main).sum())
        mark = self._store.mark()
        if asked:
            answer = self._store.answer(events)
            if answer.num_rows != asked:
                raise AssertionError(f"{answer.num_rows} answers to {asked} requests")
        else:
            self._store.restore(events)
        self._store.rollback(mark)

    def configuration(self, content: bytes, environment: dict[str, str]) -> None:
        self.counts["configurations"] += 1
        self._file.write_bytes(content)
        with patch.dict(os.environ, environment):
            try:
                config = load(self._file)
            except ConfigError:
                self.counts["configurations refused"] += 1
                return
        if not isinstance(config, Config):
            raise TypeError(f"{content!r} gives {config!r}")


def fuzz(inputs: int, number: int, tell: Callable[[Counter[str]], None] = lambda _: None) -> Counter[str]:
    """Feeds so many inputs, drawn from the seed `number`; what became of them.

    Raises:
        Whatever a decoder or the configuration raised that they must not; Hypothesis adds the input, made small.
    """
    with TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder))
        rounds = -(-inputs // (PER_EXAMPLE + 1))
        checked = settings(
            max_examples=rounds,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )

        @seed(number)
        @checked
        @given(st.integers(0, 2**32), st.lists(ODD, min_size=8, max_size=8), NOT_JSON, configurations())
        def feed(chance: int, odd: list[Any], junk: bytes | None, configuration: tuple[bytes, dict[str, str]]) -> None:
            luck = random.Random(chance)
            for _ in range(PER_EXAMPLE - 1):
                fuzzer.message(*message(luck, odd))
            fuzzer.message(luck.choice(sorted(SAMPLES)), junk, junk)
            fuzzer.answers()
            fuzzer.configuration(*configuration)
            tell(fuzzer.counts)

        feed()
        return fuzzer.counts


def main() -> None:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    started = told = time.monotonic()
    counts, number = Counter[str](), words.seed

    def total() -> int:
        return counts["messages"] + counts["configurations"]

    def tell(more: Counter[str]) -> None:
        nonlocal told
        if time.monotonic() - told > 10:
            told = time.monotonic()
            print(f"{told - started:5.0f} s  {dict(counts + more)}", flush=True)

    while total() < words.inputs:  # Hypothesis may draw fewer examples than it was allowed to
        counts += fuzz(words.inputs - total(), number, tell)
        number += 1
    print(f"{total():,} inputs in {time.monotonic() - started:.0f} s: {dict(counts)}")
    print("no answer but an event, BadEvent, a configuration and ConfigError")


if __name__ == "__main__":
    main()
