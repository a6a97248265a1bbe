"""The encoder: one spelling per value, fitted bins and vocabularies, deterministic files, clear refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from places import CASES
from reference.random_features import EVENT_TIME, LABEL, SEED_ORDER, TIME, WHOLE, features, schema

from batch.dataset.fit_encoder import fit
from streaming.errors import ArtifactMismatch
from streaming.model.encoder import NULL_ID, RARE_ID, Binned, Encoder, canonical, value_id


def field_ids(encoder: Encoder, table: pa.Table, name: str) -> list[int]:
    at = [field.name for field in encoder.fields].index(name)
    return [int(value) for value in encoder.encode(table)[:, at]]


def with_column(table: pa.Table, name: str, values: Sequence[object], kind: pa.DataType | None = None) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.slice(0, len(values)).set_column(at, name, pa.array(values, kind or table.schema.field(at).type))


def test_canonical_text_is_typed_and_has_one_spelling() -> None:
    assert canonical(None) != canonical("") != canonical("NULL")
    assert canonical(float("nan")) == canonical(None)
    assert canonical(float(np.float32(0.0192))) == canonical(0.0192) == b"0.0192"
    assert canonical(-0.0) == canonical(0.0) == b"0.0"
    assert canonical(1.0) == b"1.0"
    assert canonical(1459419080000) == b"1459419080000"
    assert canonical("26-35岁") == "26-35岁".encode()
    with pytest.raises(UnicodeDecodeError):
        canonical(None).decode()  # no string can collide with it


def test_an_id_is_the_signed_xxhash64_of_the_text() -> None:
    for text in (b"", b"306", b"NULL", "岁".encode()):
        assert value_id(text) % (1 << 64) == xxhash.xxh64_intdigest(text, seed=10)
        assert -(1 << 63) <= value_id(text) < 1 << 63


def test_shape_type_and_table_sizes() -> None:
    table = features()
    encoder = fit(table)
    ids = encoder.encode(table)
    assert ids.shape == (400, 41)
    assert ids.dtype == np.int64
    assert ids.flags.c_contiguous
    assert encoder.table_sizes == [len(np.unique(ids[:, at])) for at in range(41)]
    assert len({field.name for field in encoder.fields}) == 41
    assert encoder.encode(table.slice(0, 0)).shape == (0, 41)


def test_no_request_id_and_no_label_is_read() -> None:
    read = {field.column for field in fit(features()).fields}
    assert not any(column.startswith("reqId") or "reqId" in column for column in read)
    assert LABEL not in read
    assert len(read) == 36  # 35 of their own, and the event time for its hour


def test_rows_are_independent_of_their_batch() -> None:
    table = features()
    encoder = fit(table)
    whole = encoder.encode(table)
    fresh = fit(table)  # its caches are empty
    pieces = [fresh.encode(table.slice(at, 7)) for at in range(0, 400, 7)]
    assert np.array_equal(np.concatenate(pieces), whole)
    chunked = pa.concat_tables([table.slice(0, 100), table.slice(100)])
    assert np.array_equal(encoder.encode(chunked), whole)


def test_null_empty_and_the_text_null_differ_and_unseen_values_are_rare() -> None:
    name = "bo_product_br_multi_direct_6"
    seen = ["", "NULL", None, "306"] * 100
    encoder = fit(with_column(features(), name, seen))
    table = with_column(features(), name, ["", "NULL", None, "306", "never seen", "nor this"])
    ids = field_ids(encoder, table, name)
    assert len(set(ids)) == 5
    assert ids[2] == NULL_ID
    assert ids[3] == value_id(b"306")
    assert ids[4] == ids[5] == RARE_ID


def test_values_seen_too_seldom_share_the_rare_id_in_training_too() -> None:
    name = "flattenRequest_user_id_original_26"
    table = with_column(features(), name, ["often"] * 396 + ["once", "twice", "twice", None])
    ids = field_ids(fit(table), table, name)
    assert ids[0] == value_id(b"often")
    assert ids[396:] == [RARE_ID, RARE_ID, RARE_ID, NULL_ID]


def test_integers_are_exact_up_to_a_bound_and_never_beyond_what_training_saw() -> None:
    name = "flattenRequest_pair_id_window_unique_count_32"
    encoder = fit(with_column(features(), name, [1, 2, 3, 90] * 100))
    ids = field_ids(encoder, with_column(features(), name, [1, 2, 3, 3, 90, 91, 10**12, -7, None]), name)
    assert len(set(ids[:3])) == 3
    assert ids[2] == ids[3] == value_id(b"3")
    assert ids[4] == ids[5] == ids[6]
    assert ids[8] == NULL_ID


def test_reals_share_bins_by_quantile_whatever_their_width() -> None:
    name = "bo_comment_bad_comment_rate_multi_max_13"
    rng = np.random.default_rng(1)
    table = with_column(features(), name, rng.random(400).astype(np.float32).tolist())
    encoder = fit(table)
    sizes = np.unique(field_ids(encoder, table, name), return_counts=True)[1]
    assert len(sizes) == 16
    assert sizes.max() <= 32
    double = with_column(table, name, table[name].to_pylist(), pa.float64())
    assert field_ids(encoder, double, name) == field_ids(encoder, table, name)
    odd = field_ids(encoder, with_column(table, name, [float("nan"), None, float("inf"), float("-inf"), 5.0]), name)
    assert odd[0] == odd[1] == NULL_ID
    assert odd[2] == odd[4]
    assert NULL_ID not in odd[2:]


def test_ages_and_hours_come_from_the_event_time() -> None:
    hour_ms = 3_600_000
    table = with_column(features(), EVENT_TIME, [16 * hour_ms, 15 * hour_ms, 40 * hour_ms + 1])
    ids = field_ids(fit(features()), table, "hour_of_day")
    assert ids == [value_id(b"0"), value_id(b"23"), value_id(b"0")]
    name = "bo_user_ingestionTime_multi_direct_10"
    day = 24 * hour_ms
    base = with_column(with_column(features(), EVENT_TIME, [1000 * day] * 400), name, [0] * 200 + [990 * day] * 200)
    encoder = fit(base)
    later = with_column(with_column(base, EVENT_TIME, [2000 * day] * 3), name, [1000 * day, 1990 * day, None])
    assert field_ids(encoder, later, name) == [*(field_ids(encoder, base, name)[at] for at in (0, 399)), NULL_ID]


def test_frequency_lists_give_their_shape_and_named_entries() -> None:
    source = "bo_action_model_id_multi_top3frequency_18"
    table = with_column(features(), source, [",216,0", "216,,NULL", "0,216,", ",NULL,NULL", None] * 80)
    encoder = fit(table)
    first = field_ids(encoder, table.slice(0, 5), "bo_action_model_id_7d_top1")
    second = field_ids(encoder, table.slice(0, 5), "bo_action_model_id_7d_top2")
    assert first == [value_id(b"216"), value_id(b"216"), value_id(b"0"), value_id(b""), NULL_ID]
    assert second == [value_id(b"0"), value_id(b""), value_id(b"216"), value_id(b""), NULL_ID]
    brands = "bo_action_br_multi_top3frequency_16"
    shapes = with_column(features(), brands, [",x,NULL", "x,,NULL", "x,y,", "x,y,z"])
    assert field_ids(encoder, shapes, "bo_action_br_10h_shape") == [
        value_id(text) for text in (b"evn", b"ven", b"vve", b"vvv")
    ]


def test_the_same_fit_gives_the_same_bytes_and_loads_again(tmp_path: Path) -> None:
    table = features()
    fit(table).save(tmp_path / "a")
    fit(table.take(pa.array(np.random.default_rng(0).permutation(400)))).save(tmp_path / "b")
    for name in (Encoder.JSON, Encoder.VOCABULARY):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    loaded = Encoder.load(tmp_path / "a")
    assert loaded.digest == fit(table).digest
    assert loaded.digest.startswith("sha256:")
    assert loaded.fields == fit(table).fields
    assert loaded.table_sizes == fit(table).table_sizes
    assert np.array_equal(loaded.encode(table), fit(table).encode(table))
    assert fit(features(seed=4)).digest != loaded.digest


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    fit(features()).save(tmp_path)
    json_file, vocabulary = tmp_path / Encoder.JSON, tmp_path / Encoder.VOCABULARY
    text, content = json_file.read_text(), vocabulary.read_bytes()

    vocabulary.write_bytes(content[:-1] + b"!")
    with pytest.raises(ArtifactMismatch, match=r"vocabulary\.npy: changed"):
        Encoder.load(tmp_path)
    vocabulary.unlink()
    with pytest.raises(ArtifactMismatch, match=r"vocabulary\.npy: No such file"):
        Encoder.load(tmp_path)
    vocabulary.write_bytes(content)

    changed = json.loads(text)
    changed["encoder"]["fields"][3]["starts"][0] += 1
    for bad, why in ((json.dumps(changed), "changed"), (text[:100], "not an encoder"), ("{}", "not an encoder")):
        json_file.write_text(bad)
        with pytest.raises(ArtifactMismatch, match=rf"encoder\.json: {why}"):
            Encoder.load(tmp_path)
    json_file.write_text(json.dumps(json.loads(text)))  # other white space is the same encoder
    assert Encoder.load(tmp_path).digest == json.loads(text)["digest"]


@pytest.mark.parametrize(
    ("column", "kind", "wanted"),
    [
        ("flattenRequest_user_id_original_26", pa.int64(), "a string"),
        ("flattenRequest_pair_id_window_count_35", pa.float64(), "an integer"),
        ("flattenRequest_pair_id_window_top1_ratio_28", pa.string(), "a real number"),
        (EVENT_TIME, pa.int64(), "a timestamp"),
    ],
)
def test_a_missing_or_mistyped_column_is_named(column: str, kind: pa.DataType, wanted: str) -> None:
    table = features()
    encoder = fit(table)
    with pytest.raises(ArtifactMismatch, match=f"needs column {column}"):
        encoder.encode(table.drop_columns([column]))
    with pytest.raises(
        ArtifactMismatch, match=f"column {column}: the encoder needs {wanted}, the features have {kind}"
    ):
        encoder.encode(with_column(table, column, [None] * 400, kind))
    with pytest.raises(ArtifactMismatch, match=column):
        fit(table.drop_columns([column]))


def test_fitting_on_few_or_empty_columns_works() -> None:
    empty = schema().empty_table()
    encoder = fit(empty)
    assert encoder.table_sizes == [0] * 41
    ids = encoder.encode(features())
    assert ids.shape == (400, 41)
    nulls = pa.table([pa.nulls(3, field.type) for field in schema()], schema=schema())
    assert set(fit(features()).encode(nulls).ravel().tolist()) == {NULL_ID}
    assert all(field.starts for field in encoder.fields if isinstance(field, Binned))


def test_the_seed_encoding_hashes_all_but_the_label() -> None:
    table = features()
    encoder = fit(table, "seed")
    assert [field.column for field in encoder.fields] == list(SEED_ORDER)
    assert len(set(SEED_ORDER)) == 41
    assert LABEL not in SEED_ORDER
    ids = encoder.encode(table)
    for at, name in enumerate(SEED_ORDER):
        distinct = table[name].cast(TIME).cast(WHOLE) if pa.types.is_timestamp(table[name].type) else table[name]
        assert ids[:, at].tolist() == [value_id(canonical(value)) for value in distinct.to_pylist()]
        assert encoder.table_sizes[at] == len(set(table[name].to_pylist()))


def test_answers_of_openmldb_are_encoded() -> None:
    golden = pq.read_table(CASES / "online_answers.parquet")  # of its own engine, to requests of the tutorial's sample
    ids = fit(golden).encode(golden)
    assert ids.shape == (golden.num_rows, 41)
    sizes = dict(zip(SEED_ORDER, fit(golden, "seed").table_sizes, strict=True))
    assert sizes["reqId_1"] == golden.num_rows
    assert sizes["bo_comment_bad_comment_rate_multi_min_14"] == 1


def test_a_full_cache_starts_anew_and_ids_stay_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    table = features()
    encoder = fit(table)
    expected = encoder.encode(table)
    monkeypatch.setattr("streaming.model.lookups.CACHE_VALUES_MAX", 4)
    crowded = Encoder(encoder.fields, encoder._vocabulary, encoder.table_sizes)
    for start, rows in ((0, 3), (1, 5), (2, 2), (0, 400), (4, 1), (0, 400)):
        assert np.array_equal(crowded.encode(table.slice(start, rows)), expected[start : start + rows])
