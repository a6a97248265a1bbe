"""`jd-intent-batch match`: whom it chooses, beside choosing by hand, and what it says to expect."""

from __future__ import annotations

import csv
import json
import shutil
from datetime import date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from fixtures.jd import jd
from hypothesis import given
from hypothesis import strategies as st
from places import REPOSITORY, SQL
from typer.testing import CliRunner

import batch.cli.commands
from batch.dataset.write import prepare_dataset
from batch.features.data_layout import BadData
from batch.features.extract import extract_features
from batch.match import Candidates, Rule, choose, expected_of, for_a_spreadsheet, match_day
from batch.report.figures import wilson
from batch.report.probability_metrics import measure
from batch.train.verdict import Evaluated, write_evaluated
from batch.world.generate import generate_world
from streaming.app.folder import load_app
from streaming.app.scores import ScoreRoles, score_roles
from streaming.errors import BadInput

USER, ITEM = "user_id", "sku_id"
ZONE = ZoneInfo("Asia/Shanghai")


def test_the_application_says_who_and_what() -> None:
    assert score_roles(jd()) == ScoreRoles((USER,), (ITEM,))
    assert score_roles(load_app(SQL / "talkingdata")) == ScoreRoles(("ip",), ())
    assert score_roles(load_app(REPOSITORY / "tests" / "cases" / "apps" / "cards")) == ScoreRoles(("card",), ())


small = st.integers(0, 3)
requests = st.lists(st.tuples(small, small, st.integers(0, 1), st.integers(0, 9), small), max_size=40)
rules = st.builds(
    Rule,
    threshold=st.sampled_from([None, 0.0, 1 / 3, 1.0]),
    per_user=st.sampled_from([None, 1, 2]),
    per_item=st.sampled_from([None, 1, 2]),
)


def candidates(rows: list[tuple[int, int, int, int, int]]) -> Candidates:
    columns = np.array(rows, np.int64).reshape(-1, 5)
    users, items, days, times, probabilities = columns.T
    return Candidates(users, items, days, times, probabilities / 3)


@given(requests, rules)
def test_whom_it_chooses_is_chosen_by_hand(rows: list[tuple[int, int, int, int, int]], rule: Rule) -> None:
    newest: dict[tuple[int, int, int], int] = {}
    for at, (user, item, day, time, _) in enumerate(rows):
        before = newest.get((day, user, item))
        if before is None or time >= rows[before][3]:
            newest[day, user, item] = at
    best = sorted(newest.values(), key=lambda at: (-rows[at][4], -rows[at][3], at))
    kept = [at for at in best if rule.threshold is None or rows[at][4] / 3 >= rule.threshold]
    for column, most in ((0, rule.per_user), (1, rule.per_item)):
        taken: dict[tuple[int, int], int] = {}
        left = []
        for at in kept:
            key = (rows[at][2], rows[at][column])
            taken[key] = taken.get(key, 0) + 1
            if most is None or taken[key] <= most:
                left.append(at)
        kept = left
    found, chosen = choose(candidates(rows), rule)
    assert found.tolist() == sorted(newest.values())
    assert chosen.tolist() == kept


def test_what_to_expect_is_counted() -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.random(2000)
    labels = (generator.random(2000) < probabilities / 5).astype(np.int8)
    found = Candidates(
        np.arange(2000), np.zeros(2000, np.int64), np.repeat([1, 2], 1000), np.arange(2000), probabilities
    )
    told = expected_of(found, labels, Rule(threshold=0.9))
    chosen = probabilities >= 0.9
    assert (told.days, told.chosen, told.right) == (2, chosen.sum(), labels[chosen].sum())
    assert told.precision == pytest.approx(labels[chosen].mean())
    assert told.lift == pytest.approx(labels[chosen].mean() / labels.mean())
    assert told.precision_interval == wilson(told.right, told.chosen)
    for few in (expected_of(found, np.zeros(2000, np.int8), Rule()), expected_of(found, labels, Rule(threshold=1.0))):
        assert (few.precision, few.lift, few.precision_interval) == (None, None, None)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world, its features and dataset, and the predictions of a model: made here, as OneFlow is not."""
    work = tmp_path_factory.mktemp("match")
    generate_world(work / "data", 500, 3, 70)
    extract_features(work / "data", work / "features")
    prepare_dataset(work / "features", work / "data", work / "dataset")
    generator = np.random.default_rng(0)
    tables = []
    for part in ("val", "test"):
        table = pq.read_table(work / "dataset" / f"{part}.parquet")
        labels = table["label"].to_numpy()
        odds = generator.normal(size=len(labels)) + 2 * labels - 2
        columns = {
            "part": pa.array([part] * len(labels)),
            "request_id": table["request_id"],
            "probability": pa.array(1 / (1 + np.exp(-odds)), pa.float32()),
            "label": table["label"],
        }
        tables.append(pa.table(columns))
    predictions = pa.concat_tables(tables)
    (work / "evaluation").mkdir()
    pq.write_table(predictions, work / "evaluation" / "predictions.parquet")
    test = predictions.filter(pa.compute.equal(predictions["part"], "test"))
    metrics = measure(test["label"].to_numpy().astype(np.float32), test["probability"].to_numpy(), 0.05)
    write_evaluated(work / "evaluation", Evaluated("sha256:weights", test=metrics))
    return work


def a_day(work: Path) -> date:
    """In the middle of the test part."""
    times = pq.read_table(work / "dataset" / "test.parquet")["time"].to_pylist()
    middle: datetime = times[len(times) // 2]
    return middle.replace(tzinfo=ZoneInfo("UTC")).astimezone(ZONE).date()


def local_day(epoch_ms: int) -> date:
    return datetime.fromtimestamp(epoch_ms / 1000, ZONE).date()


def matched(work: Path, out: Path, rule: Rule, **more: Any) -> Any:
    return match_day(jd(), work / "features", work / "data", work / "evaluation", out, a_day(work), rule, **more)


def test_a_day_s_users_and_items_by_hand(work: Path, tmp_path: Path) -> None:
    """Ranked as a plain loop over predictions and features ranks them; validation likewise."""
    day, rule = a_day(work), Rule(threshold=0.2, per_user=2, per_item=5)
    told = matched(work, tmp_path / "out", rule)
    of_request = {row["reqId"]: row for row in pq.read_table(work / "data" / "flattenRequest_clean").to_pylist()}
    rows = pq.read_table(work / "evaluation" / "predictions.parquet").to_pylist()

    def picked(of_day: date, part: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        newest: dict[tuple[str, str], dict[str, Any]] = {}
        for row in rows:
            request = of_request[row["request_id"]]
            when = request["time"]
            if local_day(when) != of_day or (part is not None and row["part"] != part):
                continue
            pair = (request[USER], request[ITEM])
            if pair not in newest or when > newest[pair]["when"]:
                newest[pair] = {**row, "when": when, "pair": pair}
        best = sorted(newest.values(), key=lambda row: -row["probability"])
        kept = [row for row in best if row["probability"] >= 0.2]
        for place, most in ((0, 2), (1, 5)):
            seen: dict[str, int] = {}
            left = []
            for row in kept:
                key = row["pair"][place]
                seen[key] = seen.get(key, 0) + 1
                if seen[key] <= most:
                    left.append(row)
            kept = left
        return [*newest.values()], kept

    candidates, chosen = picked(day, None)
    table = pq.read_table(tmp_path / "out" / "matches.parquet")
    assert table.column_names == [
        "rank",
        "request_id",
        USER,
        ITEM,
        "event_time",
        "purchase_probability",
        "request_time",
    ]
    assert table["request_id"].to_pylist() == [row["request_id"] for row in chosen]
    moments = [datetime.fromtimestamp(row["when"] / 1000, ZONE) for row in chosen]
    assert table["request_time"].to_pylist() == moments
    assert table.schema.field("request_time").type == pa.timestamp("ms", "Asia/Shanghai")
    assert [*zip(table[USER].to_pylist(), table[ITEM].to_pylist(), strict=True)] == [row["pair"] for row in chosen]
    assert table["rank"].to_pylist() == list(range(1, len(chosen) + 1))
    assert (told.candidates, told.chosen) == (len(candidates), len(chosen))
    assert told.chosen > 3
    kept = json.loads((tmp_path / "out" / "match.json").read_bytes())
    assert json.loads(table.schema.metadata[b"match"]) == kept
    assert kept["weights_sha256"] == "sha256:weights"

    times = [of_request[row["request_id"]]["time"] for row in rows if row["part"] == "val"]
    days = {local_day(at) for at in times} - {local_day(min(times)), local_day(max(times)), day}
    found = [picked(at, "val") for at in sorted(days)]
    assert told.expected.days == len(days) > 2
    assert told.expected.candidates == sum(len(all_of) for all_of, _ in found)
    assert told.expected.chosen == sum(len(some) for _, some in found)
    assert told.expected.right == sum(row["label"] for _, some in found for row in some)
    assert told.expected.lift > 1.5


def test_the_command_says_what_to_expect(work: Path, tmp_path: Path) -> None:
    words = ["match", "--features", work / "features", "--data", work / "data", "--evaluation", work / "evaluation"]
    words += ["--day", f"{a_day(work)}", "--per-user", "1", "--csv", "--out", tmp_path / "out"]
    done = CliRunner().invoke(batch.cli.commands.app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "out" / "match.json").read_bytes())
    first, second, third = done.output.splitlines()
    assert f"{told['chosen']:,} of {told['candidates']:,} pairs chosen, of {told['users']:,} {USER} and" in first
    assert f"precision {told['expected']['precision']:.1%} (" in second
    assert f"lift {told['expected']['lift']:.2f} (" in second
    assert third == f"matches: {tmp_path / 'out' / 'matches.csv'}"
    with (tmp_path / "out" / "matches.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == told["chosen"] == len({row[USER] for row in rows})
    probabilities = [float(row["purchase_probability"]) for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)


def test_no_text_of_the_csv_is_a_formula(tmp_path: Path) -> None:
    """Ids come with the events: a spreadsheet must not run them. What is a number stays one."""
    given_texts = ["=1+1", '+SUM(A1)"', "-2+3", "@x", "\t=1", "\r=1", "-7", "+1.5", "a=b", "", "'x", None]
    numbers = list(range(len(given_texts)))
    written = for_a_spreadsheet(pa.table({"n": numbers, "user": given_texts}))
    pyarrow.csv.write_csv(written, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        found = [row["user"] for row in csv.DictReader(file)]
    assert found[:6] == [f"'{text}" for text in given_texts[:6]]
    assert found[6:] == [text or "" for text in given_texts[6:]]
    assert written["n"].to_pylist() == numbers


def test_mistakes_are_one_line(work: Path, tmp_path: Path) -> None:
    def refused(kind: type[Exception], why: str, run: Any) -> None:
        with pytest.raises(kind, match=why) as told:
            run()
        assert "\n" not in str(told.value)
        assert not (tmp_path / "out").exists()

    out = tmp_path / "out"
    refused(BadInput, "--threshold must be between 0 and 1, not nan", lambda: Rule(threshold=float("nan")))
    refused(BadInput, "--per-user must be at least 1, not 0", lambda: Rule(per_user=0))
    folders = (work / "features", work / "data", work / "evaluation", out)
    refused(BadData, "no request of 1999-01-01", lambda: match_day(jd(), *folders, date(1999, 1, 1), Rule()))
    refused(BadInput, "--day 9999-12-31 is the calendar's last", lambda: match_day(jd(), *folders, date.max, Rule()))
    clicks = load_app(SQL / "talkingdata")
    refused(
        BadInput, "--per-item has no meaning", lambda: match_day(clicks, *folders, date(2017, 1, 1), Rule(per_item=1))
    )
    for content in (b"", b"PAR1", None):
        wrong = shutil.copytree(work / "evaluation", tmp_path / f"wrong-{content!r}")
        if content is None:
            pq.write_table(pa.table({"request_id": ["a"]}), wrong / "predictions.parquet")
        else:
            (wrong / "predictions.parquet").write_bytes(content)
        refused(
            BadData,
            r"predictions\.parquet: not the predictions",
            lambda wrong=wrong: matched(work, out, Rule(), validation=wrong),
        )
    bare = tmp_path / "bare"
    bare.mkdir()
    refused(
        BadData, r"predictions\.parquet: there is no such file", lambda: matched(work, out, Rule(), validation=bare)
    )
