"""What was published, held against the truth: all of it right, in order, and there once, or at least once."""

from __future__ import annotations

import json

from simulation.bench import bench
from simulation.broker import Broker, Entry
from simulation.workload import Origin
from simulation.world import Violation
from streaming.events.record import reason_of
from streaming.events.scores import event_place, score_json

__all__ = ["check_output", "named", "output"]


def output(broker: Broker, topic: str) -> list[Entry]:
    """A topic as a `read_committed` subscriber sees it."""
    entries = broker.logs[topic, 0].entries
    return [e for e in entries if e.transaction is None or e.transaction.state == "committed"]


def named(letter: Entry) -> tuple[Origin, str]:
    """The record that a dead letter is of, and the kind of its refusal."""
    headers = {name: (value or b"").decode() for name, value in letter.headers()}
    place = headers["__connect.errors.topic"], int(headers["__connect.errors.partition"])
    kind = headers["__connect.errors.exception.class.name"].rpartition(".")[2]
    return (place, int(headers["__connect.errors.offset"])), kind


def check_output(broker: Broker, workload: int, *, whole: bool, once: bool = True, store: str = "embedded") -> None:
    """All that was published is right and there once.

    Args:
        workload: its number.
        whole: nothing is missing, either.
        once: False: what comes again may, if it is the same; it counts where it comes first.
        store: `store.kind`.

    Raises:
        Violation: says what is wrong.
    """
    letters = [named(entry) for entry in output(broker, "dead_letters")]
    truth = bench().truth(workload, frozenset(at for at, kind in letters if kind == "TooLarge"), store)
    scores, refused = dict(truth.scores), dict(truth.refused)
    newest: dict[tuple[str, bytes | None], int] = {}
    repeatable: dict[Origin, tuple[bytes | None, object]] = {}
    told: set[tuple[Origin, str]] = set()
    for entry in output(broker, "scores"):
        ce_id = event_place(entry)
        where, _, offset = ce_id.partition("@")
        topic, _, number = where[:-1].partition("[")
        at = ((topic, int(number)), int(offset))
        if not once and at in repeatable:
            if repeatable[at] != (entry.key(), json.loads(score_json(entry) or b"")):
                raise Violation(f"{ce_id} is scored again, and otherwise")
            continue
        if at not in scores:
            raise Violation(f"{ce_id} is scored twice, or never was a good event")
        key, score = scores.pop(at)
        found = json.loads(score_json(entry) or b"")
        if (entry.key(), found) != (key, score):
            raise Violation(f"{ce_id} is scored {found}, alone it would be {score}")
        lane = where, (None if store == "embedded" else key)  # over a cluster keys do not wait for each other
        if newest.get(lane, -1) > int(offset):
            raise Violation(f"{ce_id} comes after {where}@{newest[lane]}")
        newest[lane] = int(offset)
        repeatable[at] = (key, score)
    if scores and whole:
        raise Violation(f"never scored: {sorted(scores)}")
    for at, kind in letters:
        if not once and (at, kind) in told:
            continue
        told.add((at, kind))
        if at not in refused:
            raise Violation(f"{at} is among the dead letters twice, or is good")
        wanted = refused.pop(at)
        if wanted != reason_of(kind, ""):
            raise Violation(f"{at} was refused as {kind}, not as {wanted}")
    if refused and whole:
        raise Violation(f"not among the dead letters: {sorted(refused)}")
