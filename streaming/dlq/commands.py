"""What `jd-intent-score dlq` prints (`streaming.dlq.letters` does the work)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path

from streaming.app.configured import application
from streaming.app.topics import TopicNames
from streaming.config import load
from streaming.dlq.letters import LetterFilter, find_letters, parse_offsets, parse_places, parse_since
from streaming.dlq.replay import replay
from streaming.errors import BadEvent, ConfigError
from streaming.events.record import reason_of
from streaming.ops import exits, log
from streaming.ops.log import place

__all__ = ["STAGES", "filter_of", "list_letters", "replay_letters", "show_letter"]


STAGES = ("decode", "validate", "insert", "features", "encode")
"""Of a dead letter without a reason of its own; see `streaming.errors.BadEvent`."""


def known_reasons() -> list[str]:
    """All that this program gives."""
    return sorted({reason_of(kind.__name__, "") for kind in BadEvent.__subclasses__()} | set(STAGES))


def filter_of(
    reasons: Collection[str],
    topics: Collection[str],
    partitions: Collection[int],
    span: str,
    age: str,
    at: Collection[str] = (),
) -> LetterFilter:
    """From the words of a command line.

    Args:
        span: offsets, first and last.

    Raises:
        ConfigError: an age, a place, an offset or a reason is none.
    """
    known = known_reasons()
    if unknown := [reason for reason in reasons if reason not in known]:
        raise ConfigError(f"--reason {unknown[0]}: there are {', '.join(known)}")
    return LetterFilter(
        reasons,
        topics,
        partitions,
        parse_offsets(span) if span else None,
        parse_since(age, datetime.now(timezone.utc)) if age else 0,
        parse_places(at),
    )


def list_letters(file: Path | None, wanted: LetterFilter, limit: int, *, as_json: bool) -> None:
    """Two lines for each, or JSON lines.

    Raises:
        ConfigError: a topic is none that letters come from; see `streaming.dlq.letters.find_letters`, too.
    """
    log.to_stderr()
    config = load(file)
    _, topics = application(config)
    _check_topics(topics, wanted)
    found, count = find_letters(config, topics, wanted, limit)
    if as_json:
        for letter in found:
            print(json.dumps(letter.told(), ensure_ascii=False))
        return
    for letter in found:  # no table: however narrow the terminal, the place stays whole, for `show` and `replay`
        fields = letter.told()
        state = (
            f", replayed {fields['replayed']}" if letter.replayed_ms else f", cut: {letter.cut}" if letter.cut else ""
        )
        print(f"{fields['place']}  {fields['written']}")
        print(f"    {letter.reason}, from {fields['origin'] or '?'}{state}: {letter.message}")
    print(f"{len(found)} of {count}")


def show_letter(file: Path | None, at: str) -> None:
    """One, with everything that it holds.

    Raises:
        ConfigError: there is none.
    """
    log.to_stderr()
    config, wanted = load(file), LetterFilter(places=parse_places([at]))
    _, topics = application(config)
    _check_topics(topics, wanted)
    found, _ = find_letters(config, topics, wanted, 1)
    if not found:
        raise ConfigError(f"{at}: no dead letter is there")
    (letter,) = found
    print(json.dumps(letter.told(whole=True), ensure_ascii=False, indent=2))


def replay_letters(file: Path | None, wanted: LetterFilter, limit: int, *, everything: bool, dry_run: bool) -> int:
    """Says what was sent back, what was not and why.

    Returns:
        The exit status: 1 when a record cannot be sent back.

    Raises:
        ConfigError: nothing was chosen; see `streaming.dlq.replay.replay`, too.
    """
    if not everything and wanted.everything:
        raise ConfigError("say which: places, --reason, --topic, --partition, --offsets, --since, or --all")
    log.to_stderr()
    config = load(file)
    _, topics = application(config)
    _check_topics(topics, wanted)
    outcome = replay(config, topics, wanted, limit=limit, dry_run=dry_run)
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
    return exits.ANSWER_IS_NO if outcome.refused else exits.DONE


def _check_topics(topics: TopicNames, wanted: LetterFilter) -> None:
    for topic in wanted.topics:
        if topic not in topics.inputs:
            raise ConfigError(f"--topic {topic}: dead letters come from {', '.join(topics.inputs)}")
    for topic, *_ in wanted.places:
        if topic != topics.dead_letters:
            raise ConfigError(f"{topic}: dead letters lie in {topics.dead_letters}")
