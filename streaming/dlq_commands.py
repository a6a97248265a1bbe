"""What `jd-intent-score dlq` prints (`streaming.dlq` does the work)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streaming import log
from streaming.config import load
from streaming.dlq import Filter, find, offsets, places, since
from streaming.dlq_replay import replay
from streaming.errors import ConfigError
from streaming.log import place

__all__ = ["filter_of", "list_letters", "replay_letters", "show_letter"]


def filter_of(  # noqa: PLR0917 - the options of a command, in their order
    reasons: Collection[str], topics: Collection[str], partitions: Collection[int], span: str, age: str,
    at: Collection[str] = (),
) -> Filter:  # fmt: skip
    """From the words of a command line.

    Args:
        span: offsets, first and last.

    Raises:
        ConfigError: an age, a place or an offset is none.
    """
    return Filter(
        reasons, topics, partitions, offsets(span) if span else None,
        since(age, datetime.now(timezone.utc)) if age else 0, places(at),
    )  # fmt: skip


def list_letters(file: Path | None, wanted: Filter, limit: int, *, as_json: bool) -> None:
    """A table, or JSON lines."""
    log.to_stderr()
    found, count = find(load(file), wanted, limit)
    if as_json:
        for letter in found:
            print(json.dumps(letter.told(), ensure_ascii=False))
        return
    table = Table("place", "written", "from", "reason", "message", "")
    for letter in found:
        fields = letter.told()
        state = f"replayed {fields['replayed']}" if letter.replayed_ms else f"cut: {letter.cut}" if letter.cut else ""
        table.add_row(fields["place"], fields["written"], fields["origin"] or "?", letter.reason, letter.message, state)
    Console(highlight=False, markup=False).print(table)
    print(f"{len(found)} of {count}")


def show_letter(file: Path | None, at: str) -> None:
    """One, with everything that it holds.

    Raises:
        ConfigError: there is none.
    """
    log.to_stderr()
    config = load(file)
    found, _ = find(config, Filter(places=places([at])), 1)
    if not found:
        raise ConfigError(f"{at}: no dead letter is there")
    (letter,) = found
    print(json.dumps(letter.told(whole=True), ensure_ascii=False, indent=2))


def replay_letters(file: Path | None, wanted: Filter, limit: int, *, everything: bool, dry_run: bool) -> int:
    """Says what was sent back, what was not and why.

    Returns:
        The exit status: 1 when a record cannot be sent back.

    Raises:
        ConfigError: nothing was chosen; see `streaming.dlq_replay.replay`, too.
    """
    if not everything and wanted == Filter():
        raise ConfigError("say which: places, --reason, --topic, --partition, --offsets, --since, or --all")
    log.to_stderr()
    outcome = replay(load(file), wanted, limit=limit, dry_run=dry_run)
    counts = Counter((letter.origin[0] if letter.origin else "?", letter.reason) for letter in outcome.sent)
    for (topic, reason), count in sorted(counts.items()):
        print(f"{'would be sent' if dry_run else 'sent'} to {topic}: {count} ({reason})")
    if outcome.already:
        print(f"sent back by an earlier replay: {outcome.already}")
    for letter, why in outcome.refused:
        print(f"cannot be sent: {place(*letter.place)}: {why}")
    if outcome.left:
        print(f"left to the next replay: {outcome.left}; give the command again")
    if not (outcome.sent or outcome.already or outcome.refused):
        print("no such dead letters")
    return 1 if outcome.refused else 0
