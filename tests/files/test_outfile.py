"""SELECT … INTO OUTFILE: its modes, and that it neither removes what it did not write nor leaves half of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from fixtures.folders import contents

from streaming.cli.sql_shell import run_shell
from streaming.engine import BadRow, Engine
from streaming.files.output_folder import MARKER

TABLE = "CREATE DATABASE d; USE d; CREATE TABLE t(a string, b int); INSERT INTO t VALUES ('x', 1), ('y', 2);"


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    engine.execute(TABLE)
    return engine


def write(engine: Engine, out: Path, mode: str, kind: str = "parquet") -> None:
    options = f"format='{kind}'" + (f", mode='{mode}'" if mode else "")
    engine.execute(f"SELECT a, b FROM t INTO OUTFILE '{out}' OPTIONS({options});")


def rows(out: Path) -> int:
    """What LOAD DATA would find: the marker is hidden."""
    engine = Engine()
    engine.execute("CREATE DATABASE d; USE d; CREATE TABLE t(a string, b int);")
    engine.execute(f"LOAD DATA INFILE '{out}' INTO TABLE t OPTIONS(format='parquet');")
    assert pyarrow.parquet.read_table(out).num_rows == engine.stats()["d.t"].rows
    return engine.stats()["d.t"].rows


def test_overwrite_replaces_and_append_adds(engine: Engine, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    for mode, count in (("", 2), ("append", 4), ("append", 6), ("overwrite", 2), ("append", 4), ("overwrite", 2)):
        write(engine, out, mode)
        assert rows(out) == count
    assert sorted(path.name for path in out.iterdir()) == [MARKER, "part-00000.parquet"]
    (tmp_path / "empty").mkdir()
    write(engine, tmp_path / "empty", "overwrite")
    assert rows(tmp_path / "empty") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "empty"]


@pytest.mark.parametrize("mode", ["", "error_if_exists"])
def test_what_exists_is_an_error_by_default(engine: Engine, mode: str, tmp_path: Path) -> None:
    before = contents(tmp_path)
    with pytest.raises(BadRow, match="exists already"):
        write(engine, tmp_path, mode)
    assert contents(tmp_path) == before


def test_append_takes_a_name_that_is_free_and_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    """Numbers with holes: counting the files would name one that is there."""
    for number in (0, 2, 3):
        (tmp_path / f"part-{number:05d}.parquet").write_text("mine")
    write(engine, tmp_path, "append")
    write(engine, tmp_path, "append")
    found = contents(tmp_path)
    assert sorted(found) == [f"part-{number:05d}.parquet" for number in range(5)]
    assert [name[9] for name, value in found.items() if value == b"mine"] == ["0", "2", "3"]
    with pytest.raises(BadRow, match="is a file"):
        write(engine, tmp_path / "part-00000.parquet", "append")


@pytest.mark.parametrize("mode", ["overwrite", "append", ""])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_failure_leaves_nothing_behind(
    engine: Engine, kind: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode:
        write(engine, tmp_path / "out", "overwrite", kind)
    before = contents(tmp_path)

    def half(table: pa.Table, building: Path, name: str, *_: Any) -> None:
        (building / name).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streaming.engine.statements.outfile._write_part", half)
    for out in (tmp_path / "out", tmp_path / "new" / "deep"):
        with pytest.raises(OSError, match="No space left"):
            write(engine, out, mode, kind)
    assert contents(tmp_path) == before


def test_the_command_ends_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    select = f"{TABLE} SELECT a FROM t INTO OUTFILE '{tmp_path}/out' OPTIONS(mode='overwrite');"
    assert run_shell((), (), select, csv=True, interactive=False) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path}/out holds notes.txt and no {MARKER}: SELECT … INTO OUTFILE did not make it" in told
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
