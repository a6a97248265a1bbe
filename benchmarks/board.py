"""The board under a burst: 50,000 scores a second for a minute, its memory, and clicks in a real Chromium meanwhile.

    python -m benchmarks.board [--seconds 60] [--per-s 50000] [--actions-per-s 50000]

A broker and a board of its own; the scores are written by this program, of pairs that come again and new ones, and the
actions that labels are read from (0: none), one order in fifty. Each second a pair is opened: the time is from the
click to its probability on the page. Last, single scores: the time from the producer to the ranking on the page.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from confluent_kafka import Producer
from playwright.sync_api import Page, sync_playwright

from deploy.environments import REPOSITORY, chromium
from deploy.kafka.broker import Broker, topics_of
from deploy.process import Process, free_ports
from streaming.app.folder import load_app
from streaming.app.topics import TopicNames

USERS, ITEMS, POOL = 40_000, 2_000, 100_000
SINGLE = 20

# What a person waits for: it is looked at in each frame.
CLICK = """() => new Promise((seen) => {
  document.querySelector('#pair-body').replaceChildren();
  const began = performance.now();
  document.querySelector('#rows .open').click();
  const look = () => document.querySelector('#pair-p') ? seen(performance.now() - began) : requestAnimationFrame(look);
  look();
})"""


def score(user: str, item: str, probability: float) -> bytes:
    """As the scorer of sql/jd writes it."""
    fields = {"request_id": f"{user}_{item}", "user_id": user, "sku_id": item, "event_time": int(time.time() * 1000)}
    return json.dumps({**fields, "purchase_probability": probability, "model_version": "1"}).encode()


def action(user: str, item: str, number: int) -> bytes:
    """As the shop of sql/jd writes it."""
    fields = {"user_id": user, "sku_id": item, "time": int(time.time() * 1000), "type": "1" if number % 50 else "4"}
    return json.dumps({**fields, "model_id": "0", "cate": "8", "br": "1", "request_id": f"{user}_{item}"}).encode()


def flood_of_actions(bootstrap: str, topic: str, seconds: float, per_s: int) -> None:
    """Writes actions at an even pace."""
    random = np.random.default_rng(1)
    users, items = random.integers(0, USERS, POOL).tolist(), random.integers(0, ITEMS, POOL).tolist()
    records = [
        (str(user).encode(), action(str(user), str(item), number))
        for number, (user, item) in enumerate(zip(users, items, strict=True))
    ]
    write(bootstrap, topic, records, seconds, per_s, "actions")


def flood(bootstrap: str, topic: str, seconds: float, per_s: int) -> None:
    """Writes scores at an even pace."""
    random = np.random.default_rng(1)
    users, items = random.integers(0, USERS, POOL).tolist(), random.integers(0, ITEMS, POOL).tolist()
    chances = (random.random(POOL) ** 6).tolist()
    records = [(None, score(str(u), str(i), p)) for u, i, p in zip(users, items, chances, strict=True)]
    write(bootstrap, topic, records, seconds, per_s, "scores")


def write(
    bootstrap: str, topic: str, records: Sequence[tuple[bytes | None, bytes]], seconds: float, per_s: int, what: str
) -> None:
    """Writes keys and values, over and over, at an even pace."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4"})
    began, sent = time.monotonic(), 0
    while (passed := time.monotonic() - began) < seconds:
        while sent < int(passed * per_s):
            try:
                key, value = records[sent % len(records)]
                producer.produce(topic, value, key)
                sent += 1
            except BufferError:
                producer.poll(0.01)
        producer.poll(0.005)
    producer.flush(30)
    print(f"sent {sent:,} {what} in {time.monotonic() - began:.1f} s", flush=True)


def resident_mb(pid: int) -> int:
    """Megabytes of a process in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1000 if found else 0


def measure(
    page: Page, board: Process, bootstrap: str, topics: TopicNames, seconds: float, per_s: int, actions_per_s: int
) -> None:
    """The burst, then single scores."""
    spawn, topic = multiprocessing.get_context("spawn"), topics.scores
    if actions_per_s:
        of_actions = (bootstrap, topics.scored[0], seconds, actions_per_s)
        spawn.Process(target=flood_of_actions, args=of_actions, daemon=True).start()
    writer = spawn.Process(target=flood, args=(bootstrap, topic, seconds, per_s))
    writer.start()
    page.wait_for_selector("#rows tr:not(.skeleton)")
    clicks, memory = [], []
    while writer.is_alive():
        page.wait_for_timeout(700)
        clicks.append(float(page.evaluate(CLICK)))
        page.keyboard.press("Escape")
        memory.append(resident_mb(board.pid))
    late = sorted(clicks)
    print(f"AUC: {page.inner_text('#auc')}, {page.inner_text('#auc-note')}")
    print(f"throughput at the end: {page.inner_text('#rate')}; pairs: {page.inner_text('#count')}")
    print(
        f"clicks: {len(clicks)}, median {statistics.median(clicks):.0f} ms, p95 {late[int(0.95 * len(late))]:.0f} ms, "
    )
    print(f"  most {late[-1]:.0f} ms")
    print(f"memory in MB, evenly over the time: {memory[:: max(1, len(memory) // 12)]}")
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    waits = []
    for n in range(SINGLE):
        producer.produce(topic, score(f"single-{n}", "1", 1.0))
        began = time.monotonic()
        producer.flush(10)
        page.wait_for_selector(f'#rows .open[aria-label*="single-{n},"]')
        waits.append((time.monotonic() - began) * 1000)
    print(f"score to page: {SINGLE}, median {statistics.median(waits):.0f} ms, most {max(waits):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--per-s", type=int, default=50_000)
    parser.add_argument("--actions-per-s", type=int, default=50_000)
    words = parser.parse_args()
    topics = TopicNames.of(load_app(REPOSITORY / "sql" / "jd"), {})
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder, Broker(Path(folder) / "kafka") as broker:
        broker.create_topics(topics_of(topics))
        file = Path(folder) / "scorer.toml"
        file.write_text(f'app = "sql/jd"\n[kafka]\nbootstrap_servers = "{broker.bootstrap}"\n[http]\nport = 0\n')
        argv = [sys.executable, "-m", "streaming", "board", "--config", str(file), "--port", str(port)]
        url = f"http://127.0.0.1:{port}/"
        with (
            Process("the board", argv, Path(folder) / "board.log", cwd=REPOSITORY) as board,
            sync_playwright() as driver,
        ):
            board.wait_ready(lambda: _is_ready(url), 60)
            arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
            arguments += ["--no-first-run", "--disable-component-update", "--disable-sync"]
            with driver.chromium.launch(executable_path=chromium(), args=arguments) as browser:
                page = browser.new_page()
                page.goto(url)
                measure(page, board, broker.bootstrap, topics, words.seconds, words.per_s, words.actions_per_s)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    main()
