"""From features to a dataset folder: labels, split, encoder fitted on training only, and files that readers accept."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import SQL
from reference.random_features import EVENT_TIME, PAIR, REQUEST_ID
from reference.random_features import LABEL as LABEL_COLUMN
from reference.random_features import features as random_features

from batch.dataset.fit_encoder import fit
from batch.dataset.labelled import read_features
from batch.dataset.read import read_info, read_part
from batch.dataset.split import start_of_test_ms
from batch.dataset.write import DatasetOptions, encode_later_requests, prepare_dataset
from batch.features.data_layout import BadData
from streaming.app.folder import load_app
from streaming.files.output_folder import MARKER
from streaming.model.encoder import Encoder

JD = load_app(SQL / "jd")
HOUR_MS = 3_600_000
HORIZON_MS = 5 * 24 * HOUR_MS
START_MS = 1_455_000_000_000
ROWS = 400


def folders(tmp_path: Path, action: bool = False) -> tuple[Path, Path]:
    """Features of a request an hour over 20 pairs, and the data they came from: pair 3 is ordered in hours 50, 390."""
    features, data = tmp_path / "features", tmp_path / "data"
    features.mkdir()
    times = [START_MS + hour * HOUR_MS for hour in range(ROWS)]
    table = random_features(ROWS)
    replaced = {
        REQUEST_ID: pa.array([f"r{row}" for row in range(ROWS)]),
        EVENT_TIME: pa.array(times, pa.timestamp("ms")),
        PAIR: pa.array([f"pair{row % 20}" for row in range(ROWS)]),
        LABEL_COLUMN: pa.array([row % 7 == 0 if action and row % 2 else None for row in range(ROWS)], pa.bool_()).cast(
            pa.int32()
        ),
    }
    for name, values in replaced.items():
        table = table.set_column(table.schema.get_field_index(name), name, values)
    # Two files, neither sorted by time.
    order = np.random.default_rng(0).permutation(ROWS)
    pq.write_table(table.take(pa.array(order[:150])), features / "part-0.parquet")
    pq.write_table(table.take(pa.array(order[150:])), features / "part-1.parquet")
    (data / "bo_action").mkdir(parents=True)
    rows = {
        "ingestionTime": pa.array([times[50] + 1, times[390] + 1, times[399]], pa.timestamp("ms")),
        "pair_id": ["pair3", "pair3", "pair4"],
        "type": ["4", "4", "1"],
    }
    pq.write_table(pa.table(rows), data / "bo_action" / "a.parquet")
    if action:
        (data / "action").mkdir()
        pq.write_table(pa.table({"reqId": ["r1"]}), data / "action" / "a.parquet")
    return features, data


def numbers(part: list[str]) -> list[int]:
    return [int(name[1:]) for name in part]


def test_the_dataset_is_labelled_split_and_read_back(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    done = prepare_dataset(features, data, tmp_path / "dataset")
    assert done.counts == {"train": 320, "val": 40, "test": 40}
    info = read_info(tmp_path / "dataset")
    assert (info.counts, info.positives) == (done.counts, done.positives)
    assert info.split.val_from == START_MS + 320 * HOUR_MS
    assert start_of_test_ms(tmp_path / "dataset") == START_MS + 360 * HOUR_MS
    encoder = Encoder.load(tmp_path / "dataset" / "encoder")
    assert info.encoder_sha256 == encoder.digest
    assert info.table_size_array == encoder.table_sizes

    everything = read_features(features, JD)
    by_id = dict(zip(everything[REQUEST_ID].to_pylist(), range(ROWS), strict=True))
    expected_row = 0
    for name in ("train", "val", "test"):
        part = read_part(tmp_path / "dataset", name)
        ids = part.request_ids.to_pylist()
        assert numbers(ids) == list(range(expected_row, expected_row + part.count))
        expected_row += part.count
        ordered = {row for row in range(3, ROWS, 20) if 0 <= 50 - row < 120 or 0 <= 390 - row < 120}
        assert part.labels.tolist() == [float(row in ordered) for row in numbers(ids)]
        assert part.positives == done.positives[name]
        assert np.array_equal(part.ids, encoder.encode(everything.take([by_id[i] for i in ids])))


def test_a_dataset_says_what_its_fields_are(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    names = {"bo_user_age_multi_direct_9": "age of the user"}
    app = dataclasses.replace(JD, settings=msgspec.structs.replace(JD.settings, names=names))
    prepare_dataset(features, data, tmp_path / "dataset", app=app)
    meanings = read_info(tmp_path / "dataset").meanings
    assert list(meanings) == [field.name for field in JD.encoder_fields]
    assert all(meanings.values())
    assert meanings["bo_product_br_multi_direct_6"] == "br of bo_product by sku_id"
    assert meanings["bo_user_age_multi_direct_9"] == "age of the user: age of bo_user by user_id"


def test_the_encoder_sees_the_training_part_only(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    done = prepare_dataset(features, data, tmp_path / "dataset")
    everything = read_features(features, JD)
    training = everything.take(pa.array(np.argsort(everything[EVENT_TIME].cast(pa.int64()).to_numpy())[:320]))
    assert fit(training).digest == done.encoder_sha256 != fit(everything).digest


def test_equal_inputs_give_equal_bytes_and_other_data_another_hash(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    first = prepare_dataset(features, data, tmp_path / "a")
    prepare_dataset(features, data, tmp_path / "b")
    for file in sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()):
        if file.name != MARKER:  # it tells when
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    (data / "truth.parquet").write_bytes(b"not one of the tables")
    assert prepare_dataset(features, data, tmp_path / "a").data_sha256 == first.data_sha256
    pq.write_table(pq.read_table(data / "bo_action").slice(0, 2), data / "bo_action" / "a.parquet")
    assert prepare_dataset(features, data, tmp_path / "a").data_sha256 != first.data_sha256


def test_requests_near_the_end_are_told_and_can_be_left_out(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    whole = prepare_dataset(features, data, tmp_path / "a")
    assert whole.horizon_cut == HORIZON_MS // HOUR_MS - 1
    complete = prepare_dataset(features, data, tmp_path / "b", DatasetOptions(complete_labels=True))
    assert sum(complete.counts.values()) == ROWS - whole.horizon_cut
    assert complete.horizon_cut == 0


def test_a_horizon_that_leaves_nothing_is_said(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    long = JD.settings.label.later_event
    assert long is not None
    label = msgspec.structs.replace(JD.settings.label, later_event=msgspec.structs.replace(long, horizon="3650d"))
    app = dataclasses.replace(JD, settings=msgspec.structs.replace(JD.settings, label=label))
    with pytest.raises(BadData, match="--complete-labels leaves none of 400 requests"):
        prepare_dataset(features, data, tmp_path / "a", DatasetOptions(complete_labels=True), app)


def test_the_action_table_is_the_label_where_there_is_one(tmp_path: Path) -> None:
    features, data = folders(tmp_path, action=True)
    done = prepare_dataset(features, data, tmp_path / "dataset")
    assert done.label_source == "action"
    assert done.unlabelled == ROWS // 2
    assert sum(done.counts.values()) == ROWS // 2
    part = read_part(tmp_path / "dataset", "train")
    assert part.labels.tolist() == [float(row % 7 == 0) for row in numbers(part.request_ids.to_pylist())]


def test_embargo_and_seed_encoding_are_options(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    done = prepare_dataset(features, data, tmp_path / "a", DatasetOptions(embargo_ms=10 * HOUR_MS))
    assert done.counts == {"train": 310, "val": 30, "test": 40}
    done = prepare_dataset(features, data, tmp_path / "b", DatasetOptions(encoding="seed"))
    assert done.table_size_array[13] == ROWS  # reqId_1, counted over all parts as the tutorial does


def test_later_requests_are_encoded_with_a_given_encoder(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    prepare_dataset(features, data, tmp_path / "dataset")
    encoder = Encoder.load(tmp_path / "dataset" / "encoder")
    since = start_of_test_ms(tmp_path / "dataset")
    done = encode_later_requests(features, data, tmp_path / "later", encoder, since_ms=since)
    assert done.counts == {"test": 40}
    assert done.encoder_sha256 == encoder.digest
    ours, theirs = read_part(tmp_path / "later", "test"), read_part(tmp_path / "dataset", "test")
    assert np.array_equal(ours.ids, theirs.ids)
    assert ours.request_ids.to_pylist() == theirs.request_ids.to_pylist()
    with pytest.raises(BadData, match="no request since"):
        encode_later_requests(features, data, tmp_path / "later", encoder, since_ms=since * 2)


def test_later_requests_without_a_recorded_label_are_kept_by_the_five_day_rule(tmp_path: Path) -> None:
    features, data = folders(tmp_path, action=True)
    encoder = fit(read_features(features, JD))
    since = START_MS + 360 * HOUR_MS
    recorded = encode_later_requests(features, data, tmp_path / "auto", encoder, since_ms=since)
    assert (recorded.label_source, recorded.counts) == ("action", {"test": 20})
    asked = encode_later_requests(features, data, tmp_path / "action", encoder, since_ms=since, labels="column")
    assert asked == recorded
    all_of_them = encode_later_requests(
        features, data, tmp_path / "rule", encoder, since_ms=since, labels="later-event"
    )
    assert (all_of_them.label_source, all_of_them.unlabelled) == ("bo_action", 0)
    part = read_part(tmp_path / "rule", "test")
    rows = numbers(part.request_ids.to_pylist())
    assert rows == list(range(360, 400))
    assert part.labels.tolist() == [float(row in {363, 383}) for row in rows]
    shutil.rmtree(data / "action")
    with pytest.raises(BadData, match="action: there is no such folder to take labels from"):
        encode_later_requests(features, data, tmp_path / "action", encoder, since_ms=since, labels="column")


def test_what_is_not_features_is_refused_and_an_older_dataset_stays(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    prepare_dataset(features, data, tmp_path / "dataset")
    before = json.loads((tmp_path / "dataset" / "dataset.json").read_text())
    table = pq.read_table(features / "part-0.parquet")
    with pytest.raises(BadData, match="there is no such folder"):
        prepare_dataset(tmp_path / "nowhere", data, tmp_path / "dataset")
    pq.write_table(table.drop_columns([PAIR]), features / "part-0.parquet")
    with pytest.raises(BadData, match=rf"part-0\.parquet: no column {PAIR}"):
        prepare_dataset(features, data, tmp_path / "dataset")
    (features / "part-1.parquet").unlink()
    name = "bo_user_age_multi_direct_9"
    pq.write_table(table.drop_columns([name]), features / "part-0.parquet")
    with pytest.raises(BadData, match=rf"part-0\.parquet: no column {name}"):
        prepare_dataset(features, data, tmp_path / "dataset")
    pq.write_table(table.slice(0, 0), features / "part-0.parquet")
    with pytest.raises(BadData, match="no features in it"):
        prepare_dataset(features, data, tmp_path / "dataset")
    assert json.loads((tmp_path / "dataset" / "dataset.json").read_text()) == before


def test_requests_of_one_name_are_told(tmp_path: Path) -> None:
    features, data = folders(tmp_path)
    assert prepare_dataset(features, data, tmp_path / "a", DatasetOptions(), JD).repeated == 0
    file = features / "part-1.parquet"
    table = pq.read_table(file)
    names = pa.array(["r7"] * 3 + table[REQUEST_ID].to_pylist()[3:])
    pq.write_table(table.set_column(table.schema.get_field_index(REQUEST_ID), REQUEST_ID, names), file)
    told = prepare_dataset(features, data, tmp_path / "b", DatasetOptions(), JD).repeated
    assert told == ROWS - len({*pq.read_table(features / "part-0.parquet")[REQUEST_ID].to_pylist(), *names.to_pylist()})
