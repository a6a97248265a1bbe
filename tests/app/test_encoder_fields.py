"""The model's fields: the tutorial's folder says today's 41; the rules for any other; what app.toml changes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from fixtures.applications import make
from places import CASES, SQL
from reference.random_features import features as random_features

from batch.dataset.fit_encoder import SEEN_MIN, SEEN_MIN_IDENTITY, fit
from batch.dataset.write import prepare_dataset
from batch.features.extract import extract_features
from batch.world.generate import generate_world
from streaming.app.folder import load_app
from streaming.app.wrong import WrongApp

RECORDED = json.loads((CASES / "encoders.json").read_text(encoding="utf-8"))
"""Digests of encoders that were fitted when the tutorial's 41 fields were written out in code."""

QUERY = (
    "FROM payments LAST JOIN cards",
    ", at, cards.since AS since, date(cards.since) AS day, payments.card, small, note, small > 3 AS big, "
    "topn_frequency(note, 2) OVER w AS notes\nFROM payments LAST JOIN cards",
)
LEAVE = "[scores]\ntopic"


def fields(folder: Path, **changes: tuple[str, str]) -> list[tuple[str, str | None]]:
    app = load_app(make(folder, **({"features": QUERY} | changes)))
    return [(field.name, field.kind) for field in app.encoder_fields]


def test_of_the_tutorial_the_encoder_is_the_one_that_was_written_out_in_code(tmp_path: Path) -> None:
    app = load_app(SQL / "jd")
    assert len(app.encoder_fields) == 41
    assert [f.count_min for f in app.encoder_fields[:3]] == [SEEN_MIN_IDENTITY] * 3
    assert app.settings.encoder.count_min == SEEN_MIN
    assert fit(random_features()).digest == RECORDED["random"]
    assert fit(random_features(), "seed").digest == RECORDED["random_seed"]
    assert fit(pq.read_table(CASES / "online_answers.parquet")).digest == RECORDED["answers"]
    generate_world(tmp_path / "data", 60, 2)
    extract_features(tmp_path / "data", tmp_path / "features")
    done = prepare_dataset(tmp_path / "features", tmp_path / "data", tmp_path / "dataset")
    assert done.encoder_sha256 == RECORDED["world"]
    assert done.data_sha256 == RECORDED["world_data"]
    assert done.table_size_array == RECORDED["world_sizes"]


def test_fields_follow_from_the_query(tmp_path: Path) -> None:
    assert fields(tmp_path / "app") == [
        ("amount", "real"),
        ("payments_1h", "integer"),
        ("country", "category"),
        ("at", "hour"),  # the request's own time
        ("at_weekday", "weekday"),
        ("since", "days_since"),
        ("since_hour", "hour"),
        ("since_weekday", "weekday"),
        ("day", "days_since"),
        ("day_weekday", "weekday"),
        ("card", "category"),  # windows and joins go by it
        ("small", "integer"),
        ("note", "category"),
        ("big", "integer"),
        ("notes", "list_shape"),
        ("notes_top1", "list_top"),
        ("notes_top2", "list_top"),
    ]


def test_app_toml_changes_adds_and_leaves_out(tmp_path: Path) -> None:
    said = """[encoder]
leave_out = ["since_hour", "day", "note"]
fields = [
    { column = "card", kind = "integer", bins = [0, 100] },
    { name = "moment", column = "at", kind = "hour", bins = [0, 6, 18] },
    { name = "notes_whole", column = "notes", kind = "category", count_min = 7 },
]

[scores]
topic"""
    found = fields(tmp_path / "app", app=(LEAVE, said))
    assert ("card", "integer") in found
    assert found[-2:] == [("moment", "hour"), ("notes_whole", "category")]
    assert not {"since_hour", "day", "day_weekday", "note"} & {name for name, _ in found}
    assert len(found) == 17 - 4 + 2
    plain = fields(tmp_path / "plain", app=(LEAVE, "[encoder]\nderive = false\n\n[scores]\ntopic"))
    assert [name for name, _ in plain] == [
        *("amount", "payments_1h", "country", "at", "since", "day", "card", "small", "note", "big", "notes")
    ]
    assert plain[-1] == ("notes", "category")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ('leave_out = ["since_day"]', "unknown column since_day of the feature query, and no field of that name"),
        ('fields = [{ column = "note", bins = [1.0] }]', "note: a category has no bins"),
        ('fields = [{ column = "amount", bins = [1.0, 1.0] }]', "amount: its bins do not rise"),
        ('fields = [{ column = "amount", bins = [nan, 1.0] }]', "amount: its bins do not rise"),
        ('fields = [{ column = "small", bins = [0.5] }]', "small: the bins of a integer begin at whole numbers"),
        ('fields = [{ column = "small", bins = [] }]', "bins"),
        (
            'fields = [{ name = "third", column = "notes", kind = "list_top", place = 3 }]',
            "notes names 2 values: there is no place 3",
        ),
        ('fields = [{ name = "at_weekday", column = "note" }]', "two fields of the name at_weekday: the rules derive"),
        ('fields = [{ column = "amount", kind = "hour" }]', "amount is a double: no hour is made of it"),
    ],
)
def test_what_cannot_be_is_one_line_with_its_place(tmp_path: Path, said: str, message: str) -> None:
    with pytest.raises(WrongApp, match=message) as wrong:
        fields(tmp_path / "app", app=(LEAVE, f"[encoder]\n{said}\n\n[scores]\ntopic"))
    assert wrong.value.path.name == "app.toml"
    assert wrong.value.line


def test_days_since_need_the_time_of_the_request(tmp_path: Path) -> None:
    without = (QUERY[0], QUERY[1].replace(", at,", ","))
    with pytest.raises(WrongApp, match=r"features\.sql:2:\d+: since is a time, and the days since it need") as wrong:
        fields(tmp_path / "app", features=without)
    assert "add that column of payments" in str(wrong.value)
    hours = '[encoder]\nfields = [{ column = "since", kind = "hour" }, { column = "day", kind = "weekday" }]\n\n'
    found = fields(tmp_path / "app", features=without, app=(LEAVE, f"{hours}[scores]\ntopic"))
    assert ("since", "hour") in found
