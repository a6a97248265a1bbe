"""The reference pages of events.sql and app.toml: every option, key, limit and default is there; the examples parse."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from fixtures.cards import CARDS
from places import REPOSITORY, SQL

from batch.train.options import TrainOptions
from streaming.app.features import FEATURES_MAX
from streaming.app.folder import load_app
from streaming.app.settings import (
    Demo,
    Deployment,
    EncoderField,
    EncoderSettings,
    FieldKind,
    History,
    JoinedLabel,
    Label,
    LaterEvent,
    ModelSettings,
    Request,
    Scores,
    Settings,
    read_settings,
)
from streaming.app.streams import TEXT_LENGTH_MAX, TIMESTAMP_FORMATS
from streaming.app.wrong import AppFile, WrongApp
from streaming.config import Events
from streaming.engine.sql.parse_streams import parse_events

PAGES = REPOSITORY / "docs" / "reference"
EVENTS = (PAGES / "applications" / "events-sql.md").read_text(encoding="utf-8")
APP = (PAGES / "applications" / "app-toml.md").read_text(encoding="utf-8")
STRUCTS = (Request, LaterEvent, JoinedLabel, Label, Scores, Deployment, EncoderSettings, ModelSettings, History, Demo)


def names(page: str) -> set[str]:
    """All that stands in backquotes, word by word, and in headings of TOML tables."""
    return {word for span in re.findall(r"`([^`\n]+)`|^## \[(\w+)\]", page, re.MULTILINE) for word in words(span)}


def words(span: tuple[str, str]) -> Iterator[str]:
    for text in span:
        yield from re.findall(r"\w+", text)


def test_every_key_of_app_toml_is_on_its_page() -> None:
    keys = {field.encode_name for kind in (Settings, EncoderField, *STRUCTS) for field in msgspec.structs.fields(kind)}
    assert {"horizon", "leave_out", "time_zone", "event_type", "place"} <= keys
    assert keys - names(APP) == set()


def test_every_kind_of_field_is_on_its_page() -> None:
    page = (PAGES / "encoder-fields.md").read_text(encoding="utf-8")
    assert set(get_args(FieldKind)) - names(page) == set()


def test_the_defaults_of_training_are_those_of_the_page() -> None:
    (section,) = re.findall(r"^## \[model\]\n(.*?)^## ", APP, re.MULTILINE | re.DOTALL)
    told = dict(re.findall(r"\| `(\w+)` \| `?([^`|]+?)`? (?=\|)", section))
    assert told.keys() == {field.name for field in msgspec.structs.fields(ModelSettings)}
    options = TrainOptions()
    for name, text in told.items():
        default = getattr(options, name)
        assert text == str(list(default) if isinstance(default, tuple) else default), name


def test_every_option_of_a_stream_is_on_its_page(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    shutil.copytree(SQL / "talkingdata", folder)
    file = folder / "events.sql"
    file.write_text(file.read_text().replace("WITH (", "WITH (topci = 'x', "))
    with pytest.raises(WrongApp, match="unknown option topci of a stream; there are ") as wrong:
        load_app(folder)
    options = set(str(wrong.value).partition("there are ")[2].split(", "))
    assert len(options) >= 7
    (section,) = re.findall(r"^## WITH\n(.*?)^## ", EVENTS, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == options
    assert all(f"`'{spelling}'`" in section for spelling in TIMESTAMP_FORMATS)


def test_limits_are_those_of_the_pages() -> None:
    assert f"a text of at most n characters, of {TEXT_LENGTH_MAX} without n" in EVENTS
    assert f"`events.message_bytes_max` ({Events().message_bytes_max // 1024} KiB)" in EVENTS
    assert f"`events.future_s_max` ({Events().future_s_max} s)" in EVENTS
    assert f"of at most {FEATURES_MAX:,} columns" in APP


def test_the_examples_are_right(tmp_path: Path) -> None:
    first, *_ = re.findall(r"^```sql\n(.*?)^```", EVENTS, re.MULTILINE | re.DOTALL)
    assert len(parse_events(first)) == 2
    example, names = re.findall(r"^```toml\n(.*?)^```", APP, re.MULTILINE | re.DOTALL)
    assert read_settings(AppFile(tmp_path / "app.toml", example)).name == "cards"
    cards = shutil.copytree(CARDS, tmp_path / "cards")
    with (cards / "app.toml").open("a", encoding="utf-8") as file:
        file.write(names)
    assert load_app(cards).settings.names["pan"] == "card"
