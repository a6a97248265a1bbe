"""The offline step: what is wrong with the input is named before anything runs; the features are the engine's."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from places import SHARED, SQL
from reference.random_features import LABEL as LABEL_COLUMN

from batch.features.data_layout import BadData
from batch.features.extract import extract_features
from batch.features.history import check_data, tables_of
from batch.world.generate import generate_world
from batch.world.tutorial_tables import TABLES
from streaming.app.folder import load_app
from streaming.app.wrong import WrongApp
from streaming.engine.program import offline, runner
from streaming.store.openmldb.columns import schema_of

JD = load_app(SQL / "jd")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extract") / "world"
    generate_world(out, users=25, seed=5, days=30)
    return out


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    shutil.copytree(world, tmp_path / "world")
    return tmp_path / "world"


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def with_time(table: pa.Table, column: str, row: int, value: int | None) -> pa.Table:
    values = table[column].cast(pa.int64()).to_pylist()
    values[row] = value
    return table.set_column(table.schema.get_field_index(column), column, pa.array(values, pa.timestamp("us")))


def test_a_good_folder_is_counted(world: Path) -> None:
    rows = check_data(world, JD)
    assert set(rows) == {"flattenRequest_clean", "bo_user", "bo_action", "bo_product", "bo_comment"}
    assert rows["bo_action"] == pq.read_table(world / "bo_action").num_rows


def test_the_tables_are_those_that_the_replay_knows(world: Path) -> None:
    made = {source.folder.name: source.schema for source in tables_of(JD, world)}
    assert made == {folder: schema_of([*columns.items()]) for folder, columns in TABLES.items() if folder != "action"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: shutil.rmtree(d / "bo_user"), r"bo_user: there is no such folder"),
        (lambda d: (d / "bo_user" / "part-00000.parquet").unlink(), r"bo_user: no \*\.parquet file"),
        (lambda d: (d / "bo_user" / "part-00000.parquet").write_bytes(b""), r"part-00000\.parquet: the file is empty"),
        (lambda d: (d / "bo_user" / "z.parquet").write_bytes(b"no parquet"), r"z\.parquet: not a readable parquet"),
        (
            lambda d: rewrite(d / "bo_user" / "part-00000.parquet", lambda t: t.slice(0, 0)),
            r"bo_user: its files have no rows",
        ),
        (
            lambda d: rewrite(d / "bo_action" / "part-00000.parquet", lambda t: t.drop_columns(["br"])),
            r"bo_action/part-00000\.parquet: no column br; it has ingestionTime, pair_id",
        ),
        (
            lambda d: rewrite(
                d / "bo_comment" / "part-00000.parquet",
                lambda t: t.set_column(3, "comment_num", t["comment_num"].cast(pa.string())),
            ),
            r"bo_comment/part-00000\.parquet: column comment_num is string, it must be int",
        ),
        (
            lambda d: rewrite(
                d / "bo_product" / "part-00000.parquet", lambda t: t.set_column(0, "ingestionTime", t["sku_id"])
            ),
            r"column ingestionTime is string, it must be timestamp",
        ),
        (
            lambda d: rewrite(
                d / "flattenRequest_clean" / "part-00000.parquet", lambda t: with_time(t, "eventTime", 17, None)
            ),
            r"flattenRequest_clean/part-00000\.parquet: row 17, column eventTime: the time is NULL",
        ),
        (
            lambda d: rewrite(
                d / "bo_action" / "part-00000.parquet", lambda t: with_time(t, "ingestionTime", 3, -1_000_000)
            ),
            r"bo_action/part-00000\.parquet: row 3, column ingestionTime: the time is before 1970",
        ),
    ],
)
def test_a_damaged_folder_is_refused_by_file_column_and_row(
    copy: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(copy)
    with pytest.raises(BadData, match=message):
        check_data(copy, JD)


def test_missing_folders_and_scripts_are_named(world: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="nowhere: there is no such folder"):
        check_data(tmp_path / "nowhere", JD)
    with pytest.raises(WrongApp, match=r"app\.toml: No such file|tables\.sql: No such file"):
        extract_features(world, tmp_path / "out", load_app(tmp_path))


def test_features_of_every_request_with_and_without_the_action_table(copy: Path, tmp_path: Path) -> None:
    requests = pq.read_table(copy / "flattenRequest_clean")
    done = extract_features(copy, tmp_path / "without")
    features = pq.read_table(tmp_path / "without")
    assert (done.features, done.columns) == (requests.num_rows, 42)
    assert sorted(features["reqId_1"].to_pylist()) == sorted(requests["reqId"].to_pylist())
    assert features[LABEL_COLUMN].null_count == features.num_rows
    # The request is in its own windows, and the action that caused it is there.
    assert pc.min(features["flattenRequest_pair_id_window_count_35"]).as_py() >= 1
    assert pc.min(features["bo_action_type_multi_unique_count_21"]).as_py() >= 2

    (copy / "action").mkdir()
    known = requests.slice(0, 40)
    action = pa.table(
        {
            "reqId": known["reqId"],
            "eventTime": known["eventTime"],
            "ingestionTime": known["eventTime"],
            "actionValue": pa.array([1] * 10 + [0] * 30, pa.int32()),
        }
    )
    pq.write_table(action, copy / "action" / "action.parquet")
    assert extract_features(copy, tmp_path / "with").rows["action"] == 40
    again = pq.read_table(tmp_path / "with")
    values = dict(zip(again["reqId_1"].to_pylist(), again[LABEL_COLUMN].to_pylist(), strict=True))
    assert [values[name] for name in known["reqId"].to_pylist()] == [1] * 10 + [0] * 30
    assert again[LABEL_COLUMN].null_count == again.num_rows - 40
    assert again.drop_columns([LABEL_COLUMN]).equals(features.drop_columns([LABEL_COLUMN]))


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def change() -> None:
        monkeypatch.setattr(offline, "ROWS_PER_PART", 50)
        monkeypatch.setattr(offline, "BATCH", 16)
        monkeypatch.setattr(runner, "BATCH", 16)

    return change


@pytest.mark.parametrize("seed", [None, 3])
def test_features_that_are_written_in_parts_are_those_of_one_part(
    copy: Path, tmp_path: Path, in_small_parts: Callable[[], None], seed: int | None
) -> None:
    """Also of requests that are in no order of time: they are sorted on disk in between."""
    file, told = copy / "flattenRequest_clean" / "part-00000.parquet", list[tuple[int, int]]()

    def order(table: pa.Table) -> pa.Table:
        if seed is None:
            return table.sort_by("eventTime")
        return table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))

    rewrite(file, order)
    out = tmp_path / "features"
    extract_features(copy, out / "one")
    in_small_parts()
    done = extract_features(copy, out / "many", progress=lambda *seen: told.append(seen))
    (written,) = (out / "many").glob("*.parquet")
    assert pq.read_metadata(written).num_row_groups > 4
    assert pq.read_table(written).equals(pq.read_table(out / "one"))
    assert pq.read_table(written)["reqId_1"].equals(pq.read_table(file)["reqId"])
    assert told[-1] == (done.features, done.features)
    assert sorted(told) == told
    assert sorted(path.name for path in out.iterdir()) == ["many", "one"]


@pytest.mark.parametrize("older", [True, False])
def test_an_extraction_that_is_stopped_halfway_leaves_what_was_there(
    copy: Path, tmp_path: Path, in_small_parts: Callable[[], None], older: bool
) -> None:
    out = tmp_path / "features" / "out"
    out.parent.mkdir()
    if older:
        extract_features(copy, out)
    before = {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()}

    def stop(done: int, of: int) -> None:
        if done > of / 2:
            assert done < of
            raise KeyboardInterrupt

    in_small_parts()
    with pytest.raises(KeyboardInterrupt):
        extract_features(copy, out, progress=stop)
    assert {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()} == before
    assert out.exists() is older


@pytest.mark.skipif(not SHARED.is_dir(), reason="the tutorial's sample and OpenMLDB's answers are not at ../shared")
def test_the_public_sample_gives_openmldbs_answers_and_the_tutorials_table_sizes(tmp_path: Path) -> None:
    from batch.dataset.fit_encoder import fit

    extract_features(SHARED / "jd", tmp_path)
    features, golden = pq.read_table(tmp_path), pq.read_table(SHARED / "golden" / "online.parquet")
    at = pc.index_in(golden["reqId_1"], features["reqId_1"].combine_chunks())
    same = features.take(at.combine_chunks() if isinstance(at, pa.ChunkedArray) else at)
    assert same.schema.remove_metadata().equals(golden.schema.remove_metadata())
    assert same.combine_chunks().equals(golden.combine_chunks())
    # TUTORIAL.zh.md 2.3, from OpenMLDB and the seed system's preprocessing
    assert fit(features, "seed").table_sizes == [
        4,
        26,
        16,
        4,
        11,
        809,
        1,
        1,
        5,
        3,
        17,
        16,
        7,
        13916,
        13890,
        13916,
        10000,
        3674,
        9119,
        7,
        2,
        13916,
        5,
        4,
        4,
        33,
        2,
        2,
        7,
        2580,
        3,
        5,
        13916,
        10,
        47,
        13916,
        365,
        17,
        132,
        32,
        37,
    ]
