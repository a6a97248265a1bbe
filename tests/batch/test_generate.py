"""The generated world: the tutorial's schema, the same bytes for the same seed, and probabilities that are true."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from places import SHARED, SQL
from sklearn.metrics import roc_auc_score

from batch.dataset.label import events_of, later_event
from batch.world.generate import World, generate_world
from batch.world.intent import DAY_RHYTHM, IntentChain, day_share, time_of_day
from streaming.app.folder import load_app
from streaming.app.later_event import horizon_of
from streaming.files.output_folder import MARKER

SAMPLE = SHARED / "jd"
TABLES = ("bo_action", "bo_comment", "bo_product", "bo_user", "flattenRequest_clean")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, World]:
    out = tmp_path_factory.mktemp("world")
    return out, generate_world(out, users=1200, seed=7)


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MARKER]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the tutorial's sample data is not beside this checkout (../shared/jd)")
def test_schema_is_the_samples_own(made: tuple[Path, World]) -> None:
    for table in TABLES:
        assert (
            pq.read_table(made[0] / table)
            .schema.remove_metadata()
            .equals(pq.read_table(SAMPLE / table).schema.remove_metadata())
        )


def test_the_same_seed_gives_the_same_bytes_and_chunks_stand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batch.world.generate.CHUNK_USERS", 20)
    monkeypatch.setattr("batch.world.generate.CHUNK_PRODUCTS", 150)
    generate_world(tmp_path / "a", users=50, seed=3, days=20)
    generate_world(tmp_path / "b", users=50, seed=3, days=20)
    generate_world(tmp_path / "c", users=50, seed=4, days=20)
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "a" / "bo_action").iterdir()) == [
        f"part-0000{i}.parquet" for i in range(3)
    ]
    assert len(list((tmp_path / "a" / "bo_comment").iterdir())) == 2
    other = digests(tmp_path / "c")
    assert all(first[name] != other[name] for name in first)


def test_requests_are_the_actions_before_the_last_five_days(made: tuple[Path, World]) -> None:
    out, world = made
    actions, requests = pq.read_table(out / "bo_action"), pq.read_table(out / "flattenRequest_clean")
    early = actions.filter(pc.less(actions["time"], world.requests_end_ms))
    assert early.num_rows == requests.num_rows == world.requests
    assert actions.num_rows == world.actions > world.requests
    assert early["pair_id"].equals(requests["pair_id"])
    assert early["ingestionTime"].equals(requests["eventTime"])
    assert pc.count_distinct(requests["reqId"]).as_py() == requests.num_rows
    # No user acts twice at one time: the order of a user's actions is never in doubt.
    user_and_time = pc.binary_join_element_wise(requests["user_id"], requests["time"].cast(pa.string()), " ")
    assert pc.count_distinct(user_and_time).as_py() == requests.num_rows
    row = requests.slice(1000, 1).to_pylist()[0]
    local = (pa.scalar(row["time"] + 8 * 3_600_000, pa.timestamp("ms")).as_py()).strftime("%Y-%m-%d %H:%M:%S")
    assert row["time1"] == local
    assert row["reqId"] == f"{row['user_id']}_{row['sku_id']}_{local}"
    assert row["pair_id"] == f"{row['user_id']}_{row['sku_id']}"


def test_true_probabilities_are_calibrated_and_separate(made: tuple[Path, World]) -> None:
    out, world = made
    requests, truth = pq.read_table(out / "flattenRequest_clean"), pq.read_table(out / "truth.parquet")
    assert truth["reqId"].equals(requests["reqId"])
    app = load_app(SQL / "jd")
    later = app.settings.label.later_event
    assert later is not None
    rows, true = events_of(app, later, out)
    orders = rows.filter(pa.array(true))
    times = [
        table[name].cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()
        for table, name in ((requests, "eventTime"), (orders, "ingestionTime"))
    ]
    label = later_event([requests["pair_id"]], times[0], [orders["pair_id"]], times[1], horizon_of(app))
    p = truth["probability"].to_numpy()
    assert world.positives == label.sum()
    assert 0.02 < label.mean() < 0.10
    assert world.true_auc == pytest.approx(roc_auc_score(label, p), abs=1e-4)
    assert world.true_auc is not None
    assert world.true_auc > 0.85
    # Requests of a pair share their fate, so the error of a mean is that of the pairs, not of the rows.
    pair = pc.dictionary_encode(requests["pair_id"]).combine_chunks()
    pair = pair.indices.to_numpy() if isinstance(pair, pa.DictionaryArray) else pair.chunk(0).indices.to_numpy()
    for low, high in ((0.0, 0.02), (0.02, 0.15), (0.15, 1.0)):
        inside = (p >= low) & (p < high)
        error = np.bincount(pair[inside], (label - p)[inside])
        assert abs(error.sum()) < 4 * np.sqrt((error**2).sum())


def test_closed_form_agrees_with_simulation() -> None:
    """The fundamental matrix and the recursion against many walks of one state, each step drawn by itself."""
    chain, rng = IntentChain(), np.random.default_rng(11)
    constant, share = chain.order_within_horizon
    walks, intent, state, weekday, now_s = 40_000, 24, 9, 2, 15.0 * 3600
    expected = constant[0, intent, state, weekday] + share[0, intent, state, weekday] * day_share(np.array(now_s))
    bought = np.zeros(walks, bool)
    s: NDArray[np.int64] = np.full(walks, state)
    day: NDArray[np.int64] = np.zeros(walks, np.int64)
    live: NDArray[np.int64] = np.arange(walks)
    starting: NDArray[np.bool_] = np.zeros(walks, bool)
    while len(live):
        odds = np.where(starting[:, None], chain.first[intent, s], chain.step[intent, s]).cumsum(axis=1)
        event = (rng.random(len(live))[:, None] >= odds / odds[:, -1:]).sum(axis=1)
        s = chain.after[s, event]
        bought[live[event == 4]] = True
        left = event == 0
        gap = (rng.random(len(live))[:, None] >= chain.gap[intent, s, (weekday + day) % 7]).sum(axis=1) + 1
        day = np.where(left, day + gap, day)
        late = (day > 5) | ((day == 5) & (time_of_day(rng.random(len(live))) >= now_s))
        keep = (event != 4) & (~left | ((rng.random(len(live)) < chain.lasts[intent, s]) & ~late))
        live, s, day, starting = live[keep], s[keep], day[keep], left[keep]
    assert bought.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / walks))


def test_days_and_weeks_have_a_rhythm(made: tuple[Path, World]) -> None:
    local_hours = (pq.read_table(made[0] / "bo_action")["time"].to_numpy() // 3_600_000 + 8) % 24
    share = np.bincount(local_hours, minlength=24) / len(local_hours)
    assert np.abs(share - DAY_RHYTHM / DAY_RHYTHM.sum()).max() < 0.015
    uniform = np.arange(100) / 100
    assert day_share(time_of_day(uniform)) == pytest.approx(uniform)


def test_some_users_and_products_are_cold(made: tuple[Path, World]) -> None:
    out, world = made
    requests = pq.read_table(out / "flattenRequest_clean")
    for key, table in (("user_id", "bo_user"), ("sku_id", "bo_product")):
        seen, known = pc.unique(requests[key]), pq.read_table(out / table)[key]
        share_known = pc.mean(pc.is_in(seen, known).cast(pa.float64())).as_py()
        assert 0.6 < share_known < 0.97
        cut = world.start_ms + (world.requests_end_ms - world.start_ms) * 9 // 10
        early = requests.filter(pc.less(requests["time"], cut))
        late = requests.filter(pc.greater_equal(requests["time"], cut))
        assert pc.any(pc.invert(pc.is_in(late[key], pc.unique(early[key])))).as_py()


def test_a_user_who_does_nothing_makes_a_world_all_the_same(tmp_path: Path) -> None:
    worlds = [generate_world(tmp_path, users=1, seed=seed, days=6) for seed in range(6)]
    assert min(world.actions for world in worlds) == 0
    assert pq.read_table(tmp_path / "bo_action").num_rows == worlds[-1].actions


def test_arguments_out_of_range_are_refused(tmp_path: Path) -> None:
    for users, seed, name in ((0, 1, "--users"), (-3, 1, "--users"), (1, -1, "--seed")):
        with pytest.raises(ValueError, match=name):
            generate_world(tmp_path / "new", users, seed)
    with pytest.raises(ValueError, match="--days"):
        generate_world(tmp_path / "new", users=1, seed=1, days=5)
    assert not (tmp_path / "new").exists()
