"""Which files of a data folder are a table's, and which tables may be absent."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.applications import make
from places import SQL

from streaming.app.folder import App, load_app
from streaming.app.history import history_tables, may_be_absent
from streaming.files.tables import BadFile, read


def write(folder: Path, name: str = "part.parquet", rows: int = 1) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith("csv"):
        (folder / name).write_text("card,since,country\n" + "7,1000,DE\n" * rows, encoding="utf-8")
    else:
        pq.write_table(pa.table({"id": ["a"] * rows}), folder / name)


@pytest.fixture
def app(tmp_path: Path) -> App:
    return load_app(make(tmp_path / "app"))


def test_of_the_tutorial_only_the_table_of_labels_may_be_absent() -> None:
    assert may_be_absent(load_app(SQL / "jd")) == {"action"}
    assert may_be_absent(load_app(SQL / "talkingdata")) == frozenset()


def test_what_nothing_reads_may_be_absent(tmp_path: Path) -> None:
    app = load_app(
        make(tmp_path / "app", tables=("CREATE TABLE payments", "CREATE TABLE notes (a int); CREATE TABLE payments"))
    )
    assert may_be_absent(app) == {"notes"}


def test_each_table_s_files_are_found_of_either_kind(tmp_path: Path, app: App) -> None:
    write(tmp_path / "data[1]" / "payments")
    write(tmp_path / "data[1]" / "cards", "b.csv")
    write(tmp_path / "data[1]" / "cards", "_part.parquet")
    payments, cards = history_tables(app, tmp_path / "data[1]")
    assert (payments.table, payments.options.format) == ("payments", "parquet")
    assert payments.schema.names[:2] == ["id", "card"]
    assert (cards.table, cards.options.format) == ("cards", "csv")
    (piece,) = read(cards.path, cards.schema, cards.options)
    assert piece.rows["card"].to_pylist() == [7]


def test_what_is_wrong_is_one_line(tmp_path: Path, app: App) -> None:
    with pytest.raises(BadFile, match="no such folder"):
        history_tables(app, tmp_path / "nothing")
    write(tmp_path / "data" / "payments")
    with pytest.raises(BadFile, match="cards: there is no such folder, and the features are made of table cards"):
        history_tables(app, tmp_path / "data")
    write(tmp_path / "data" / "cards")
    write(tmp_path / "data" / "cards", "b.csv")
    with pytest.raises(BadFile, match="are of one kind"):
        history_tables(app, tmp_path / "data")


def test_a_link_to_nothing_is_no_absent_table(tmp_path: Path) -> None:
    app = load_app(SQL / "jd")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "action").symlink_to(tmp_path / "gone")
    with pytest.raises(BadFile, match="action: neither a folder nor a link to one"):
        history_tables(app, tmp_path / "data")
