"""The generated world of ad clicks: the application's tables and events, a known ceiling, intent that is learned."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from places import SHARED, SQL
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from batch.backfill.archive import records_of_files
from batch.backfill.tables import backfill
from batch.cli.commands import app as program
from batch.world.ad_clicks import AdClicks, convert_click_sample, generate_ad_clicks
from streaming.app.folder import load_app
from streaming.engine import Engine
from streaming.engine.storage.rows import schema_of
from streaming.errors import BadInput
from streaming.files.output_folder import MARKER
from streaming.files.tables import BadFile

APP = load_app(SQL / "talkingdata")
SAMPLE = SHARED / "apps" / "talkingdata" / "train_sample.csv"
needs_sample = pytest.mark.skipif(not SAMPLE.is_file(), reason="the public sample is not beside this checkout")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdClicks]:
    out = tmp_path_factory.mktemp("clicks")
    return out, generate_ad_clicks(out, 900, 7, 3, rate=0.03)


def columns_of(schema: pa.Schema) -> list[tuple[str, str]]:
    return [(field.name, str(field.type)) for field in schema]


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARKER]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch.world.ad_clicks.PART_ROWS", 500)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        generate_ad_clicks(tmp_path / name, 50, seed, 2)
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert len(list((tmp_path / "a" / "clicks").iterdir())) > 1
    other = digests(tmp_path / "c")
    assert all(first[name] != other[name] for name in first.keys() & other.keys())


def test_clicks_are_the_applications_table_and_its_events_become_them(
    made: tuple[Path, AdClicks], tmp_path: Path
) -> None:
    out, world = made
    clicks = pq.read_table(out / "clicks")
    assert columns_of(clicks.schema) == columns_of(schema_of(APP.tables.columns["clicks"]))
    assert clicks.num_rows == world.clicks
    assert pc.count_distinct(clicks["click_id"]).as_py() == world.clicks
    times = clicks["click_time"].cast(pa.int64()).to_numpy()
    assert (np.diff(times) >= 0).all()
    assert world.start_ms <= times[0] <= times[-1] < world.end_ms
    at = pc.binary_join_element_wise(clicks["ip"].cast(pa.string()), clicks["click_time"].cast(pa.string()), " ")
    assert pc.count_distinct(at).as_py() == world.clicks  # the order of an ip's clicks is never in doubt
    archive = records_of_files(APP.streams[0], [out / "events" / "ad-clicks.jsonl"])
    done = backfill(APP, {"ad_clicks": archive}, tmp_path / "data")
    assert done.refused == {"ad_clicks": {}}
    found = pq.read_table(tmp_path / "data" / "clicks")
    assert found["is_attributed"].null_count == world.clicks
    # Clicks of one time stand in one order in both: that of the stream.
    assert found.cast(clicks.schema).drop_columns("is_attributed").equals(clicks.drop_columns("is_attributed"))


def test_true_probabilities_are_calibrated_and_rates_and_heavy_ips_are_as_meant(made: tuple[Path, AdClicks]) -> None:
    out, world = made
    clicks, truth = pq.read_table(out / "clicks"), pq.read_table(out / "truth.parquet")
    assert truth["click_id"].equals(clicks["click_id"])
    label, p = clicks["is_attributed"].to_numpy(), truth["probability"].to_numpy()
    assert world.attributed == label.sum()
    assert p.mean() == pytest.approx(0.03, rel=1e-6)
    for low, high in ((0.0, 0.02), (0.02, 0.2), (0.2, 1.0)):
        inside = (p >= low) & (p < high)
        assert abs((label - p)[inside].sum()) < 4 * np.sqrt((p * (1 - p))[inside].sum())
    assert world.true_auc == pytest.approx(roc_auc_score(label, p))
    _, per_ip = np.unique(clicks["ip"].to_numpy(), return_counts=True)
    assert len(per_ip) == world.ips == 900
    assert np.sort(per_ip)[-9:].sum() > 0.1 * world.clicks  # the first hundredth of the ips
    assert np.median(per_ip) < 20


def test_the_queries_features_learn_it_below_the_ceiling(made: tuple[Path, AdClicks]) -> None:
    out, world = made
    clicks = pq.read_table(out / "clicks")
    engine = Engine()
    engine.execute(APP.sources["tables.sql"])
    engine.execute(f"DEPLOY d {APP.sources['features.sql']}")
    engine.insert("clicks", clicks)
    answers = engine.request("d", clicks)
    names = [name for name in answers.column_names if name not in ("click_id", "is_attributed")]
    features = np.column_stack([answers[name].to_numpy() for name in names])
    label, half = clicks["is_attributed"].to_numpy(), clicks.num_rows // 2
    model = HistGradientBoostingClassifier(max_iter=60, max_depth=4, random_state=1).fit(features[:half], label[:half])
    auc = roc_auc_score(label[half:], model.predict_proba(features[half:])[:, 1])
    assert world.true_auc is not None
    assert 0.7 < auc < world.true_auc


def test_the_application_chooses_the_world(tmp_path: Path) -> None:
    words = ["--users", "30", "--days", "6", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(program, ["generate", "--app", str(SQL / "talkingdata"), *words, "--rate", "0.5"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("30 ips, ")
    assert (tmp_path / "out" / "events" / "ad-clicks.jsonl").is_file()
    for app in ([], ["--app", str(SQL / "jd")]):
        done = CliRunner().invoke(program, ["generate", *app, *words])
        assert done.exit_code == 0, done.output
        assert done.output.startswith("30 users, ")
        assert (tmp_path / "out" / "bo_action").is_dir()
        done = CliRunner().invoke(program, ["generate", *app, *words, "--rate", "0.5"])
        assert done.exit_code == 2
    for text, message in (("", "names no generator"), ('generator = "moon"', "generator 'moon'")):
        folder = tmp_path / "app"
        folder.mkdir(exist_ok=True)
        for file in (SQL / "talkingdata").iterdir():
            changed = file.read_text().replace('generator = "talkingdata"', text)
            (folder / file.name).write_text(changed)
        done = CliRunner().invoke(program, ["generate", "--app", str(folder), *words])
        assert isinstance(done.exception, BadInput)
        assert message in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1, 1), "--users"), ((1, -1, 1), "--seed"), ((1, 1, 0), "--days"), ((1, 1, 1, 0.0), "--rate")],
)
def test_arguments_out_of_their_range_are_refused(
    arguments: tuple[int, int, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        generate_ad_clicks(tmp_path / "out", *arguments)
    assert not (tmp_path / "out").exists()


@needs_sample
def test_the_public_samples_csv_becomes_the_applications_data(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        program, ["generate", "--app", str(SQL / "talkingdata"), "--sample", str(SAMPLE), "--out", f"{tmp_path}/out"]
    )
    assert done.exit_code == 0, done.output
    assert "10,000 clicks in 3 days, 31 of them attributed (0.31%)" in done.output
    clicks = pq.read_table(tmp_path / "out" / "clicks")
    assert columns_of(clicks.schema) == columns_of(schema_of(APP.tables.columns["clicks"]))
    row = clicks.filter(pc.equal(clicks["click_id"], "row-1")).cast(clicks.schema).to_pylist()[0]
    assert (row["ip"], row["channel"], str(row["click_time"])) == (114066, 489, "2017-11-06 23:51:29")
    archive = records_of_files(APP.streams[0], [tmp_path / "out" / "events" / "ad-clicks.jsonl"])
    backfill(APP, {"ad_clicks": archive}, tmp_path / "data")
    found = pq.read_table(tmp_path / "data" / "clicks")
    assert found.cast(clicks.schema).drop_columns("is_attributed").equals(clicks.drop_columns("is_attributed"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        ("ip,app,device,os,channel,click_time,is_attributed\n", "it has no rows"),
        ("ip,app,device,os,channel,click_time\n1,1,1,1,1,2017-11-06 00:00:00\n", "no column is_attributed"),
        ("ip,app,device,os,channel,click_time,is_attributed\n1,x,1,1,1,2017-11-06 00:00:00,0\n", "row 0, column app"),
        ("ip,app,device,os,channel,click_time,is_attributed\n1,1,1,1,1,,0\n", "row 0, column click_time: it is blank"),
    ],
)
def test_a_wrong_csv_is_one_line(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadFile, match=message) as error:
        convert_click_sample(tmp_path / "a.csv", tmp_path / "out")
    assert str(error.value).startswith(str(tmp_path / "a.csv"))
    assert not (tmp_path / "out").exists()
