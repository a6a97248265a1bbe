"""A real Prometheus that scrapes what a test runs."""

from __future__ import annotations

import json
import math
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from deploy.environments import prometheus
from deploy.process import Process, free_ports

REPOSITORY = Path(__file__).resolve().parent.parent
ALERTS = REPOSITORY / "deploy" / "prometheus" / "alerts.yml"
EVERY_S = 0.5


class Prometheus:
    """One server with the project's alerts, in a folder of its own; a context manager.

    Args:
        targets: job → `host:port`; scraped, and rules evaluated, every half second.
    """

    def __init__(self, folder: Path, targets: Mapping[str, str]) -> None:
        self.folder = folder
        config = {
            "global": {"scrape_interval": f"{EVERY_S * 1000:.0f}ms", "evaluation_interval": f"{EVERY_S * 1000:.0f}ms"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
            ],
        }
        folder.mkdir(parents=True)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Prometheus:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        argv = [prometheus("prometheus"), f"--config.file={self.folder}/prometheus.yml"]
        argv += [f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
        self.process = Process("prometheus", argv, self.folder / "prometheus.log")
        try:
            self.process.wait_ready(self._ready, 60)
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def query(self, expression: str) -> list[float]:
        """The numbers that an expression has now, those that are none (0 / 0) left out.

        Raises:
            urllib.error.HTTPError: it does not parse, or cannot be evaluated.
        """
        found = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")["result"]
        return [value for sample in found if not math.isnan(value := float(sample["value"][1]))]

    def rules(self) -> dict[str, dict[str, Any]]:
        """Alert → what the server says of it: `state` (inactive, pending, firing), `health`, `lastError`."""
        return {rule["name"]: rule for group in self._get("/api/v1/rules")["groups"] for rule in group["rules"]}

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as answer:
            return json.load(answer)["data"]

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
