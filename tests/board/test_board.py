"""The command as a user starts it, beside a real Kafka, Triton, scorer and predict server; what is shown while one of
these is away."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fixtures.artifact import probabilities
from fixtures.browser import opened
from fixtures.scorer import Shop, Stage, answers, poison, running, wait_until
from fixtures.serve import command
from places import REPOSITORY
from playwright.sync_api import Browser, Page, expect
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from deploy.kafka.broker import Broker
from deploy.process import Process, free_ports
from deploy.triton.server import Triton
from streaming.app.configured import application
from streaming.board.events import EventGone, EventReader
from streaming.board.rows import Place
from streaming.cli.commands import app as program
from streaming.config import Config
from streaming.model.encoder import NULL_ID, Encoder

ROWS = "#rows tr:not(.skeleton)"


@dataclass
class Whole:
    """All of it, with the shop's actions scored.

    Attributes:
        last: of each pair the probability of its last action.
    """

    stage: Stage
    config: Config
    broker: Broker
    triton: Triton
    url: str
    board: Process
    last: dict[tuple[str, str], float]


@pytest.fixture(scope="module")
def whole(
    shop: Shop,
    truth: dict[str, float],
    scorer_artifact: Path,
    scorer_encoder: Encoder,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("board")
    triton = Triton(scorer_artifact / "triton", folder / "triton")
    port, predict_port = free_ports(2)
    with Broker(folder / "kafka") as broker, triton:
        stage = Stage(broker.bootstrap, scorer_artifact, triton.grpc_url)
        stage.create_topics(broker)
        half = len(shop.actions) // 2
        stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
        refused = [("actions", key, value) for key, value, _ in poison(shop.actions[0]).values()]
        stage.send(refused)
        file = stage.file(folder)
        serve = command("serve", "--config", file, "--port", predict_port)
        words = command("board", "--config", file, "--port", port, "--predict", f"http://127.0.0.1:{predict_port}")
        config = stage.config()
        # One topic has both forms of CloudEvents, as after the setting was changed.
        with running(config, scorer_encoder):
            stage.collect(half, len(refused))
        stage.send_actions(shop.actions[half:])
        with (
            running(stage.config(kafka={"cloudevents": "structured"}), scorer_encoder),
            Process("serve", serve, folder / "serve.log", cwd=REPOSITORY) as predict,
            Process("board", words, folder / "board.log", cwd=REPOSITORY) as board,
        ):
            stage.collect(len(shop.actions), len(refused))
            url = f"http://127.0.0.1:{port}"
            board.wait_ready(lambda: _is_ready(url), 120)
            predict.wait_ready(lambda: _is_ready(f"http://127.0.0.1:{predict_port}"), 120)
            last = {(a["user_id"], a["sku_id"]): truth[a["request_id"]] for a in shop.actions}
            yield Whole(stage, config, broker, triton, url, board, last)
        assert board.popen.returncode == 0, board.tail()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def _scored(page: Page, whole: Whole, user: str) -> None:
    """An action of a user, sent now, is seen on the page."""
    action = {"user_id": user, "sku_id": "3", "time": 1_459_419_080_000, "type": "1", "model_id": "0", "cate": "8"}
    whole.stage.send_actions([{**action, "br": "1", "request_id": f"request-{user}"}])
    page.get_by_role("searchbox").fill(user)
    button = page.locator("#found").get_by_role("button", name=f"user {user}")

    def found() -> bool:
        page.get_by_role("button", name="Find").click()
        return button.is_visible()

    while not found():
        page.wait_for_timeout(50)


def test_the_ranking_is_what_a_subscriber_sees(browser: Browser, whole: Whole, shop: Shop) -> None:
    best = sorted(whole.last, key=lambda key: -whole.last[key])[:50]
    with opened(browser, whole.url) as page:
        expect(page.locator(ROWS)).to_have_count(50)
        assert page.locator("#rows .open").all_inner_texts() == [" · ".join(key) for key in best]
        expect(page.locator("#rows .chance").first).to_have_text(f"{whole.last[best[0]] * 100:.1f} %")
        brand = str(int(best[0][1]) % 5)
        page.get_by_label("brand", exact=True).select_option(brand)
        of_brand = [key for key in whole.last if int(key[1]) < 10 and str(int(key[1]) % 5) == brand]
        expect(page.locator("#count")).to_contain_text(f"{len(of_brand)} pairs")
        page.get_by_role("button", name="Clear filters").click()
        user = shop.actions[-1]["user_id"]
        page.get_by_role("searchbox").fill(user)
        page.locator("#found").get_by_role("button", name=f"user {user} ").click()
        scores = sum(action["user_id"] == user for action in shop.actions)
        expect(page.locator("#history")).to_contain_text(f"{scores} scores of ")


def test_top_shows_the_same_in_a_terminal(whole: Whole, tmp_path: Path) -> None:
    file = whole.stage.file(tmp_path)
    words = command("top", "--config", file, "--once")
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    best = sorted(whole.last, key=lambda key: -whole.last[key])[:20]
    shown = [line for line in done.stdout.splitlines() if " · " in line][1:]  # behind the heading
    assert len(shown) == 20
    for number, (key, line) in enumerate(zip(best, shown, strict=True), 1):
        assert line.split()[:5] == [str(number), key[0], "·", key[1], f"{whole.last[key]:.1%}"]
    assert f"the best 20 of {len(whole.last):,} pairs" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_top_lives_in_a_terminal_until_it_is_left(whole: Whole, tmp_path: Path) -> None:
    file = whole.stage.file(tmp_path)
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))  # lines, columns
    environment = {**os.environ, "TERM": "xterm-256color"}
    top = subprocess.Popen(
        command("top", "--config", file), cwd=REPOSITORY, stdin=its, stdout=its, stderr=its, env=environment
    )
    os.close(its)
    shown = bytearray()
    try:
        best = max(whole.last, key=lambda key: whole.last[key])
        wait_until(lambda: " · ".join(best).encode() in _read(ours, shown), "the best pair is there")
        os.write(ours, b"\r")  # it is opened
        wait_until(lambda: b"not to be told" in _read(ours, shown), "the pair is opened; no predict server is named")
        os.write(ours, b"q")
        wait_until(lambda: _read(ours, shown) is not None and top.poll() is not None, "it ends")
        assert top.returncode == 0, shown[-2000:].decode(errors="replace")
    finally:
        top.kill()
        top.wait()
        os.close(ours)


def _read(terminal: int, shown: bytearray) -> bytearray:
    """All that a terminal was sent, with what has come since."""
    while select.select([terminal], [], [], 0)[0]:
        try:
            come = os.read(terminal, 65536)
        except OSError:  # it has ended
            break
        if not come:
            break
        shown += come
    return shown


def test_a_score_is_on_the_page_by_itself(browser: Browser, whole: Whole) -> None:
    with opened(browser, whole.url) as page:
        expect(page.locator("#status-text")).to_have_text("Live")
        page.get_by_label("brand", exact=True).select_option("4")
        of_brand = sum(sku in ("4", "9") for _, sku in whole.last)
        page.get_by_role("button", name="Show more").click()
        expect(page.locator(ROWS)).to_have_count(of_brand)
        action = {"user_id": "somebody", "sku_id": "4", "time": 1_459_419_080_000, "type": "1", "model_id": "0"}
        whole.stage.send_actions([{**action, "cate": "8", "br": "1", "request_id": "request-somebody"}])
        expect(page.get_by_role("button", name="Open user somebody, product 4")).to_be_visible()


def test_why_is_the_request_as_it_was_scored(whole: Whole, shop: Shop, scorer_encoder: Encoder) -> None:
    """Features and ids as the store answers each action in its turn; what the model says without each of them."""
    ids = scorer_encoder.encode(answers(shop))
    numbers = {(action["user_id"], action["sku_id"]): n for n, action in enumerate(shop.actions)}
    times = [action["time"] for action in shop.actions]
    with httpx.Client(base_url=whole.url, timeout=60) as client:
        same, compared = 0, 0
        for key in list(numbers)[:12]:
            told = client.get("/api/why", params={"key": json.dumps(key)}).json()
            assert told["missing"] == ""
            assert told["published"] == pytest.approx(whole.last[key], abs=1e-6)
            assert told["request"]["reqId"] == f"request-{numbers[key]}"
            assert told["place"].startswith(whole.stage.topics["actions"])
            assert len(told["features"]) == len(scorer_encoder.fields)
            effects = [abs(feature["moved"]) for feature in told["features"]]
            assert effects == sorted(effects, reverse=True)
            row = ids[numbers[key]]
            assert told["same"] == (abs(told["again"] - told["published"]) < 1e-5)
            compared += 1
            same += told["same"]
            if told["same"] and told["instead"] == "missing":
                moved = {feature["name"]: feature["moved"] for feature in told["features"]}
                for at, field in enumerate(scorer_encoder.fields):
                    without = row.copy()
                    without[at] = NULL_ID
                    expected = float(probabilities(row[None])[0]) - float(probabilities(without[None])[0])
                    assert moved[field.name] == pytest.approx(expected, abs=1e-5), field.name
    # A tenth of the shop's actions are late, and many share a moment; of most others nothing has changed since.
    assert same >= compared * 0.5, f"{same} of {compared}"
    assert len(set(times)) < len(times)


def test_why_is_shown(browser: Browser, whole: Whole) -> None:
    with opened(browser, whole.url) as page:
        page.locator("#rows .open").first.click()
        expect(page.locator("#features tbody tr")).to_have_count(8)
        page.get_by_role("button", name="Show all 41 inputs").click()
        expect(page.locator("#features tbody tr")).to_have_count(41)
        page.get_by_text("The event as it came").click()
        expect(page.locator("#why pre")).to_contain_text('"request_id": "request-')


def test_dead_letters_are_there_by_reason(browser: Browser, whole: Whole, shop: Shop) -> None:
    count = len(poison(shop.actions[0]))
    with opened(browser, whole.url) as page:
        expect(page.locator("#letters")).to_have_text(str(count))
        page.get_by_role("button", name="Why, and which").click()
        expect(page.locator("#dead .letter")).to_have_count(count)
        page.get_by_role("button", name="too large 1").click()
        expect(page.locator("#dead .letter")).to_have_count(1)
        expect(page.locator("#dead .letter")).to_contain_text("events.message_bytes_max is 65536")


def test_an_event_that_is_gone_is_said(whole: Whole) -> None:
    reader = EventReader(whole.config, *application(whole.config))
    try:
        with pytest.raises(EventGone, match="is not in topic scores-"):
            reader.event_of(Place(0, 10**9, 0.5))
    finally:
        reader.close()


def test_triton_may_be_away(browser: Browser, whole: Whole) -> None:
    with opened(browser, whole.url) as page:
        whole.triton.kill()
        try:
            page.locator("#rows .open").first.click()
            expect(page.locator("#why")).to_contain_text("Not to be told: the predict server at http://127.0.0.1")
            expect(page.locator("#pair-p")).to_be_visible()
            expect(page.locator("#status-text")).to_have_text("Live")
        finally:
            whole.triton.start()
        again = page.get_by_role("button", name="Try again")
        while not page.locator("#features").count():  # the predict server finds its Triton again by itself
            page.wait_for_selector("#features, #why .again")
            if again.is_visible():
                again.click()
        expect(page.locator("#features tbody tr")).to_have_count(8)


def test_kafka_may_be_away(browser: Browser, whole: Whole) -> None:
    with opened(browser, whole.url) as page:
        rows = page.locator(ROWS)
        expect(rows).to_have_count(50)
        whole.broker.kill()
        try:
            expect(page.locator("#status-text")).to_have_text("Kafka is away")
            expect(page.locator("#trouble")).to_contain_text("Kafka does not answer")
            expect(rows).to_have_count(50)
            assert httpx.get(f"{whole.url}/readyz").status_code == 503
            page.locator("#rows .open").first.click()
            expect(page.locator("#why .says")).to_contain_text("Not to be told: Kafka")
            page.keyboard.press("Escape")
        finally:
            whole.broker.start()
        expect(page.locator("#status-text")).to_have_text("Live")
        _scored(page, whole, "afterwards")


def _figures(url: str) -> Any:
    with httpx.stream("GET", f"{url}/api/live", params={"limit": 1}) as answer:
        return json.loads(next(answer.iter_lines()))["figures"]


def test_labels_are_those_of_the_actions_and_so_is_the_auc(whole: Whole, shop: Shop) -> None:
    horizon = 5 * 86_400_000
    last = max(action["time"] for action in shop.actions)
    later = {"user_id": "later", "sku_id": "1", "time": last + 2 * horizon, "type": "1", "model_id": "0", "cate": "8"}
    whole.stage.send_actions([{**later, "br": "1", "request_id": "request-later"}])
    orders = [action for action in shop.actions if action["type"] == "4"]
    while (auc := _figures(whole.url)["auc"])["known_to"] != later["time"]:
        time.sleep(0.1)
    labels, probabilities = [], []
    with httpx.Client(base_url=whole.url, timeout=60) as client:
        for key in whole.last:
            for score in client.get("/api/pair", params={"key": json.dumps(key)}).json()["scores"]:
                distances = [
                    order["time"] - score["time"] for order in orders if (order["user_id"], order["sku_id"]) == key
                ]
                within = [distance for distance in distances if 0 < distance <= horizon]
                label = int(bool(within))
                assert score["outcome"] == {"label": label, "after_ms": min(within, default=None)}, (key, score)
                labels.append(label)
                probabilities.append(score["p"])
        assert len(labels) == len(shop.actions)
        # Those that other tests have sent are no orders.
        assert auc["positives"] == sum(labels)
        assert auc["matured"] - len(labels) <= 5
        assert auc["auc"] == pytest.approx(roc_auc_score(labels, probabilities), abs=0.02)
        gauges = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
        assert float(gauges["jd_intent_board_auc"]) == auc["auc"]
        assert float(gauges["jd_intent_board_labels_known_to_seconds"]) == later["time"] / 1000


def test_top_tells_the_auc_of_the_board(whole: Whole, tmp_path: Path) -> None:
    """Read anew, from the events on that the scores are of."""
    auc = _figures(whole.url)["auc"]
    words = command("top", "--config", whole.stage.file(tmp_path), "--once")
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("AUC")]
    assert f"{auc['auc']:.3f}" in line
    assert f"{auc['positives']:,} of {auc['matured']:,} positive" in line


def test_what_is_wrong_on_the_command_line_is_said(tmp_path: Path) -> None:
    file = str(Stage("127.0.0.1:9", tmp_path, "127.0.0.1:9").file(tmp_path))
    wrong: list[tuple[list[str], str]] = [
        (["--look-back", "soon"], "--look-back 'soon' is no age"),
        (["--metrics", "here"], "--metrics 'here' is no URL"),
        (["--predict", "here"], "--predict: 'here' is no URL"),
        (["--host", "0.0.0.0"], "callers need a token"),
    ]
    for words, says in wrong:
        done: Any = CliRunner().invoke(program, ["board", "--config", file, "--port", "0", *words])
        assert says in str(done.exception), words
