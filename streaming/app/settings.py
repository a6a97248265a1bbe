"""app.toml: what SQL does not say of an application. Unknown keys are errors."""

from __future__ import annotations

import re
import zoneinfo
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import tomli

from streaming.app.wrong import AppFile, WrongApp
from streaming.events.scores import MODEL_VERSION, PROBABILITY

__all__ = [
    "MODEL_VERSION",
    "PROBABILITY",
    "Demo",
    "Deployment",
    "EncoderField",
    "EncoderSettings",
    "FieldKind",
    "History",
    "JoinedLabel",
    "Label",
    "LaterEvent",
    "ModelSettings",
    "Request",
    "Scores",
    "Settings",
    "horizon_ms",
    "key_place",
    "read_settings",
]

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_HORIZON_DAYS_MAX = 3_650

FieldKind: TypeAlias = Literal[
    "category", "list_top", "list_shape", "integer", "real", "days_since", "hour", "weekday", "hashed"
]
"""How a column becomes an input of the model."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=249)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Request(_Table, frozen=True):
    """[request]. `id`: the column of the main table that names a request; `example`: a row of it, for people."""

    id: Name
    example: dict[str, str | int | float | bool | None] = {}


class LaterEvent(_Table, frozen=True):
    """[label.later_event]: 1 where a row of `table` for which `condition` is true follows within `horizon`.

    `key`: columns of the table, each with the column of the main table that it must equal; `time`: the table's column
    of time; `horizon`: a whole number and s, m, h or d: the row's time is in (request, request + horizon].
    """

    table: Name
    key: Annotated[dict[str, Name], msgspec.Meta(min_length=1)]
    time: Name
    horizon: str
    condition: str = "true"


class JoinedLabel(_Table, frozen=True):
    """[label.joined]: `column` of the row of `table` whose `key` columns equal those of the request; above 0 is 1."""

    table: Name
    key: Annotated[dict[str, Name], msgspec.Meta(min_length=1)]
    column: Name


class Label(_Table, frozen=True):
    """[label]: one of three, or `column` with another that stands in where the column is NULL throughout.

    `column`: of the feature query; above 0 is 1, NULL: no label. It is no feature.
    """

    column: Name | None = None
    joined: JoinedLabel | None = None
    later_event: LaterEvent | None = None


class Scores(_Table, frozen=True):
    """[scores]: the topic, and the fields of its JSON: a column of the main table, `$probability`, `$model_version`.

    `event_type`: what CloudEvents call the type; "": `NAME.score.v1` of the application's name.
    """

    topic: Name
    fields: Annotated[dict[str, Name], msgspec.Meta(min_length=1)]
    event_type: str = ""


class Deployment(_Table, frozen=True):
    """[deployment]: the name of the DEPLOY, and its OPTIONS."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "demo"
    options: dict[str, str | int] = {}


class EncoderField(_Table, frozen=True):
    """One of [[encoder.fields]]: how a column of the feature query becomes an input of the model.

    Attributes:
        column: the column.
        name: of a further field of the column; "": how the column's own field is made.
        kind: as `streaming.model.encoder` has them; None: by the column's type.
        count_min: values that training has seen less often share one id; None: see `EncoderSettings`.
        bins: lower bounds of the bins of a number.
        place: of `list_top`, from 1.
    """

    column: Name
    name: str = ""
    kind: FieldKind | None = None
    count_min: Positive | None = None
    bins: Annotated[list[float], msgspec.Meta(min_length=1, max_length=1_000)] | None = None
    place: Positive | None = None


class EncoderSettings(_Table, frozen=True):
    """[encoder]: what differs from the rules of `streaming.app.encoder_fields` and `batch.dataset.fit_encoder`.

    Attributes:
        leave_out: columns of the feature query, or single fields that the rules derive, that are no input of the model.
        derive: whether a column may give more than one field.
        count_min: what `EncoderField.count_min` is where a field does not say it; None: by how many values there are.
        fields: how a column's own field is made, and further fields.
    """

    leave_out: list[Name] = []
    derive: bool = True
    count_min: Positive | None = None
    fields: list[EncoderField] = []


class ModelSettings(_Table, frozen=True):
    """[model]: defaults of training, see `batch.train.options`; None: that module's."""

    embedding: Positive | None = None
    layers: list[Positive] | None = None
    dropout: Share | None = None
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    embedding_l2: Annotated[float, msgspec.Meta(ge=0)] | None = None
    count_min: Positive | None = None
    batch_size: Positive | None = None
    epochs_max: Positive | None = None
    update_rows: Literal["all", "touched"] | None = None


class History(_Table, frozen=True):
    """[history].

    `folders`: where a table's files lie in a data folder, if not in one of its own name; `path`: where OpenMLDB's
    servers see a data folder.
    """

    folders: dict[str, Name] = {}
    path: Name = "/root/project/data"


class Demo(_Table, frozen=True):
    """[demo]. `generator`: of the world to make; `data`: a file or folder to find, relative to the application's."""

    generator: Name | None = None
    data: Name | None = None


class Settings(_Table, frozen=True):
    """All of app.toml.

    `names`: what people read instead of a column's or a field's name, those to be shown first in front.
    `time_zone` is for texts, hours and weekdays that are made outside of SQL; `dead_letters`: their topic, by default
    that of the first scored stream and `.dlq`.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    request: Request
    scores: Scores
    dead_letters: Name | None = None
    label: Label = Label()
    time_zone: str = "UTC"
    deployment: Deployment = Deployment()
    encoder: EncoderSettings = EncoderSettings()
    model: ModelSettings = ModelSettings()
    history: History = History()
    demo: Demo = Demo()
    names: dict[Name, str] = {}


def read_settings(file: AppFile) -> Settings:
    """What app.toml says.

    Raises:
        WrongApp: names the place of a syntax error, of an unknown key, or of a value that cannot be.
    """
    try:
        found: dict[str, Any] = tomli.loads(file.text)
    except tomli.TOMLDecodeError as error:
        place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
        line, column = (int(place[1] or 0), int(place[2] or 0)) if place else (0, 0)
        raise WrongApp(file.path, line, column, str(error)[: place.start() if place else None]) from None
    try:
        settings = msgspec.convert(found, Settings)
    except msgspec.ValidationError as error:
        raise _misfit(file, str(error)) from None
    try:
        zoneinfo.ZoneInfo(settings.time_zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise file.wrong(f"unknown time zone {settings.time_zone!r}", key_place(file.text, "", "time_zone")) from None
    label = settings.label
    if label.joined is not None and label.later_event is not None:
        raise file.wrong("two labels: [label.joined] and [label.later_event]", key_place(file.text, "label", ""))
    if label.later_event is not None:
        horizon_ms(label.later_event, file)
    return settings


def horizon_ms(label: LaterEvent, file: AppFile) -> int:
    """How long after a request an event still makes its label, in milliseconds.

    Raises:
        WrongApp: it is no such text, or no time in the future.
    """
    at = key_place(file.text, "label.later_event", "horizon")
    match = re.fullmatch(r"(\d{1,9})([smhd])", label.horizon)
    if match is None:
        raise file.wrong(f"the horizon {label.horizon!r} is no whole number with s, m, h or d, as 5d", at)
    found = int(match[1]) * _UNITS_MS[match[2]]
    if not 0 < found <= _HORIZON_DAYS_MAX * _UNITS_MS["d"]:
        raise file.wrong(f"the horizon {label.horizon!r} is not between 1s and {_HORIZON_DAYS_MAX}d", at)
    return found


def key_place(text: str, table: str, key: str) -> int:
    """The offset of a key in a TOML file; of its table's header where it has none, or 0.

    Args:
        table: as `label.later_event`; '': the top.
        key: '': the header.

    A table that is written in braces or brackets is where its own key is.
    """
    here, offset, fallback = "", 0, 0
    for line in text.splitlines(keepends=True):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header is not None:
            here = header[1].replace('"', "")
            if here == table:
                fallback = offset + line.index("[")
        elif key and here == table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return offset + len(line) - len(line.lstrip())
        offset += len(line)
    if fallback or not table:
        return fallback
    above, _, name = table.rpartition(".")
    return key_place(text, above, name)


def _misfit(file: AppFile, message: str) -> WrongApp:
    """msgspec's message, with the place of the key that it names: "… - at `$.label.horizon`"."""
    what, _, path = message.partition(" - at `$")
    parts = [part for part in re.sub(r"\[[^\]]*\]", "", path.rstrip("`")).split(".") if part]
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown is not None:
        table, key = ".".join(parts), unknown[1]
        what = f"unknown key {key!r}" + (f" in [{table}]" if table else "")
    elif "missing required field" in what:
        table, key = ".".join(parts), ""
        what = what.replace("Object missing required field", f"[{table}] lacks the key" if table else "lacks the key")
    else:
        table, key = ".".join(parts[:-1]), parts[-1] if parts else ""
        what = f"{key or 'the file'}: {what[:1].lower()}{what[1:]}"
    at = key_place(file.text, table, key)
    if unknown is not None:  # what is unknown may be a table
        at = key_place(file.text, f"{table}.{key}".lstrip("."), "") or at
    return file.wrong(what, at)
