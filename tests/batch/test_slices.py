"""`slices.parquet` of a dataset: beside the tables that it was made of, read by hand."""

from __future__ import annotations

import shutil
import tracemalloc
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.jd import jd

from batch.dataset.read import DatasetError, read_field_names, read_info, read_slices
from batch.dataset.write import encode_later_requests, prepare_dataset
from batch.features.extract import extract_features
from batch.world.generate import generate_world

ZONE = ZoneInfo("Asia/Shanghai")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("slices")
    generate_world(work / "data", 60, 2)
    extract_features(work / "data", work / "features")
    prepare_dataset(work / "features", work / "data", work / "dataset")
    return work


def test_slices_are_of_the_requests_in_their_order(work: Path) -> None:
    requests = {row["reqId"]: row for row in pq.read_table(work / "data" / "flattenRequest_clean").to_pylist()}
    features = {row["reqId_1"]: row for row in pq.read_table(work / "features").to_pylist()}
    ids = {
        part: pq.read_table(work / "dataset" / f"{part}.parquet")["request_id"].to_pylist()
        for part in ("train", "val", "test")
    }
    for part in ("val", "test"):
        found = read_slices(work / "dataset", part, len(ids[part]))
        hours = [f"{datetime.fromtimestamp(requests[name]['time'] / 1000, ZONE):%H}" for name in ids[part]]
        assert found["hour of the request"].tolist() == hours
        for key in ("user_id", "sku_id", "pair_id"):
            known = {requests[name][key] for name in ids["train"]}
            expected = ["known" if requests[name][key] in known else "new" for name in ids[part]]
            assert found[f"{key} in training"].tolist() == expected
            assert found[key].tolist() == [requests[name][key] for name in ids[part]]
        for column in ("bo_product_br_multi_direct_6", "bo_user_age_multi_direct_9"):
            values = [features[name][column] for name in ids[part]]
            assert found[column].tolist() == ["(NULL)" if value is None else value for value in values]
        lists = [origin.name for origin in jd().query.contract.origins if origin.list_length]
        assert lists
        assert not set(lists) & found.keys()


def test_long_texts_are_held_once(tmp_path: Path) -> None:
    """10 kB in some rows once made 40 kB of every row."""
    rows, long = 200_000, "x" * 10_000
    texts = pa.array([long if row % 1000 == 0 else "short" for row in range(rows)])
    columns = {"part": pa.array(["val"] * rows), "a": texts, "b": texts.dictionary_encode()}
    pq.write_table(pa.table(columns), tmp_path / "slices.parquet", row_group_size=rows // 3)
    tracemalloc.start()
    found = read_slices(tmp_path, "val", rows)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 50e6
    assert {name: sorted(text.values) for name, text in found.items()} == {"a": ["short", long], "b": ["short", long]}
    for text in found.values():
        assert text.tolist() == texts.to_pylist()


def test_what_training_knew_is_not_known_of_later_requests(work: Path, tmp_path: Path) -> None:
    encode_later_requests(
        work / "features", work / "data", tmp_path / "later", work / "dataset" / "encoder", since_ms=0
    )
    found = read_slices(tmp_path / "later", "test", read_info(tmp_path / "later").counts["test"])
    assert "hour of the request" in found
    assert not [name for name in found if name.endswith("in training")]


def test_a_wrong_file_is_named_and_none_is_no_slice(work: Path, tmp_path: Path) -> None:
    dataset = shutil.copytree(work / "dataset", tmp_path / "dataset")
    path, count = dataset / "slices.parquet", read_info(dataset).counts["val"]
    with pytest.raises(DatasetError, match=rf"slices\.parquet has {count} rows of val, val\.parquet has 1"):
        read_slices(dataset, "val", 1)
    path.write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"slices\.parquet is damaged"):
        read_slices(dataset, "val", count)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DatasetError, match=r"slices\.parquet is damaged"):
        read_slices(dataset, "val", count)
    path.unlink()
    assert read_slices(dataset, "val", count) == {}


def test_the_inputs_have_the_encoder_s_names(work: Path, tmp_path: Path) -> None:
    names = read_field_names(work / "dataset", 41)
    assert names == [field.name for field in jd().encoder_fields]
    (tmp_path / "encoder").mkdir()
    path = tmp_path / "encoder" / "encoder.json"
    path.write_text('{"fields": 2}')
    assert read_field_names(tmp_path, 2) == ["field 1", "field 2"]
    for content in (b"", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"encoder\.json"):
            read_field_names(tmp_path, 2)
    path.unlink()
    with pytest.raises(DatasetError, match=r"encoder\.json: No such file"):
        read_field_names(tmp_path, 2)
