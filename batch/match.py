"""Who is about to want what: the ranked users of a day with their items, and how many of them are right.

    jd-intent-batch match --features DIR --data DIR --evaluation DIR --day YYYY-MM-DD --out DIR [--app FOLDER]

Of each user and item the newest request of the day counts. What is expected of the choice is measured, not modelled:
the same rule is applied to each whole day of validation, whose labels are known.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from batch.dataset.label import epoch_ms
from batch.dataset.labelled import read_features, request_columns, request_id_column
from batch.features.data_layout import BadData
from batch.report.figures import CLASS_MIN, Interval, wilson
from batch.train.verdict import read_evaluated
from streaming.app.folder import App
from streaming.app.scores import ScoreRoles, score_roles
from streaming.app.settings import MODEL_VERSION, PROBABILITY
from streaming.errors import BadInput
from streaming.files.output_folder import Say, replacing

__all__ = ["Candidates", "Expected", "Matched", "Rule", "choose", "expected_of", "for_a_spreadsheet", "match_day"]

MATCHES, SUMMARY = "matches", "match.json"
_PREDICTIONS = {"part": pa.string(), "request_id": pa.string(), "probability": pa.float32(), "label": pa.int8()}

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rule:
    """Whom to choose: all of it must hold.

    Attributes:
        threshold: the least probability; None: any.
        per_user: items of a user at most, those of the highest probability; then `per_item`: users of an item at most.
    """

    threshold: float | None = None
    per_user: int | None = None
    per_item: int | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise BadInput(f"--threshold must be between 0 and 1, not {self.threshold}")
        for option, most in (("--per-user", self.per_user), ("--per-item", self.per_item)):
            if most is not None and most < 1:
                raise BadInput(f"{option} must be at least 1, not {most}")


@dataclass(frozen=True)
class Candidates:
    """Scored requests, [n] each; users, items and days as whole numbers that tell them apart."""

    users: Codes
    items: Codes
    days: Codes
    time_ms: Codes
    probabilities: npt.NDArray[np.float64]


class Expected(msgspec.Struct, frozen=True):
    """What the rule would have given on validation.

    Attributes:
        days: whole days that it was tried on.
        chosen: user–item pairs of a day; `right` of them were positive.
        candidates: all such pairs; `positives` of them were.
        precision: None, as `lift`, where fewer than `CLASS_MIN` candidates of a class say nothing, or none was chosen.
        lift: how many times more often the chosen are positive than the candidates.
    """

    days: int
    chosen: int
    right: int
    candidates: int
    positives: int
    precision: float | None
    precision_interval: Interval
    lift: float | None
    lift_interval: Interval


class Matched(msgspec.Struct, frozen=True):
    """`match.json`: what was chosen, of which day, by which rule and model, and what to expect of it.

    Attributes:
        candidates: user–item pairs of the day; `chosen` of them are in the file, `users` and `items` among them.
    """

    app: str
    day: str
    time_zone: str
    user: list[str]
    item: list[str]
    threshold: float | None
    per_user: int | None
    per_item: int | None
    candidates: int
    chosen: int
    users: int
    items: int
    weights_sha256: str
    expected: Expected


def match_day(
    app: App,
    features: Path,
    data: Path,
    evaluation: Path,
    out: Path,
    day: date,
    rule: Rule,
    *,
    csv: bool = False,
    validation: Path | None = None,
    force: Say | None = None,
) -> Matched:
    """Writes `matches.parquet` (or `.csv`) and `match.json` into `out`.

    Args:
        features: what `extract` wrote, of the day and of validation.
        data: where columns are looked up that the query does not answer.
        evaluation: the folder with the `predictions.parquet` of the day's requests.
        validation: the one with those of part `val`; None: `evaluation`.
        force: see `streaming.files.output_folder.replacing`.

    Raises:
        BadData: a file is missing or wrong, or no request of the day was scored. DatasetError: `metrics.json` is
            missing or wrong. OutputRefused: `out` holds something else, or touches an input.
        BadInput: `rule` asks for items, and the application's scores have none; `day` is the calendar's last.
    """
    roles = score_roles(app)
    if not roles.users:
        raise BadInput(f"{app.folder}/app.toml: no field of [scores.fields] is the key of a scored stream: no user")
    if rule.per_item is not None and not roles.items:
        raise BadInput(f"{app.folder}/app.toml: no field of [scores.fields] is an item: --per-item has no meaning")
    judged = validation or evaluation
    inputs = [features, data, *dict.fromkeys([evaluation, judged])]
    with replacing(out, "matches", inputs=inputs, force=force) as folder:
        rows = _scored(app, features, data, roles, {"": evaluation, "val": judged})
        start, end = _bounds(day, app.settings.time_zone)
        of_day = rows.filter(pc.and_(pc.greater_equal(rows["_time"], start), pc.less(rows["_time"], end)))
        asked = of_day.filter(pc.equal(of_day["_from"], ""))
        if not asked.num_rows:
            raise BadData(f"{evaluation}: no request of {day} ({app.settings.time_zone}) has a prediction in it")
        found = _candidates(asked, roles, app)
        newest, chosen = choose(found, rule)
        known = rows.filter(pc.equal(rows["_from"], "val"))
        expected = _expected(known, roles, app, rule, without=day)
        table = _table(app, asked.take(pa.array(chosen)))
        told = Matched(
            app=app.settings.name,
            day=f"{day}",
            time_zone=app.settings.time_zone,
            user=[*roles.users],
            item=[*roles.items],
            threshold=rule.threshold,
            per_user=rule.per_user,
            per_item=rule.per_item,
            candidates=len(newest),
            chosen=len(chosen),
            users=len(np.unique(found.users[chosen])),
            items=len(np.unique(found.items[chosen])) if roles.items else 0,
            weights_sha256=read_evaluated(evaluation).weights_sha256,
            expected=expected,
        )
        text = msgspec.json.encode(told)
        if csv:
            pyarrow.csv.write_csv(for_a_spreadsheet(table), folder / f"{MATCHES}.csv")
        else:
            pq.write_table(table.replace_schema_metadata({"match": text}), folder / f"{MATCHES}.parquet")
        (folder / SUMMARY).write_bytes(msgspec.json.format(text, indent=1) + b"\n")
    return told


def choose(found: Candidates, rule: Rule) -> tuple[Codes, Codes]:
    """The newest request of each day, user and item; and those of them that the rule chooses, the best first.

    Equal probabilities go by time, the newest first, and then by place.

    Returns:
        Places among the candidates, both.
    """
    count = len(found.users)
    order = np.lexsort((np.arange(count), found.time_ms))
    pairs = np.stack([found.days, found.users, found.items], axis=1)[order][::-1]
    _, first = np.unique(pairs, axis=0, return_index=True)
    newest = np.sort(order[::-1][first])
    kept = newest[np.lexsort((newest, -found.time_ms[newest], -found.probabilities[newest]))]
    if rule.threshold is not None:
        kept = kept[found.probabilities[kept] >= rule.threshold]
    for keys, most in ((found.users, rule.per_user), (found.items, rule.per_item)):
        if most is not None:
            kept = kept[_place_in_group(np.stack([found.days[kept], keys[kept]], axis=1)) < most]
    return newest, kept


def expected_of(found: Candidates, labels: npt.NDArray[np.int8], rule: Rule) -> Expected:
    """What the rule gives on requests whose labels [n] are known."""
    newest, chosen = choose(found, rule)
    candidates, positives = len(newest), int(labels[newest].sum())
    right = int(labels[chosen].sum())
    says = min(positives, candidates - positives) >= CLASS_MIN and len(chosen) > 0
    base = positives / candidates if says else 1.0
    interval = wilson(right, len(chosen)) if says else None
    return Expected(
        days=len(np.unique(found.days)),
        chosen=len(chosen),
        right=right,
        candidates=candidates,
        positives=positives,
        precision=right / len(chosen) if says else None,
        precision_interval=interval,
        lift=right / len(chosen) / base if says else None,
        lift_interval=None if interval is None else (interval[0] / base, interval[1] / base),
    )


def _expected(known: pa.Table, roles: ScoreRoles, app: App, rule: Rule, *, without: date) -> Expected:
    """On the whole days of validation, but for the day that is asked for; on all of it where no day is whole."""
    found = _candidates(known, roles, app)
    zone = app.settings.time_zone
    other = found.days != without.toordinal()
    if len(found.days):
        first, last = int(found.time_ms.min()), int(found.time_ms.max())
        cut = {at for at in np.unique(found.days).tolist() if not _whole(date.fromordinal(at), zone, first, last)}
        whole = other & ~np.isin(found.days, [*cut])
        other = whole if whole.any() else other
    at = np.flatnonzero(other)
    some = Candidates(*(values[at] for values in vars(found).values()))
    return expected_of(some, known["_label"].to_numpy()[at], rule)


def _whole(day: date, zone: str, first_ms: int, last_ms: int) -> bool:
    """Whether a period holds a day: neither its first nor its last is known to be whole."""
    start, end = _bounds(day, zone)
    return first_ms <= start and last_ms >= end


def _scored(app: App, features: Path, data: Path, roles: ScoreRoles, folders: Mapping[str, Path]) -> pa.Table:
    """Requests with a prediction, and the columns of their scores; `_from`: of which folder.

    Args:
        folders: with predictions, by what to call them; of `val` the part of that name alone.
    """
    if app.request_time is None:
        raise BadData(f"{app.folder / 'features.sql'}: no timestamp of {app.main} is the time of a request")
    rows = read_features(features, app)
    fields = [at for at in app.settings.scores.fields.values() if at not in (PROBABILITY, MODEL_VERSION)]
    names = [*dict.fromkeys([app.request_time, *roles.users, *roles.items, *fields])]
    columns = request_columns(app, rows, data, names)
    ids = rows[request_id_column(app)].cast(pa.string()).combine_chunks()
    tables = []
    for source, folder in folders.items():
        predicted = _predictions(folder)
        if source == "val":
            predicted = predicted.filter(pc.equal(predicted["part"], "val"))
        at = pc.index_in(predicted["request_id"].combine_chunks(), value_set=ids)
        there = pc.is_valid(at)
        at, predicted = at.filter(there), predicted.filter(there)
        table = {name: column.take(at) for name, column in columns.items()}
        table |= {"_time": pa.array(epoch_ms(columns[app.request_time].take(at)), pa.int64())}
        table |= {"_probability": predicted["probability"], "_label": predicted["label"]}
        tables.append(pa.table(table | {"_from": pa.array([source] * len(at), pa.string())}))
    return pa.concat_tables(tables)


def _predictions(folder: Path) -> pa.Table:
    path = folder / "predictions.parquet"
    if not path.is_file():
        raise BadData(f"{path}: there is no such file: run `jd-intent-batch evaluate` first")
    try:
        return pq.read_table(path, columns=[*_PREDICTIONS]).cast(pa.schema(_PREDICTIONS))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        line = str(error).partition("\n")[0]
        raise BadData(f"{path}: not the predictions that `jd-intent-batch evaluate` writes: {line}") from error


def _candidates(rows: pa.Table, roles: ScoreRoles, app: App) -> Candidates:
    stamps = pc.cast(rows["_time"], pa.timestamp("ms", app.settings.time_zone))
    days = [stamp.toordinal() for stamp in stamps.to_pylist()]
    return Candidates(
        _codes(rows, roles.users),
        _codes(rows, roles.items),
        np.array(days, np.int64),
        rows["_time"].to_numpy(),
        rows["_probability"].to_numpy().astype(np.float64),
    )


def _codes(rows: pa.Table, columns: Sequence[str]) -> Codes:
    """Whole numbers [n] that tell rows apart by these columns."""
    if not columns:
        return np.zeros(rows.num_rows, np.int64)
    coded = [rows[name].combine_chunks().dictionary_encode("encode") for name in columns]
    flat = [one.combine_chunks() if isinstance(one, pa.ChunkedArray) else one for one in coded]
    numbers = np.stack([np.asarray(one.indices, np.int64) for one in flat], axis=1)
    _, codes = np.unique(numbers, axis=0, return_inverse=True)
    return codes.reshape(-1).astype(np.int64)


def _place_in_group(keys: Codes) -> Codes:
    """Of each row of keys [n, k] how many equal ones come before it."""
    if not len(keys):
        return np.empty(0, np.int64)
    _, groups = np.unique(keys, axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], groups[order])
    places = np.empty(len(keys), np.int64)
    places[order] = np.arange(len(keys)) - starts
    return places


def _table(app: App, rows: pa.Table) -> pa.Table:
    """The chosen, ranked, with the fields that the application's scores have; times are of the application's zone.

    Where none of the fields is a time that a reader can read, that of the request is the last column.
    """
    fields = app.settings.scores.fields
    stamp = pa.timestamp("ms", app.settings.time_zone)
    found = {}
    for field, column in fields.items():
        if column != MODEL_VERSION:
            values = rows["_probability" if column == PROBABILITY else column]
            found[field] = values.cast(stamp) if pa.types.is_timestamp(values.type) else values
    if not any(pa.types.is_timestamp(values.type) for values in found.values()):
        found[_free("request_time", found)] = pc.cast(rows["_time"], stamp)
    rank = _free("rank", found)
    return pa.table({rank: pa.array(np.arange(1, rows.num_rows + 1), pa.int64()), **found})


def _free(name: str, taken: Container[str]) -> str:
    """A name that the application's scores have not."""
    while name in taken:
        name = f"match_{name}"
    return name


def for_a_spreadsheet(table: pa.Table) -> pa.Table:
    """An apostrophe before each text that a spreadsheet would take for a formula and run; numbers stay as they are."""
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            texts = table[field.name]
            runs = pc.match_substring_regex(texts, r"^[=+\-@\t\r]")
            number = pc.match_substring_regex(texts, r"^[+-]?[0-9]+(\.[0-9]+)?$")
            safe = pc.binary_join_element_wise("'", texts, "")
            table = table.set_column(at, field, pc.if_else(pc.and_(runs, pc.invert(number)), safe, texts))
    return table


def _bounds(day: date, zone: str) -> tuple[int, int]:
    """The first moment of a day and of the next, epoch ms.

    Raises:
        BadInput: there is none: the calendar ends.
    """
    if day == date.max:
        raise BadInput(f"--day {day} is the calendar's last: it has no end")
    at = zoneinfo.ZoneInfo(zone)
    start, end = (datetime.combine(when, time(), at) for when in (day, day + timedelta(days=1)))
    return int(start.timestamp() * 1000), int(end.timestamp() * 1000)
