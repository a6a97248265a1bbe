"""An application's folder: what is right is read whole; whatever is wrong is one line with file, line and column."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures.applications import PAYMENTS, make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import CASES, SQL

from streaming.app.folder import FILES, App, load_app
from streaming.app.wrong import WrongApp
from streaming.engine import Engine
from streaming.engine.types import Type

Wrong = Callable[..., WrongApp]


@pytest.fixture
def wrong(tmp_path: Path) -> Wrong:
    """The error of the application with a text replaced."""

    def wrong(**changes: tuple[str, str]) -> WrongApp:
        with pytest.raises(WrongApp) as refused:
            load_app(make(tmp_path / "app", **changes))
        assert "\n" not in str(refused.value)
        return refused.value

    return wrong


def test_an_application_is_read_whole(tmp_path: Path) -> None:
    app = load_app(make(tmp_path / "app"))
    assert app.main == "payments"
    assert app.query.columns == (
        ("id", Type.STRING),
        ("amount", Type.DOUBLE),
        ("payments_1h", Type.BIGINT),
        ("country", Type.STRING),
    )
    assert [(s.name, s.topic, s.key, s.scored, s.partitioned) for s in app.streams] == [
        ("paid", "paid", "number", True, False),
        ("card_rows", "card_rows", "card", False, True),
    ]
    assert app.scored + app.partitioned + app.dimensions == app.streams
    assert [column.name for column in app.required("payments")] == ["id", "card", "at"]
    assert [column.name for column in app.required("cards")] == ["since"]
    assert app.stream_of("card_rows") is app.streams[1]
    assert app.stream_of("nothing") is None
    assert app.settings.time_zone == "Europe/Berlin"
    assert "window: one walk over payments by card" in app.query.plan
    assert not app.warnings


def test_the_digest_is_of_all_files_and_of_nothing_else(tmp_path: Path) -> None:
    first = load_app(make(tmp_path / "one")).digest
    (make(tmp_path / "two") / "README.md").write_text("mine", encoding="utf-8")
    assert load_app(tmp_path / "two").digest == first
    digests = {first}
    for name in FILES:
        file = make(tmp_path / "three") / name
        comment = "# more\n" if name.endswith(".toml") else "-- more\n"
        file.write_text(PAYMENTS[name] + comment, encoding="utf-8")
        digests.add(load_app(tmp_path / "three").digest)
    assert len(digests) == len(FILES) + 1


WRONG = [json.loads(line) for line in (CASES / "wrong_apps.jsonl").read_text(encoding="utf-8").splitlines()]
"""What is wrong; the file, the text in it and what stands there instead; where the error is, and what it says."""


@pytest.mark.parametrize("case", WRONG, ids=[case["wrong"] for case in WRONG])
def test_what_is_wrong_is_one_line_with_its_place(wrong: Wrong, case: dict[str, Any]) -> None:
    more = "".join(f", amount AS a{i}" for i in range(2000))
    error = wrong(**{case["file"]: (case["old"], case["new"].replace("{2000 more}", more))})
    assert error.path.name == case["where"]
    assert case["message"] in str(error)
    assert error.line == case["line"]
    if error.line:
        assert f"{error.path.name}:{error.line}:{error.column}: " in str(error)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "app")
    (folder / name).write_bytes(b"\xff")
    with pytest.raises(WrongApp, match=f"{name}: not UTF-8"):
        load_app(folder)
    (folder / name).unlink()
    with pytest.raises(WrongApp, match=f"{name}: No such file"):
        load_app(folder)
    (folder / name).write_text("", encoding="utf-8")
    with pytest.raises(WrongApp, match=name.replace(".", r"\.")):
        load_app(folder)
    with pytest.raises(WrongApp, match="there is no such folder"):
        load_app(tmp_path / "nothing")


@pytest.mark.parametrize("name", FILES)
def test_a_byte_order_mark_and_line_ends_of_windows_say_nothing(tmp_path: Path, name: str) -> None:
    before = load_app(make(tmp_path / "app"))
    file = tmp_path / "app" / name
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_app(tmp_path / "app").digest == before.digest


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file_of_a_size_is_not_read(tmp_path: Path, name: str) -> None:
    file = make(tmp_path / "app") / name
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(WrongApp, match=f"{name}: not a plain file"):
        load_app(tmp_path / "app")
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(WrongApp, match=f"{name}: not a plain file"):
        load_app(tmp_path / "app")
    file.unlink()
    file.symlink_to(name)
    with pytest.raises(WrongApp, match=f"{name}: Too many levels"):
        load_app(tmp_path / "app")
    file.unlink()
    with file.open("wb") as huge:
        huge.truncate(1 << 40)
    with pytest.raises(WrongApp, match=f"{name}: 1,099,511,627,776 bytes; at most"):
        load_app(tmp_path / "app")


WORDS = [
    "NULL",
    "'x'",
    "1",
    "(",
    ")",
    ",",
    "count(id)",
    "paid",
    "payments",
    "=",
    "[x]",
    '"',
    "true",
    "*",
    "-",
    "moment",
    "1e400",
    "timestamp('x')",
    "string(at)",
]


@given(
    name=st.sampled_from(FILES),
    place=st.floats(0, 1, exclude_max=True),
    length=st.integers(0, 12) | st.integers(0, 200),
    word=st.sampled_from(WORDS) | st.text(max_size=3),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_read_or_refused_on_one_line(
    tmp_path: Path, name: str, place: float, length: int, word: str
) -> None:
    folder = make(tmp_path / "app")
    text = PAYMENTS[name]
    at = int(place * len(text))
    damaged = text[:at] + word + text[at + length :]
    (folder / name).write_bytes(damaged.encode("utf-8", "surrogatepass"))
    try:
        load_app(folder)
    except WrongApp as error:
        message = str(error)
    else:
        message = "fine"
    assert "\n" not in message


def test_what_cannot_scale_is_warned_of(tmp_path: Path) -> None:
    app = load_app(make(tmp_path / "app", features=("BY payments.card", "BY note")))
    assert len(app.warnings) == 1
    assert "payments is read by note, which does not hold the key" in app.warnings[0]


def test_features_that_cannot_be_labelled_are_warned_of(tmp_path: Path) -> None:
    (warning,) = load_app(make(tmp_path / "app", features=("SELECT id, amount", "SELECT amount"))).warnings
    assert warning.startswith("the query does not answer payments.id, which names a request")
    timeless = {"features": ("ORDER BY `at` ROWS_RANGE BETWEEN 1h PRECEDING", "ROWS BETWEEN 9 PRECEDING")}
    events = ("moment AS at", "timestamp(bigint(moment)) AS at")
    warnings = load_app(make(tmp_path / "app", events=events, **timeless)).warnings
    assert any("no timestamp of payments is the time of a request" in warning for warning in warnings)


def test_the_shop_of_the_tutorial_has_its_tables(tmp_path: Path) -> None:
    app = load_app(SQL / "jd")
    engine = Engine()
    engine.execute((CASES / "tutorial_tables.sql").read_text(encoding="utf-8"))
    assert {t.name: t.columns for t in engine.tables("JD_db")} == app.tables.columns
    assert [stream.topic for stream in app.streams] == ["user-actions", "users", "products", "comments"]
    assert app.main == "flattenRequest"
    assert len(app.query.columns) == 42
    assert len(app.features) == 35
    assert len(app.encoder_fields) == 41
    shutil.copytree(SQL / "jd", tmp_path / "mine")
    assert load_app(tmp_path / "mine").digest == app.digest


def test_the_ad_clicks_are_an_application(tmp_path: Path) -> None:
    app: App = load_app(SQL / "talkingdata")
    assert app.main == "clicks"
    assert [(field.name, field.kind) for field in app.encoder_fields[3:6]] == [
        ("channel", "category"),
        ("click_hour", "integer"),
        ("click_day", "integer"),
    ]
    assert len(app.encoder_fields) == 9
    assert not app.warnings
