"""Draws every panel of the Grafana dashboard from a real run, to look at where there is no Grafana: `make panels`.

    PYTHONPATH=.:tests python -m rigs.panels --minutes 3 --out build/panels/index.html

A real Kafka, Triton, Prometheus, predict server, board and two workers under a supervisor; a shop that sends 300
actions a second, one in a hundred of them poison. A third of the time on, a worker is killed, a third later Triton, for
some seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import time
from pathlib import Path

import httpx
from fixtures.asking import get
from fixtures.panels import ask, draw, panels
from fixtures.prometheus import Prometheus
from fixtures.scorer import wait_until
from fixtures.serve import command, row_of
from fixtures.workers import pids, start
from places import REPOSITORY

from deploy.process import Process, free_ports
from rigs.scorers import pipeline
from rigs.traffic import Traffic

PER_S = 300.0
WORKERS = 2
AWAY_S = 6.0  # Triton
ASK_S = 0.2
POINTS = 200  # of a panel's lines


def run(folder: Path, minutes: float) -> str:
    """The page of a run."""
    scorer_port, predict_port, board_port = free_ports(3)
    with pipeline(folder) as rig:
        file = rig.stage.file(
            folder,
            http={"port": scorer_port},
            log={"format": "json"},
            kafka={"static_membership": True},
            snapshots={"folder": str(folder / "snapshots"), "every_s": 5.0},
        )
        argv = command("serve", "--config", file, "--port", predict_port)
        board = command("board", "--config", file, "--port", board_port)
        targets = {
            "scorer": f"127.0.0.1:{scorer_port}",
            "predict": f"127.0.0.1:{predict_port}",
            "triton": rig.triton.metrics_url.removeprefix("http://").removesuffix("/metrics"),
            "board": f"127.0.0.1:{board_port}",
        }
        traffic = Traffic(rig.stage, PER_S, seed=1, users=5000)  # its events' days go by in seconds: labels mature
        since = time.time()
        with (
            start(file, folder, WORKERS),
            Process("serve", argv, folder / "serve.log", cwd=REPOSITORY),
            Process("board", board, folder / "board.log", cwd=REPOSITORY),
            Prometheus(folder / "prometheus", targets) as server,
            httpx.Client(base_url=f"http://127.0.0.1:{predict_port}", timeout=60) as client,
        ):
            for port in (scorer_port, predict_port):
                wait_until(lambda port=port: get(port, "/readyz")[0] == 200, "all are ready")  # type: ignore[misc]
            traffic.start()

            def ask_for(seconds: float) -> None:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    client.post("/predict", json=row_of(rig.shop.actions[0]))
                    time.sleep(ASK_S)

            third = minutes * 60 / 3
            ask_for(third)
            os.kill(pids(folder)[0], signal.SIGKILL)
            ask_for(third)
            rig.triton.kill()
            ask_for(AWAY_S)
            rig.triton.start()
            ask_for(max(0.0, third - AWAY_S))
            now = time.time()
            traffic.close()
            step_s = max(server.every_s, (now - since) / POINTS)
            title = f"Panels of {minutes:g} minutes at {PER_S:.0f} events/s"
            return draw(title, [(panel, ask(server, panel, since, now, step_s)) for panel in panels()])


def main() -> None:
    parser = argparse.ArgumentParser(prog="make panels")
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, default=Path("build/panels/run"))
    parser.add_argument("--out", type=Path, default=Path("build/panels/index.html"))
    words = parser.parse_args()
    folder = words.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    text = run(folder, words.minutes)
    words.out.parent.mkdir(parents=True, exist_ok=True)
    words.out.write_text(text)
    print(f"panels: {words.out}")


if __name__ == "__main__":
    main()
