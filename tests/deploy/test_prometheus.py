"""Alerts and dashboard: read by Prometheus's own tools, and tried on a Prometheus that scrapes a real pipeline."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
from collections.abc import Iterator, Set
from dataclasses import dataclass
from html import escape
from pathlib import Path

import httpx
import pytest
import yaml
from fixtures.asking import get
from fixtures.panels import DASHBOARD, ask, draw, panels
from fixtures.prometheus import ALERTS, Prometheus
from fixtures.scorer import Shop, Stage, poison, wait_until
from fixtures.serve import command, row_of
from fixtures.workers import pids, start
from places import REPOSITORY

from deploy.environments import prometheus
from deploy.kafka.broker import Broker
from deploy.process import Process, free_ports
from deploy.triton.server import Triton

FOLDER = ALERTS.parent
RULES = {rule["alert"]: rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}

# What half poisoned traffic on a busy machine tells by right.
STREAM = {"DeadLetters", "DeadLettersMany", "ScoresLate"}

# What happens too seldom for a test: so often in a quarter of an hour. What they count is there all the same.
SELDOM = re.compile(r"^(?P<counted>.*(increase|changes)\(\w+(\{[^}]*\})?\[15m\]\)+) > \d+$")


STEP_S = 0.5
SCORED_MIN = 2000
LATER_MS = 10 * 86_400_000  # all actions' days for an order are over by then


def promtool(*words: str) -> None:
    done = subprocess.run([prometheus("promtool"), *words], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "words", [["check", "config", "prometheus.yml"], ["test", "rules", "alerts.test.yml"]], ids=["config", "rules"]
)
def test_promtool_agrees(words: list[str]) -> None:
    promtool(*words)


def test_each_alert_has_a_case_in_which_it_comes_and_ends() -> None:
    ended = set()
    for case in yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]:
        come = set()
        for test in case["alert_rule_test"]:  # in the order of their times
            name, there = test["alertname"], bool(test["exp_alerts"])
            if there:
                come.add(name)
            elif name in come:
                ended.add(name)
    assert ended == RULES.keys()


@dataclass
class Watched:
    """A pipeline and the Prometheus that scrapes it, since when (Unix time)."""

    since: float
    stage: Stage
    triton: Triton
    scorer: Process
    predict: Process
    client: httpx.Client
    prometheus: Prometheus

    def wait_for(self, come: Set[str], quiet: Set[str] = frozenset()) -> None:
        """Until some alerts are told, if only as pending (their time is not over yet), and others are not."""
        told: set[str] = set()

        def happened() -> bool:
            told.clear()
            told.update(name for name, rule in self.prometheus.rules().items() if rule["state"] != "inactive")
            return come <= told and not told & quiet

        try:
            wait_until(happened, f"{sorted(come)} are told, {sorted(quiet)} are not")
        except AssertionError as error:
            raise AssertionError(f"told: {sorted(told)}; {self.scorer.tail(5)}") from error


@pytest.fixture(scope="module")
def triton(scorer_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """One that may be killed."""
    with Triton(scorer_artifact / "triton", tmp_path_factory.mktemp("triton")) as triton:
        yield triton


def empty(server: Prometheus, since: float) -> set[tuple[str, str]]:
    """Title and query of each that nothing can be drawn of."""
    now = time.time()
    return {
        (panel.title, target.query)
        for panel in panels()
        for target, found in zip(panel.targets, ask(server, panel, since, now, STEP_S), strict=True)
        if not any(series.has_numbers() for series in found)
    }


def test_a_scorer_under_load_fills_every_panel_but_those_that_say_when_they_are_empty(
    broker: Broker, scorer_artifact: Path, triton: Triton, tmp_path: Path, shop: Shop
) -> None:
    """Good events, one process, no snapshot, no predict server."""
    stage = Stage(broker.bootstrap, scorer_artifact, triton.grpc_url)
    stage.create_topics(broker)
    (port,) = free_ports(1)
    file = stage.file(tmp_path, http={"port": port})
    marked = {(panel.title, target.query) for panel in panels() if panel.marked for target in panel.targets}
    since = time.time()
    with (
        Process("scorer", command("run", "--config", file), tmp_path / "scorer.log", cwd=REPOSITORY) as scorer,
        Prometheus(tmp_path / "prometheus", {"scorer": f"127.0.0.1:{port}"}) as server,
    ):
        wait_until(lambda: get(port, "/readyz")[0] == 200, "the scorer is ready")
        stage.send_shop(shop)
        sent = len(shop.actions)
        while sent < SCORED_MIN or empty(server, since) - marked:
            stage.send_actions(shop.actions)
            sent += len(shop.actions)
            wait_until(
                lambda sent=sent: server.query("sum(jd_intent_scores_total)") == [sent],  # type: ignore[misc]
                f"{sent} are scored, of them no query has numbers: {empty(server, since) - marked}",
            )
        assert empty(server, since) == marked
        assert scorer.stop(30) == 0


@pytest.fixture(scope="module")
def watched(
    broker: Broker, scorer_artifact: Path, triton: Triton, tmp_path_factory: pytest.TempPathFactory, shop: Shop
) -> Iterator[Watched]:
    """A supervisor whose worker was killed once, a predict server, a board, a Triton; half of the shop's actions sent,
    and one that is so late that their labels are known."""
    folder = tmp_path_factory.mktemp("watched")
    scorer_port, predict_port, board_port = free_ports(3)
    since = time.time()
    stage = Stage(broker.bootstrap, scorer_artifact, triton.grpc_url)
    stage.create_topics(broker)
    file = stage.file(
        folder,
        http={"port": scorer_port},
        log={"format": "json"},
        kafka={"static_membership": True},
        snapshots={"folder": str(folder / "snapshots"), "every_s": 2.0},
        workers={"backoff_ms": 50},
    )
    argv = command("serve", "--config", file, "--port", predict_port)
    board = command("board", "--config", file, "--port", board_port)
    targets = {
        "scorer": f"127.0.0.1:{scorer_port}",
        "predict": f"127.0.0.1:{predict_port}",
        "triton": triton.metrics_url.removeprefix("http://").removesuffix("/metrics"),
        "board": f"127.0.0.1:{board_port}",
    }
    with (
        start(file, folder, 1) as scorer,
        Process("serve", argv, folder / "serve.log", cwd=REPOSITORY) as predict,
        Process("board", board, folder / "board.log", cwd=REPOSITORY),
        Prometheus(folder / "prometheus", targets) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{predict_port}", timeout=60) as client,
    ):
        wait_until(lambda: bool(pids(folder)), "a worker")
        killed = pids(folder)[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: pids(folder)[0] != killed, "another worker")
        for port in (scorer_port, predict_port):
            wait_until(lambda port=port: get(port, "/readyz")[0] == 200, "both are ready")  # type: ignore[misc]
        wait_until(lambda: len(server.query("jd_intent_ready == 1")) == 1, "Prometheus saw it")
        half = len(shop.actions) // 2
        later = {**shop.actions[0], "user_id": "later", "time": shop.actions[-1]["time"] + LATER_MS}
        later["request_id"] = "later"
        stage.send_shop(Shop([*shop.actions[:half], later], shop.users, shop.products, shop.comments))
        for series in ("jd_intent_dead_letters_total", "jd_intent_predict_requests_total"):
            # Twice: a counter is seen to grow only from the second scrape on that has it.
            stage.send([("actions", key, value) for key, value, _ in poison(shop.actions[0]).values()])
            assert client.post("/predict", json=row_of(shop.actions[0])).status_code == 200
            wait_until(lambda name=series: bool(server.query(name)), series)  # type: ignore[misc]
        yield Watched(since, stage, triton, scorer, predict, client, server)


def test_every_panel_is_filled_once_its_condition_is_met(watched: Watched) -> None:
    """After dead letters, snapshots, a worker's death, requests to the predict server, labels on the board."""
    left: set[tuple[str, str]] = set()

    def full() -> bool:
        left.clear()
        left.update(empty(watched.prometheus, watched.since))
        return not left

    try:
        wait_until(full, "all queries have numbers")
    except AssertionError as error:
        raise AssertionError(f"no numbers: {sorted(left)}") from error
    assert watched.prometheus.query('sum(up{job=~"triton|board"})') == [2]
    now = time.time()
    text = draw("Panels", [(panel, ask(watched.prometheus, panel, watched.since, now, STEP_S)) for panel in panels()])
    assert "no data" not in text
    for panel in panels():
        assert f"<h3>{escape(panel.title)}</h3>" in text


def test_alerts_are_marked_on_the_graphs(watched: Watched) -> None:
    (marks,) = json.loads(DASHBOARD.read_text())["annotations"]["list"]
    wait_until(lambda: bool(watched.prometheus.query('ALERTS{alertname="DeadLetters"}')), "an alert")
    assert watched.prometheus.query(marks["expr"].replace('severity!="info"', 'alertname="DeadLetters"'))


def test_a_query_that_is_none_is_refused(watched: Watched) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        watched.prometheus.query("sum by (jd_intent_ready)")


def test_what_is_seldom_is_counted(watched: Watched) -> None:
    seldom = {name: found["counted"] for name, rule in RULES.items() if (found := SELDOM.match(rule["expr"]))}
    assert sorted(seldom) == ["ModelUnsteady", "ScorerRestarts", "SnapshotsFail", "TransactionsRestart", "WorkersDie"]
    for name, counted in seldom.items():
        wait_until(lambda query=counted: bool(watched.prometheus.query(query)), f"{name} has numbers")  # type: ignore[misc]


def test_every_other_alert_comes_when_its_cause_does_and_none_before(watched: Watched, shop: Shop) -> None:
    half = len(shop.actions) // 2
    server = watched.prometheus
    wait_until(lambda: server.query("sum(jd_intent_scores_total)") == [half + 1], "what was sent is scored")
    watched.wait_for(come={"DeadLetters"}, quiet=RULES.keys() - STREAM)

    watched.triton.kill()
    watched.stage.send_actions(shop.actions[half:])
    for _ in range(2):  # the first starts the series, the second lets it grow
        assert watched.client.post("/predict", json=row_of(shop.actions[0])).status_code == 503
        wait_until(lambda: bool(server.query('jd_intent_predict_requests_total{status="503"}')), "a failure is told")
    watched.wait_for(come={"ModelAway", "ScorerNotReady", "ScorerBehind", "PredictFails"})

    watched.triton.start()
    watched.wait_for(come={"ScoresLate", "DeadLettersMany"}, quiet={"ModelAway", "ScorerNotReady"})

    assert watched.scorer.stop(30) == 0
    assert watched.predict.stop(30) == 0
    watched.wait_for(come={"ScorerDown", "PredictDown"})
    (scorers,) = [panel for panel in panels() if panel.title == "Scorers"]
    wait_until(
        lambda: [server.query(target.asked(1.0)) for target in scorers.targets] == [[0], [1]],
        "none is ready, one is not, on the dashboard, too",
    )
    assert {rule["health"] for rule in server.rules().values()} == {"ok"}, server.rules()
