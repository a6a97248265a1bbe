"""What is fitted of any application's fields: bins, cuts, what names individuals and what names requests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fixtures.applications import make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.dataset.fit_encoder import FittedEncoder, fit_encoder
from streaming.app.folder import App, load_app
from streaming.engine.types import ARROW
from streaming.errors import BadInput
from streaming.model.encoder import NULL_ID, RARE_ID, Binned, Encoder, value_id

QUERY = (
    "amount, count(amount)",
    "amount, payments.card AS card, note, small, at, date(at) AS day, amount > 3 AS big, count(amount)",
)
ROWS = 1000


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    return load_app(make(tmp_path_factory.mktemp("fit") / "app", features=QUERY))


def answers(app: App, rows: int = ROWS, **columns: Sequence[object]) -> pa.Table:
    """Answers of the query: NULL but for the columns given."""
    schema = pa.schema([(name, ARROW[kind]) for name, kind in app.query.columns])
    return pa.table({f.name: pa.array(columns.get(f.name, [None] * rows), f.type) for f in schema}, schema=schema)


def report(fitted: FittedEncoder, name: str) -> tuple[int, int, int, str]:
    (found,) = [field for field in fitted.fields if field.name == name]
    return found.distinct, found.missing, found.kept, found.note


def ids(encoder: Encoder, table: pa.Table, name: str) -> list[int]:
    at = [field.name for field in encoder.fields].index(name)
    return [int(number) for number in encoder.encode(table)[:, at]]


def test_values_that_name_individuals_get_the_greater_cut(app: App) -> None:
    notes: list[object] = [f"user{row % 150}" if row < 600 else "often" for row in range(ROWS)]
    fitted = fit_encoder(answers(app, note=notes), app)
    assert report(fitted, "note") == (151, 0, 1, "names individuals: an id from 300 rows on")
    table = answers(app, 2, note=["often", "user1"])
    assert ids(fitted.encoder, table, "note") == [value_id(b"often"), RARE_ID]
    cities: list[object] = [f"city{row % 15}" for row in range(ROWS)]
    few = fit_encoder(answers(app, note=cities), app)
    assert report(few, "note") == (15, 0, 15, "")


def test_values_that_name_requests_are_left_out_and_said(app: App) -> None:
    fitted = fit_encoder(answers(app, note=[f"text{row}" for row in range(900)] + [None] * 100), app)
    distinct, missing, kept, note = report(fitted, "note")
    assert (distinct, missing, kept) == (900, 100, 0)
    assert note.startswith("left out: 900 values in 900 rows")
    names = [field.name for field in fitted.encoder.fields]
    assert "note" not in names
    assert [field.name for field in fitted.fields if field.name != "note"] == names
    assert [field.name for field in fitted.fields] == [field.name for field in app.encoder_fields]
    assert fitted.encoder.encode(answers(app)).shape == (ROWS, len(names))


def test_what_app_toml_says_of_a_cut_holds(tmp_path: Path) -> None:
    notes = [f"text{row // 2}" for row in range(ROWS)]
    for said, kept in (("count_min = 2", 500), ('fields = [{ column = "note", count_min = 3 }]', 0)):
        app = load_app(
            make(tmp_path / "app", features=QUERY, app=("[scores]\ntopic", f"[encoder]\n{said}\n\n[scores]\ntopic"))
        )
        assert report(fit_encoder(answers(app, note=notes), app), "note") == (500, 0, kept, "")


def test_keys_of_eighteen_digits_are_values_and_not_numbers(app: App) -> None:
    cards: list[object] = [700_000_000_000_000_000 + row % 2 for row in range(ROWS)]
    fitted = fit_encoder(answers(app, card=cards), app)
    known = answers(app, 4, card=[700_000_000_000_000_000, 700_000_000_000_000_001, 5, None])
    assert ids(fitted.encoder, known, "card") == [
        value_id(b"700000000000000000"),
        value_id(b"700000000000000001"),
        RARE_ID,
        NULL_ID,
    ]
    many = answers(app, card=cards)  # more than are looked up one by one
    assert ids(fitted.encoder, many, "card")[:2] == ids(fitted.encoder, known, "card")[:2]


def test_bools_days_and_times_are_fields_too(app: App) -> None:
    day = 86_400_000
    big: list[object] = [row % 3 == 0 if row % 5 else None for row in range(ROWS)]
    at: list[object] = [1_700_000_000_000 + row * day for row in range(ROWS)]
    days: list[object] = [19675 + row // 2 for row in range(ROWS)]
    table = answers(app, big=big, at=at)
    table = table.set_column(table.column_names.index("day"), "day", pa.array(days, pa.int32()).cast(pa.date32()))
    fitted = fit_encoder(table, app)
    assert report(fitted, "big")[:3] == (2, 200, 2)
    assert set(ids(fitted.encoder, table, "big")) == {value_id(b"0"), value_id(b"1"), NULL_ID}
    assert report(fitted, "at_weekday")[2] == 7
    assert len(set(ids(fitted.encoder, table, "day"))) == 8
    assert fitted.encoder.time_zone == "Europe/Berlin"


def test_long_numbers_that_bins_cannot_tell_apart_are_names(app: App) -> None:
    """No key of the query: a column of its own."""
    first = 10**17
    fitted = fit_encoder(answers(app, payments_1h=[first + row % 4 for row in range(ROWS)]), app)
    assert report(fitted, "payments_1h") == (4, 0, 4, "too long for bins")
    table = answers(app, 5, payments_1h=[first, first + 1, first + 3, first + 9, None])
    found = ids(fitted.encoder, table, "payments_1h")
    assert len(set(found)) == 5
    assert found[3:] == [RARE_ID, NULL_ID]


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-40, 2000), min_size=1, max_size=60))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bins_of_whole_numbers_fit_whatever_the_numbers_are(app: App, numbers: list[int | None]) -> None:
    fitted = fit_encoder(answers(app, len(numbers), payments_1h=list(numbers)), app)
    values = {number for number in numbers if number is not None}
    if len({float(number) for number in values}) < len(values):
        assert "too long for bins" in report(fitted, "payments_1h")[3]
        return
    (field,) = [f for f in fitted.encoder.fields if isinstance(f, Binned) and f.name == "payments_1h"]
    assert field.starts
    assert all(a < b for a, b in zip(field.starts, field.starts[1:], strict=False))
    assert len(field.starts) <= 2 * 32 + 2 + 62
    found = ids(fitted.encoder, answers(app, len(numbers), payments_1h=list(numbers)), "payments_1h")
    assert [one == NULL_ID for one in found] == [number is None for number in numbers]
    known = sorted({number for number in numbers if number is not None and abs(number) < 2**52})
    if len(known) > 1 and known[0] > 2000 and len(known) <= 16:  # neither counts nor many: a bin each
        assert len(set(ids(fitted.encoder, answers(app, len(known), payments_1h=[*known]), "payments_1h"))) == len(
            known
        )


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=40))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bins_of_reals_are_numbers_and_come_back(app: App, tmp_path: Path, numbers: list[float]) -> None:
    table = answers(app, len(numbers), amount=list(numbers))
    fitted = fit_encoder(table, app)
    fitted.encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert np.array_equal(loaded.encode(table), fitted.encoder.encode(table))
    assert loaded.digest == fitted.encoder.digest
    (field,) = [f for f in loaded.fields if isinstance(f, Binned) and f.name == "amount"]
    assert np.isfinite(field.starts).all()


def test_nothing_left_is_said(tmp_path: Path) -> None:
    leave = '[encoder]\nleave_out = ["amount", "payments_1h", "country"]\nfields = [{ column = "note" }]\n\n'
    app = load_app(
        make(
            tmp_path / "app",
            features=("amount, count(amount)", "amount, note, count(amount)"),
            app=("[scores]\ntopic", f"{leave}[scores]\ntopic"),
        )
    )
    with pytest.raises(BadInput, match="no field of the model is left"):
        fit_encoder(answers(app, note=[f"text{row}" for row in range(ROWS)]), app)
