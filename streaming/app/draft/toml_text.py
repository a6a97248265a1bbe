"""What SQL does not say, as app.toml: what the samples tell, and what only the owner knows as questions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from streaming.app.draft.guesses import Column, Guess
from streaming.app.draft.names import Names
from streaming.app.draft.sql_text import Features, request_column

__all__ = ["app_toml"]

LABELS_MAX = 5  # that are named as candidates


def app_toml(guesses: Sequence[Guess], features: Features, name: str, deployment: str) -> str:
    """The file; its label is a question, which `check` repeats until it is answered.

    Args:
        guesses: the streams, the scored one first.
        features: the query.
        name: of the application. deployment: of the DEPLOY.
    """
    return "\n".join(_lines(guesses, features, name, deployment)) + "\n"


def _lines(guesses: Sequence[Guess], features: Features, name: str, deployment: str) -> Iterator[str]:
    main = guesses[0]
    yield "# What SQL does not say. Drafted from samples: lines with QUESTION want an answer."
    yield f"name = {json.dumps(name)}"
    yield '# QUESTION: in which time zone, as "Europe/Berlin"? For hours of the day, and times that name none.'
    yield 'time_zone = "UTC"'
    yield ""
    yield "[request]"
    yield f"id = {json.dumps(request_column(main))}  # the column of {main.table} that names a request"
    yield ""
    yield "# QUESTION: what is to be predicted? Take the marks away from one of these, and change it:"
    yield "[label]"
    yield from _labels(main, guesses[1:], features)
    yield ""
    yield "[scores]"
    yield f"topic = {json.dumps(_scores_topic(guesses, name))}"
    yield ""
    yield "[scores.fields]  # of a score's JSON"
    fields = Names()
    for column in [request_column(main), *(one.name for one in (main.key, main.time) if one is not None)]:
        yield f"{fields.take(column)} = {json.dumps(column)}"
    yield f'{fields.take("probability")} = "$probability"'
    yield f'{fields.take("model_version")} = "$model_version"'
    yield ""
    yield "[deployment]"
    yield f"name = {json.dumps(deployment)}"
    yield ""
    yield "[encoder]"
    yield "# QUESTION: which columns say who it is, and not what is likely? A model would learn such ids by heart."
    who = [request_column(main), *([] if main.key is None else [main.key.name])]
    yield f"leave_out = [{', '.join(json.dumps(column) for column in who)}]"
    if main.time.name in features.names:
        yield "fields = ["
        yield f'    {{ column = {json.dumps(main.time.name)}, kind = "hour" }},'
        yield "]"


def _labels(main: Guess, others: Sequence[Guess], features: Features) -> Iterator[str]:
    """Ways to label, each of which can be switched on as it stands."""
    flags = [column for column in main.columns if _is_flag(column) and column.name in features.names]
    for column in flags[:LABELS_MAX]:
        yield f"# column = {json.dumps(column.name)}  # of the query: above 0 is 1; it is no feature then"
    later = [other for other in others if other.join is not None] or [main]
    for other in later[:LABELS_MAX]:
        left, right = other.join or (main.key, main.key)
        if left is None or right is None:
            continue
        yield "# [label.later_event]  # a later row of the same key"
        yield f"# table = {json.dumps(other.table)}"
        yield f"# key = {{ {right.name} = {json.dumps(left.name)} }}"
        yield f"# time = {json.dumps(other.time.name)}"
        yield '# condition = "true"  # SQL of its columns'
        yield '# horizon = "1d"'


def _is_flag(column: Column) -> bool:
    """A field of true and false, or of 0 and 1."""
    if column.type == "bool":
        return True
    return column.type in ("int", "bigint") and (column.field.least, column.field.greatest) == (0, 1)


def _scores_topic(guesses: Sequence[Guess], name: str) -> str:
    topics = {guess.topic for guess in guesses}
    topic = f"{name}-scores"
    while topic in topics or topic == f"{guesses[0].topic}.dlq":
        topic += "-out"
    return topic
