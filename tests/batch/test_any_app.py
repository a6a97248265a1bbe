"""Other applications than the tutorial's, by the commands that a user gives, and no line of Python touched."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.applications import make
from places import REPOSITORY, SHARED, SQL

from batch.dataset.labelled import label, read_features
from batch.dataset.read import read_info, read_part
from batch.dataset.write import DatasetOptions, prepare_dataset
from batch.features.data_layout import BadData
from batch.features.extract import extract_features
from batch.report.report import read_report
from batch.train.verdict import read_evaluated
from deploy.environments import interpreter
from streaming.app.folder import load_app
from streaming.model.artifact import check_sql
from streaming.model.encoder import Encoder

TALKINGDATA = SHARED / "apps" / "talkingdata" / "train_sample.csv"
UTC8 = timezone(timedelta(hours=8))
HOUR_MS = 3_600_000


def command(environment: str, *words: object) -> str:
    argv = [str(interpreter(environment)), "-m", "batch", *map(str, words)]
    done = subprocess.run(
        argv, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=250, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def trained(app: Path, data: Path, work: Path) -> dict[str, str]:
    """From data to an artifact, by the commands; what each printed."""
    features, dataset, checkpoint = work / "features", work / "dataset", work / "checkpoint"
    said = {"extract": command("scorer", "extract", "--app", app, "--data", data, "--out", features)}
    said["prepare"] = command(
        "scorer", "prepare", "--app", app, "--features", features, "--data", data, "--out", dataset
    )
    small = ("--epochs", 1, "--layers", "16", "--embedding", 4)
    said["train"] = command("model", "train", "--dataset", dataset, "--out", checkpoint, *small)
    assert f"report: {checkpoint / 'report.html'}" in said["train"]  # every run of training leaves one
    assert read_report(checkpoint).verdict.removeprefix("The model ") in said["train"]
    words = ("--dataset", dataset, "--checkpoint", checkpoint, "--out", work / "artifact", "--accept-weak-model")
    said["export"] = command("model", "export", "--app", app, *words)
    return said


def test_a_column_more_in_the_query_is_a_field_more_in_the_model(tmp_path: Path) -> None:
    app = shutil.copytree(SQL / "jd", tmp_path / "shop")
    query = (app / "features.sql").read_text()
    at = "    dayofweek(timestamp(`eventTime`)) as flattenRequest_eventTime_dayofweek_41,\n"
    assert at in query
    (app / "features.sql").write_text(query.replace(at, f"{at}    minute(`eventTime`) as minute_of_request,\n"))
    command("scorer", "generate", "--users", 60, "--seed", 2, "--out", tmp_path / "data")
    said = trained(app, tmp_path / "data", tmp_path)
    assert "requests x 43 columns" in said["extract"]
    assert re.search(r"^minute_of_request +integer +60 +0 +34$", said["prepare"], re.MULTILINE)
    artifact = tmp_path / "artifact"
    fields = [field.name for field in Encoder.load(artifact / "encoder").fields]
    assert len(fields) == 42
    assert fields[fields.index("flattenRequest_eventTime_dayofweek_41") + 1] == "minute_of_request"
    assert "dims: [ 42 ]" in (artifact / "triton" / "embedding" / "config.pbtxt").read_text()
    assert json.loads((tmp_path / "checkpoint" / "config.json").read_text())["fields"] == 42
    assert load_app(artifact / "app").digest == load_app(app).digest
    check_sql(load_app(app), artifact)


# -- ad clicks -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The public sample as a data folder: times are texts in UTC+8; clicks are named by their place."""
    if not TALKINGDATA.exists():
        pytest.skip("the sample of ad clicks is not at ../shared")
    with TALKINGDATA.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    moments = [datetime.fromisoformat(row["click_time"]).replace(tzinfo=UTC8) for row in rows]
    columns: dict[str, Any] = {"click_id": [f"click{place}" for place in range(len(rows))]}
    for name in ("ip", "app", "device", "os", "channel", "is_attributed"):
        columns[name] = pa.array([int(row[name]) for row in rows], pa.int32())
    columns["click_time"] = pa.array([int(moment.timestamp() * 1000) for moment in moments], pa.timestamp("ms"))
    folder = tmp_path_factory.mktemp("clicks") / "data"
    (folder / "clicks").mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "clicks" / "part.parquet")
    return folder


def test_ad_clicks_go_all_the_way(clicks: Path, tmp_path: Path) -> None:
    said = trained(SQL / "talkingdata", clicks, tmp_path)
    assert "10,000 requests x 11 columns" in said["extract"]
    counted = re.search(
        r"positives = train (\d+) .*, val (\d+) .*, test (\d+) .*, labels from is_attributed", said["prepare"]
    )
    assert counted is not None
    assert sum(map(int, counted.groups())) == 31
    assert re.search(r"^app +category +\d+ +0 +\d+", said["prepare"], re.MULTILINE)
    info = read_info(tmp_path / "dataset")
    assert (info.fields, info.app) == (9, "talkingdata")
    assert read_part(tmp_path / "dataset", "train").ids.shape == (8000, 9)
    # Two or three attributed clicks say nothing, and so it is said.
    assert "cannot be judged: test has 2 positive and 998 negative samples" in said["export"]
    assert "the model cannot be judged" in said["export"]
    measured = read_evaluated(tmp_path / "checkpoint").parts
    assert measured["test"].positives < 10
    assert "note: exported all the same" in said["export"]
    report = read_report(tmp_path / "checkpoint")
    assert "cannot be judged" in report.verdict
    assert report.importance == []
    sliced = {one.by for one in report.parts["test"].slices}
    assert {"hour of the request", "ip in training", "app in training", "device", "os"} <= sliced
    assert "cannot be judged" in (tmp_path / "checkpoint" / "report.html").read_text()


def test_features_of_ad_clicks_are_those_counted_by_hand(clicks: Path, tmp_path: Path) -> None:
    extract_features(clicks, tmp_path / "features", load_app(SQL / "talkingdata"))
    answers = {row["click_id"]: row for row in pq.read_table(tmp_path / "features").to_pylist()}
    table = pq.read_table(clicks / "clicks" / "part.parquet")
    rows = table.set_column(
        table.column_names.index("click_time"), "click_time", table["click_time"].cast(pa.int64())
    ).to_pylist()
    for row in random.Random(3).sample(range(len(rows)), 300):
        click = rows[row]

        def before(*keys: str, of: int = row, within: int | None = None) -> int:
            """Clicks alike up to the click itself: of its very time those that lie before it in the file."""
            this = rows[of]
            return sum(
                all(other[key] == this[key] for key in keys)
                and (other["click_time"], place) <= (this["click_time"], of)
                and (within is None or other["click_time"] >= this["click_time"] - within)
                for place, other in enumerate(rows)
            )

        moment = datetime.fromtimestamp(click["click_time"] / 1000, UTC8)
        answer = answers[click["click_id"]]
        assert (answer["click_hour"], answer["click_day"]) == (moment.hour, moment.day)
        assert answer["ip_clicks_1h"] == before("ip", within=HOUR_MS)
        assert answer["ip_app_clicks"] == before("ip", "app")
        assert answer["ip_app_os_clicks"] == before("ip", "app", "os")
        assert [answer[name] for name in ("app", "device", "os", "channel", "is_attributed")] == [
            click[name] for name in ("app", "device", "os", "channel", "is_attributed")
        ]


# -- a bank: the query answers neither time nor key of a payment ------------------------------------------------------

START_MS = 1_700_000_000_000


def bank(folder: Path, rows: int = 400, **changes: tuple[str, str]) -> tuple[Path, list[dict[str, Any]]]:
    """Payments of ten cards in no order, one every 20 minutes; the application beside them."""
    make(folder / "app", **changes)
    rng = random.Random(5)
    payments = [
        {
            "id": f"p{number}",
            "card": 700_000_000_000_000_000 + rng.randrange(10),
            "at": START_MS + number * 1_200_000,
            "amount": rng.choice([5.0, 20.0, 400.0, 1000.0, 1000.5, None]),
            "small": 1,
            "note": None,
        }
        for number in range(rows)
    ]
    schema = pa.schema(
        {
            "id": pa.string(),
            "card": pa.int64(),
            "at": pa.timestamp("ms"),
            "amount": pa.float64(),
            "small": pa.int16(),
            "note": pa.string(),
        }
    )
    shuffled = rng.sample(payments, rows)
    data = folder / "data"
    for name in ("payments", "cards"):
        (data / name).mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(shuffled, schema), data / "payments" / "a.parquet")
    (data / "cards" / "a.csv").write_text("card,since,country\n700000000000000001,2020-01-01,DE\n")
    return data, payments


def test_labels_by_a_later_event_of_a_key_that_the_query_does_not_answer(tmp_path: Path) -> None:
    data, payments = bank(tmp_path)
    app = load_app(tmp_path / "app")
    extract_features(data, tmp_path / "features", app)
    done = prepare_dataset(tmp_path / "features", data, tmp_path / "dataset", DatasetOptions(), app)
    assert (done.label_source, done.unlabelled) == ("payments", 0)
    assert done.horizon_cut == 33  # a payment each 20 minutes, twelve hours to look ahead, one of them slack
    expected = {
        one["id"]: int(
            any(
                one["card"] == other["card"]
                and (other["amount"] or 0) > 1000
                and one["at"] < other["at"] <= one["at"] + 12 * HOUR_MS
                for other in payments
            )
        )
        for one in payments
    }
    seen = []
    for name in ("train", "val", "test"):
        part = pq.read_table(tmp_path / "dataset" / f"{name}.parquet")
        assert part.column_names == ["request_id", "time", "label", "ids"]
        seen += part["request_id"].to_pylist()
        assert [expected[one] for one in part["request_id"].to_pylist()] == part["label"].to_pylist()
    assert seen == [payment["id"] for payment in payments], "split by the payments' time, which is looked up"
    assert 0 < sum(expected.values()) < len(expected)


JOINED = (
    '[label.later_event]\ntable = "payments"\nkey = { card = "card" }\ntime = "at"\n'
    'condition = "amount > 1000"\nhorizon = "12h"\n',
    '[label.joined]\ntable = "frauds"\nkey = { payment = "id" }\ncolumn = "proven"\n',
)
FRAUDS = ("CREATE TABLE cards", "CREATE TABLE frauds (payment string, proven int);\nCREATE TABLE cards")


def test_labels_by_a_row_of_another_table_that_the_query_does_not_read(tmp_path: Path) -> None:
    data, _ = bank(tmp_path, app=JOINED, tables=FRAUDS)
    app = load_app(tmp_path / "app")
    extract_features(data, tmp_path / "features", app)
    with pytest.raises(BadData, match="frauds: there is no such folder"):
        prepare_dataset(tmp_path / "features", data, tmp_path / "dataset", DatasetOptions(), app)
    (data / "frauds").mkdir()
    rows = {"payment": ["p1", "p2", "p2", "p3", None, "p4"], "proven": pa.array([0, 0, 1, None, 1, 3], pa.int32())}
    pq.write_table(pa.table(rows), data / "frauds" / "a.parquet")
    labelled = label(read_features(tmp_path / "features", app), data, app)
    found = dict(zip(labelled.features["id"].to_pylist(), labelled.label.tolist(), strict=True))
    assert found == {"p1": 0, "p2": 1, "p4": 1}, "the last row of a key; NULL is no label; above 0 is 1"
    assert (labelled.unlabelled, labelled.above_one, labelled.source) == (397, 1, "frauds")
    pq.write_table(pa.table({"payment": ["p1"], "proven": pa.array([-1], pa.int32())}), data / "frauds" / "a.parquet")
    with pytest.raises(BadData, match=r"frauds\.proven is -1 .*: a label is 0 or 1"):
        label(read_features(tmp_path / "features", app), data, app)


def test_a_query_without_the_request_s_name_makes_no_dataset(tmp_path: Path) -> None:
    data, _ = bank(tmp_path, 30, features=("SELECT id, amount", "SELECT amount"))
    app = load_app(tmp_path / "app")
    extract_features(data, tmp_path / "features", app)
    with pytest.raises(BadData, match=r"does not answer payments\.id, which names a request"):
        prepare_dataset(tmp_path / "features", data, tmp_path / "dataset", DatasetOptions(), app)


def test_a_name_that_two_requests_have_is_refused_where_their_time_must_be_looked_up(tmp_path: Path) -> None:
    data, _ = bank(tmp_path, 30)
    app = load_app(tmp_path / "app")
    file = data / "payments" / "a.parquet"
    table = pq.read_table(file)
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), file)
    extract_features(data, tmp_path / "features", app)
    with pytest.raises(BadData, match=r"id 'p\d+' is there more than once, and the query does not answer at"):
        prepare_dataset(tmp_path / "features", data, tmp_path / "dataset", DatasetOptions(), app)


def test_null_where_the_table_takes_none_is_named(tmp_path: Path) -> None:
    data, _ = bank(tmp_path, 30)
    file = data / "payments" / "a.parquet"
    table = pq.read_table(file)
    ids = [None if row == 7 else text for row, text in enumerate(table["id"].to_pylist())]
    pq.write_table(table.set_column(0, "id", pa.array(ids, pa.string())), file)
    with pytest.raises(BadData, match=r"a\.parquet: row 7, column id: NULL, and it is NOT NULL"):
        extract_features(data, tmp_path / "features", load_app(tmp_path / "app"))


def test_defaults_of_training_are_the_application_s(tmp_path: Path) -> None:
    from batch.train.options import TrainOptions

    data, _ = bank(tmp_path, app=("[scores]\ntopic", "[model]\nlayers = [8, 4]\ncount_min = 2\n\n[scores]\ntopic"))
    app = load_app(tmp_path / "app")
    extract_features(data, tmp_path / "features", app)
    prepare_dataset(tmp_path / "features", data, tmp_path / "dataset", DatasetOptions(), app)
    info = read_info(tmp_path / "dataset")
    options = TrainOptions.defaults(info.model)
    assert (options.layers, options.count_min, options.embedding) == ((8, 4), 2, TrainOptions().embedding)
    assert load_app(SQL / "jd").settings.model.count_min == 300 != TrainOptions().count_min
    with pytest.raises(ValueError, match="depth is no option of training"):
        TrainOptions.defaults({"depth": 1})
    with pytest.raises(ValueError, match="count_min must be above 0"):
        TrainOptions.defaults({"count_min": 0})
