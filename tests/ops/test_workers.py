"""`run --workers N`: real workers on a real broker, killed and started again; and how their metrics become one."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from fixtures.asking import get, members
from fixtures.scorer import Shop, Stage, check, wait_until
from fixtures.scorer import running as running_scorer
from fixtures.workers import events, pids, sample, start
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from deploy.process import free_ports
from streaming.config import Config
from streaming.errors import WorkerFailed
from streaming.model.encoder import Encoder
from streaming.ops.workers import Merged, Supervisor


def test_a_worker_that_is_killed_comes_back_and_nothing_is_lost_or_doubled(
    stage: Stage, shop: Shop, truth: dict[str, float], tmp_path: Path
) -> None:
    port = free_ports(1)[0]
    file = stage.file(
        tmp_path,
        kafka={"static_membership": True},
        batch={"messages_max": 20},
        http={"port": port},
        log={"format": "json"},
    )
    third = len(shop.actions) // 3
    stage.send_shop(Shop(shop.actions[:third], shop.users, shop.products, shop.comments))
    with start(file, tmp_path) as supervisor:
        supervisor.wait_ready(lambda: get(port, "/readyz")[0] == 200, 120)
        assert {member.group_instance_id for member in members(stage)} == {"one-0", "one-1"}
        wait_until(lambda: sum(stage.committed()) >= third, "the first third is committed")
        wait_until(lambda: sample(port, "jd_intent_scores_total") == {(): third}, "both workers' scores are added up")
        old = pids(tmp_path)
        os.kill(old[0], signal.SIGKILL)
        stage.send_actions(shop.actions[third : 2 * third])
        wait_until(lambda: pids(tmp_path)[0] != old[0], "a new process")
        assert sample(port, "jd_intent_scores_total")[()] >= third  # what the dead one has counted is kept
        supervisor.wait_ready(lambda: get(port, "/readyz")[0] == 200, 120)
        found = stage.collect(2 * third)
        restarts = sample(port, "jd_intent_worker_restarts_total")
        assert {end: n for end, n in restarts.items() if n} == {(("status", "SIGKILL"), ("worker", "0")): 1}
        assert restarts[("status", "SIGSEGV"), ("worker", "1")] == 0
        wait_until(lambda: sample(port, "jd_intent_scores_total")[()] == 2 * third, "no count is lost")
        wait_until(lambda: len(sample(port, "jd_intent_ready")) == 2, "gauges of both workers")
        assert sample(port, "jd_intent_workers_running") == {(): 2}

        stage.send_actions(shop.actions[2 * third :])  # and while these flow:
        assert supervisor.stop(20) == 0, supervisor.tail()
        assert members(stage) == [] or {member.group_instance_id for member in members(stage)} <= {"one-0", "one-1"}
    assert events(tmp_path, "worker does not stop: killed") == []
    with start(file, tmp_path, 1) as supervisor:
        found = stage.collect(len(shop.actions))
        worker = pids(tmp_path)[0]
        supervisor.popen.kill()  # its worker goes with it
        supervisor.popen.wait()
        wait_until(lambda: not running(worker), "the worker has ended")
    check(found, truth)


def running(pid: int) -> bool:
    """Is there such a process, and not only its exit status?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_no_restart_mends_stops_all_with_its_status(stage: Stage, tmp_path: Path) -> None:
    file = stage.file(tmp_path, model={"artifact": str(tmp_path / "nowhere")}, log={"format": "json"})
    with start(file, tmp_path) as supervisor:
        assert supervisor.popen.wait(120) == 3
    assert "jd-intent-score: worker" in supervisor.tail()
    assert events(tmp_path, "worker died") == []


def test_it_gives_up_after_deaths_in_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config.model_validate(
        {"workers": {"deaths_max": 3, "backoff_ms": 1, "backoff_ms_max": 2}, "http": {"port": 0}}
    )
    supervisor = Supervisor(config, None, 1, tmp_path)
    (worker,) = supervisor.workers
    monkeypatch.setattr(worker, "_argv", [sys.executable, "-c", "raise SystemExit(5)"])
    with pytest.raises(
        WorkerFailed, match=r"worker 0 ended 3 times without having been ready for 60 s, .* with 5"
    ) as why:
        supervisor.run()
    assert why.value.status == 5
    assert b'jd_intent_worker_restarts_total{status="5",worker="0"} 2.0' in generate_latest(supervisor.registry)


def test_counters_never_fall_and_gauges_name_their_worker() -> None:
    text = (
        '# TYPE c_total counter\nc_total{a="x"} %d\n# TYPE g gauge\ng %d\n'
        '# TYPE h histogram\nh_bucket{le="1.0"} %d\nh_bucket{le="+Inf"} %d\nh_count %d\nh_sum 2.5\n'
    )
    merged, registry = Merged(), CollectorRegistry()
    registry.register(merged)

    def shown() -> dict[str, float]:
        families = text_string_to_metric_families(generate_latest(registry).decode())
        return {f"{s.name}{sorted(s.labels.values())}": s.value for family in families for s in family.samples}

    merged.see("0", text % (5, 7, 1, 2, 2))
    merged.see("1", text % (10, 8, 3, 4, 4))
    both = {
        "c_total['x']": 15,
        "g['0']": 7,
        "g['1']": 8,
        "h_bucket['1.0']": 4,
        "h_bucket['+Inf']": 6,
        "h_count[]": 6,
        "h_sum[]": 5,
    }
    assert shown() == both
    merged.died("0")
    assert shown() == {name: value for name, value in both.items() if name != "g['0']"}
    merged.see("0", text % (1, 9, 0, 1, 1))  # its successor
    assert shown() == both | {"c_total['x']": 16, "g['0']": 9, "h_bucket['+Inf']": 7, "h_count[]": 7, "h_sum[]": 7.5}


def test_a_worker_that_hangs_is_killed_and_started_again(
    stage: Stage, shop: Shop, truth: dict[str, float], tmp_path: Path
) -> None:
    port = free_ports(1)[0]
    file = stage.file(
        tmp_path,
        kafka={"static_membership": True},
        http={"port": port, "stalled_s": 8.0},
        log={"format": "json"},
        workers={"backoff_ms": 50},
    )
    half = len(shop.actions) // 2
    stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
    with start(file, tmp_path) as supervisor:
        supervisor.wait_ready(lambda: get(port, "/readyz")[0] == 200, 120)
        stage.collect(half)
        hung = pids(tmp_path)[0]
        os.kill(hung, signal.SIGSTOP)
        stage.send_actions(shop.actions[half:])
        wait_until(lambda: pids(tmp_path)[0] != hung, "a new process")
        assert {event["worker"] for event in events(tmp_path, "worker hangs: killed")} == {0}
        check(stage.collect(len(shop.actions)), truth)
        assert supervisor.stop(30) == 0, supervisor.tail()


def test_a_worker_that_does_not_stop_is_killed_and_the_rest_end_in_order(
    stage: Stage, shop: Shop, truth: dict[str, float], scorer_encoder: Encoder, tmp_path: Path
) -> None:
    port = free_ports(1)[0]
    file = stage.file(tmp_path, http={"port": port}, log={"format": "json"}, workers={"stop_s": 20.0})
    half = len(shop.actions) // 2
    stage.send_shop(Shop(shop.actions[:half], shop.users, shop.products, shop.comments))
    with start(file, tmp_path) as supervisor:
        supervisor.wait_ready(lambda: get(port, "/readyz")[0] == 200, 120)
        stage.collect(half)
        os.kill(pids(tmp_path)[1], signal.SIGSTOP)
        supervisor.popen.send_signal(signal.SIGTERM)
        assert supervisor.popen.wait(60) == 0, supervisor.tail()
    assert [event["worker"] for event in events(tmp_path, "worker does not stop: killed")] == [1]
    assert {event.get("worker") for event in events(tmp_path, "stopped")} == {"0", None}
    assert not any(running(pid) for pid in pids(tmp_path).values())
    with running_scorer(stage.config(), scorer_encoder):
        stage.send_actions(shop.actions[half:])
        check(stage.collect(len(shop.actions)), truth)


def test_the_second_interrupt_kills_the_supervisor_and_its_workers(stage: Stage, shop: Shop, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    file = stage.file(tmp_path, http={"port": port}, log={"format": "json"}, workers={"stop_s": 3600.0})
    stage.send_shop(shop)
    with start(file, tmp_path) as supervisor:
        supervisor.wait_ready(lambda: get(port, "/readyz")[0] == 200, 120)
        os.kill(pids(tmp_path)[0], signal.SIGSTOP)  # it would be waited for
        supervisor.popen.send_signal(signal.SIGINT)
        wait_until(lambda: bool(events(tmp_path, "told to stop")), "it was told")
        assert supervisor.running()
        supervisor.popen.send_signal(signal.SIGINT)
        assert supervisor.popen.wait(60) == -signal.SIGINT, supervisor.tail()
    wait_until(lambda: not any(running(pid) for pid in pids(tmp_path).values()), "all workers are gone")
