"""What a confined engine may read, write and replace: nothing outside of its folders, however a path says it."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.engine import BadRow, Engine, OutOfReach, UnsupportedSQL

ROWS = "id,n\na,1\nb,2\n"
TABLE = "CREATE TABLE t(id string, n int); INSERT INTO t VALUES ('here', 7)"


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """`open` may be touched, everything else may not; links lead from the one to the other, and back."""
    for folder in ("open/in", "open/deep/deeper", "open/link-inside", "closed/in", "opened"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("open/in/a.csv", "open/in/b.csv", "open/deep/deeper/c.csv"):
        (tmp_path / file).write_text(ROWS)
    for file in ("closed/in/s.csv", "opened/s.csv"):
        (tmp_path / file).write_text("id,n\nsecret,1\n")
    (tmp_path / "open" / "parts").mkdir()
    links = {
        "open/parts/p.csv": "../deep",
        "open/parts/again.csv": "../parts",
        "open/out": "../closed",
        "open/in-out.csv": "../closed/in/s.csv",
        "open/deep/deeper/out.csv": "/etc/passwd",
        "open/back": "../closed/back",
        "closed/back": "../open/in",
        "open/link-inside/a.csv": "../in/a.csv",
        "open/[x]": "../closed",
        "entry": "open",
    }
    for link, target in links.items():
        (tmp_path / link).symlink_to(target)
    return tmp_path


@pytest.fixture
def engine(world: Path) -> Engine:
    engine = Engine(paths={"/mapped": str(world / "closed")})
    engine.execute(f"CREATE DATABASE d; USE d; {TABLE}")
    engine.confine([world / "entry"])
    return engine


def load(engine: Engine, path: str) -> int:
    before: int = engine.query("SELECT n FROM t").num_rows
    engine.execute(f"LOAD DATA INFILE '{path}' INTO TABLE t OPTIONS(format='csv', mode='append')")
    after: int = engine.query("SELECT n FROM t").num_rows
    return after - before


def write(engine: Engine, path: str, mode: str = "overwrite") -> None:
    engine.execute(f"SELECT id, n FROM t LIMIT 1 INTO OUTFILE '{path}' OPTIONS(format='csv', mode='{mode}')")


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that is not below `open`, without following links."""
    found = {}
    for at, folders, files in os.walk(folder):
        if Path(at) == folder:
            folders.remove("open")
        for name in (*folders, *files):
            path = Path(at, name)
            whole = os.readlink(path).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
            found[str(path.relative_to(folder))] = whole
    return found


@pytest.mark.parametrize(
    ("path", "rows"),
    [
        ("open/in/a.csv", 2),
        ("open/in", 4),
        ("open/in/*.csv", 4),
        ("open/*/a.csv", 6),
        ("open/in/[ab].csv", 4),
        ("entry/in/a.csv", 2),
        ("open/back/a.csv", 2),
        ("closed/back/a.csv", 2),
        ("open/link-inside", 2),
        ("closed/../open/in/a.csv", 2),
        ("open/out/../open/in/a.csv", 2),
        ("open/in/../in/./b.csv", 2),
    ],
)
def test_what_lies_below_a_named_folder_is_read(engine: Engine, world: Path, path: str, rows: int) -> None:
    for scheme in ("", "file://"):
        assert load(engine, f"{scheme}{world}/{path}") == rows


OUTSIDE = [
    "closed/in/s.csv",
    "closed/in",
    "closed/*/s.csv",
    "opened/s.csv",
    "open/../closed/in/s.csv",
    "open/out/in/s.csv",
    "open/in-out.csv",
    "open/*.csv",
    "open/*/in/s.csv",
    "open/deep/*/*.csv",
    "open/[x]/in/s.csv",
    "open/*/../../closed/in/s.csv",
    "open/in/*/../a.csv",
    "open/**",
    "open/**/s.csv",
    "../../../../etc/passwd",
    "closed",
    "",
    ".",
    "open/..",
    "*/in/s.csv",
    "open*/s.csv",
    "open/in/../../closed/in/s.csv",
    "nowhere/s.csv",
    "open/out/nowhere",
    "open/o?t/in/s.csv",
]


LEADING_OUT = ["open/deep/deeper", "open/deep", "open/parts", "open/part*", "open/parts/p.csv"]


@pytest.mark.parametrize("path", [*OUTSIDE, *LEADING_OUT])
def test_what_lies_elsewhere_is_not_read(engine: Engine, world: Path, path: str) -> None:
    for scheme in ("", "file://"):
        with pytest.raises(OutOfReach, match=r"not below a folder that it may touch \(--files "):
            load(engine, f"{scheme}{world}/{path}")
    assert engine.query("SELECT n FROM t").num_rows == 1


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "file://file:///etc/passwd",
        "file:/etc/passwd",
        "/mapped/in/s.csv",
        "~/x.csv",
        "hdfs:///x",
        "x.csv",
        "/",
        "//",
        "/proc/self/environ",
        "/dev/stdin",
        "/etc/pass*",
        "a" * 5000,
        "/" + "a/" * 3000,
    ],
)
def test_paths_of_other_kinds_are_refused(engine: Engine, path: str) -> None:
    for do in (load, write):
        with pytest.raises(OutOfReach):
            do(engine, path)


def test_a_refused_load_does_not_empty_its_table_first(engine: Engine) -> None:
    with pytest.raises(OutOfReach):
        engine.execute("LOAD DATA INFILE '/etc/passwd' INTO TABLE t OPTIONS(mode='overwrite')")
    assert engine.query("SELECT n FROM t").num_rows == 1


@pytest.mark.parametrize("path", ["open/new", "open/deep/new", "closed/back/new", "open/in/[ab]", "open/*"])
def test_what_lies_below_a_named_folder_is_written(engine: Engine, world: Path, path: str) -> None:
    before = contents(world)
    write(engine, f"{world}/{path}", "append")
    assert contents(world) == before
    assert b"here" in b"".join(file.read_bytes() for file in Path(world, path).glob("*.csv"))


@pytest.mark.parametrize(
    "path",
    [
        *(path for path in OUTSIDE if not {"*", "?"} & set(path)),
        "open",
        "open/",
        "open/.",
        "entry",
        "closed/new",
        "open/out/new",
        "open/[x]",
        "open/in-out.csv/",
        "*/../closed/new",
    ],
)
def test_nothing_elsewhere_is_written_or_deleted(engine: Engine, world: Path, path: str) -> None:
    before = contents(world)
    for mode in ("overwrite", "append", "error_if_exists"):
        with pytest.raises(OutOfReach):
            write(engine, f"{world}/{path}", mode)
    assert contents(world) == before
    assert (world / "open" / "in" / "a.csv").read_text() == ROWS


def test_without_a_folder_no_file_is_touched(world: Path) -> None:
    engine = Engine()
    engine.execute("CREATE DATABASE d; USE d; CREATE TABLE t(id string, n int)")
    engine.confine([])
    for do in (load, write):
        with pytest.raises(OutOfReach, match="this server touches no files: name the folders that it may with --files"):
            do(engine, f"{world}/open/in/a.csv")


def leaks_or_harms(engine: Engine, world: Path, path: str) -> bool:
    """Does a row or a message tell what a closed file holds, or is one changed?"""
    engine.execute(f"DROP TABLE t; {TABLE}")  # without what other paths have brought
    before, told = contents(world), ""
    for do in (load, write):
        try:
            do(engine, path)
        except (OutOfReach, BadRow, OSError) as error:
            told += str(error)
    leaks = "secret" in told + str(engine.query("SELECT id FROM t").to_pydict())
    return leaks or contents(world) != before


FIRST, THEN, LAST = (
    ("open", "closed", "*"),
    ("in", "out", "back", "..", "*", "[x]"),
    ("s.csv", "*.csv", "new", "..", "*"),
)


@pytest.mark.parametrize("first", FIRST)
def test_no_way_of_steps_leads_outside(engine: Engine, world: Path, first: str) -> None:
    ways = ["/".join((first, *way)) for way in [*itertools.product(THEN, LAST), *itertools.product(THEN, THEN, LAST)]]
    assert [way for way in ways if leaks_or_harms(engine, world, f"{world}/{way}")] == []


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.text(st.sampled_from("/.*?[]!~\\\0\ud800 %openclsdi")) | st.text())
def test_no_odd_path_leads_outside(engine: Engine, world: Path, path: str) -> None:
    quoted = path.replace("\\", "\\\\").replace("'", "\\'")
    with contextlib.suppress(UnsupportedSQL):  # it does not get as far as a path
        assert not leaks_or_harms(engine, world, f"{world}/closed/{quoted}")
