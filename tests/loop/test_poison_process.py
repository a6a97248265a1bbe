"""Messages that kill real workers: started again by their supervisor, those make dead letters of them."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import cast

from fixtures.asking import get
from fixtures.scorer import Shop, Stage, check, wait_until
from fixtures.workers import events, sample
from places import REPOSITORY

from deploy.process import Process, free_ports

# Every Python process with this on its path dies of some rows: of one action by SIGKILL, of one product by a defect.
DEADLY = """
import os, signal
from streaming.store.embedded import EmbeddedStore

answer, restore = EmbeddedStore.answer, EmbeddedStore.restore

def strike(tables):
    for name, column in (("bo_action", "br"), ("bo_product", "a1")):
        if name in tables and "kills" in tables[name][column].to_pylist():
            if name == "bo_action":
                os.kill(os.getpid(), signal.SIGKILL)
            raise RecursionError("too deep for this test")

def deadly_answer(self, events):
    strike(events.rows)
    return answer(self, events)

def deadly_restore(self, events):
    strike(events.rows)
    restore(self, events)

EmbeddedStore.answer, EmbeddedStore.restore = deadly_answer, deadly_restore
"""

METRIC = "jd_intent_dead_letters_total"


def start(file: Path, folder: Path) -> Process:
    """`jd-intent-score run --workers 2`, with `DEADLY` in each worker."""
    (folder / "deadly").mkdir(exist_ok=True)
    (folder / "deadly" / "sitecustomize.py").write_text(DEADLY)
    argv = [sys.executable, "-m", "streaming", "run", "-c", str(file), "--workers", "2"]
    path = {"PYTHONPATH": f"{folder / 'deadly'}:{REPOSITORY}"}
    return Process("supervisor", argv, folder / "scorer.log", {**os.environ, **path}, cwd=REPOSITORY)


def test_messages_that_kill_their_workers_become_dead_letters_and_all_others_are_scored(
    stage: Stage, shop: Shop, truth: dict[str, float], tmp_path: Path
) -> None:
    port = free_ports(1)[0]
    file = stage.file(
        tmp_path,
        kafka={"static_membership": True},
        batch={"messages_max": 50},
        http={"port": port},
        log={"format": "json"},
        poison={"tries_max": 2},
        workers={"deaths_max": 40, "backoff_ms": 50},
    )
    half = len(shop.actions) // 2
    action = {**shop.actions[0], "br": "kills", "request_id": "kills"}
    product = {**shop.products[0], "sku_id": "nobody's", "a1": "kills"}
    deadly = [("actions", action["user_id"], action), ("products", "nobody's", product)]
    stage.send_shop(Shop(shop.actions[: half // 2], shop.users, shop.products, shop.comments))
    with start(file, tmp_path) as supervisor:
        stage.collect(half // 2)
        stage.send([(topic, key.encode(), json.dumps(row).encode()) for topic, key, row in deadly])
        stage.send_actions(shop.actions[half // 2 : half])
        found = stage.collect(half, 2)
        wait_until(lambda: ("reason", "kills_process") in sum(sample(port, METRIC), ()), "its reason is on /metrics")
        assert supervisor.running(), supervisor.tail()
        assert supervisor.stop(30) == 0, supervisor.tail()
    died = events(tmp_path, "worker died")
    assert {event["status"] for event in died} == {signal.SIGKILL.name, "1"}
    letters = {}
    for letter in found.dead:
        headers = dict(cast(list[tuple[str, bytes]], letter.headers()))
        letters[headers["__connect.errors.topic"].decode()] = headers["__connect.errors.exception.message"].decode()
        assert headers["__connect.errors.exception.class.name"] == b"streaming.poison.KillsProcess"
        assert headers["__connect.errors.stage"] == b"features"
    assert letters.keys() == {stage.topics["actions"], stage.topics["products"]}
    assert letters[stage.topics["actions"]] == "2 processes died when this record was prepared alone"
    # Every worker reads the products: two may die of this one at the same time, the third death of it.
    assert re.fullmatch(
        "[23] processes died when this record was prepared alone: RecursionError: too deep for this test",
        letters[stage.topics["products"]],
    )
    # All of the log is read again for the state, and what was put aside is not touched.
    with start(file, tmp_path) as supervisor:
        stage.send_actions(shop.actions[half:])
        found = stage.collect(len(shop.actions), 2)
        wait_until(lambda: get(port, "/readyz")[0] == 200, "all workers are ready")
        assert supervisor.stop(30) == 0, supervisor.tail()
    assert events(tmp_path, "worker died") == died
    check(found, truth)
    assert len(found.dead) == 2
