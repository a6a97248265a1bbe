"""An hour of even traffic: memory, handles and latency must stay flat. `make soak [MINUTES=60] [PER_S=300]`

    PYTHONPATH=.:tests python -m rigs.soak --minutes 60

Rows of the tables that grow live for five minutes here: the state is as large after an hour as after ten minutes.
Samples go to build/soak/samples.csv as they are taken, the plot to --plot. Fails when a score is lost or doubled, when
descriptors, threads or memory grow, or when the median latency rises.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from places import SQL

from batch.plots.axis import Axis, Scale, spanning
from batch.plots.chart import Chart, Series, lines
from batch.plots.sheet import write_sheet
from rigs.scorers import Scorers, Subscriber, pipeline
from rigs.traffic import Failed, Traffic

LIVE = "5m"
INDEXES = {
    "time1 string": "KEY=user_id, TS=eventTime",
    "type string,\n    cate string,\n    br string": "KEY=pair_id, TS=ingestionTime",
}
"""The last columns of a table that grows → the index that the deployment needs of it."""
SAMPLE_S = 5.0
SCORERS = 2
READY_S = 180.0
SIZE = (860, 220)  # of a plot
ANSWERED_S = 60.0  # for the last events' scores
WHOLE = ("events", "rss_bytes", "state_bytes", "descriptors", "threads")

# How much the median of the last quarter may lie above that of the second; the first one is still filling caches.
HANDLES_MORE = 2
LATENCY_TIMES = 2.0
LATENCY_MS = 20.0  # … or by so much: a few milliseconds doubled are still a few milliseconds
RSS_TIMES = 1.1


@dataclass
class Sample:
    """All scorers together, after `second` seconds."""

    second: float
    events: int
    rss_bytes: int
    state_bytes: int
    descriptors: int
    threads: int
    p50_ms: float
    p99_ms: float


def take(second: float, events: int, scorers: Scorers, latency_ms: list[float]) -> Sample:
    """One sample, from /proc and /metrics."""
    rss = state = descriptors = threads = 0
    for slot in scorers.slots:
        home = Path("/proc") / str(slot.process.pid)
        status = dict(line.split(":", 1) for line in (home / "status").read_text().splitlines())
        rss += int(status["VmRSS"].split()[0]) * 1024
        threads += int(status["Threads"])
        descriptors += len(list((home / "fd").iterdir()))
        with urllib.request.urlopen(f"http://127.0.0.1:{slot.port}/metrics", timeout=10) as answer:
            sizes = re.findall(r"^jd_intent_state_bytes\{[^}]*\} (\S+)$", answer.read().decode(), re.MULTILINE)
        state += int(sum(map(float, sizes)))
    p50, p99 = np.percentile(latency_ms, [50, 99]).tolist() if latency_ms else (float("nan"), float("nan"))
    return Sample(round(second, 1), events, rss, state, descriptors, threads, round(p50, 2), round(p99, 2))


def faults(samples: list[Sample]) -> list[str]:
    """What was not flat."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]

    def medians(name: str) -> tuple[float, float]:
        a, b = (float(np.nanmedian([getattr(sample, name) for sample in part])) for part in (early, late))
        return a, b

    found = []
    for name in ("descriptors", "threads"):
        before, after = medians(name)
        if after > before + HANDLES_MORE:
            found.append(f"{name} grew from {before:.0f} to {after:.0f}")
    before, after = medians("p50_ms")
    if after > max(LATENCY_TIMES * before, before + LATENCY_MS):
        found.append(f"the median latency rose from {before:.1f} to {after:.1f} ms")
    before, after = medians("rss_bytes")
    if after > RSS_TIMES * before:
        found.append(f"memory grew from {before / 2**20:.0f} to {after / 2**20:.0f} MiB")
    return found


def plot(samples: list[Sample], file: Path, title: str, note: str = "") -> None:
    """Memory, handles and latency over time."""
    minutes = [sample.second / 60 for sample in samples]
    x = Axis("minutes", 0.0, max(minutes))

    def chart(name: str, unit: str, scale: Scale, *series: tuple[str, list[float]]) -> Chart:
        y = spanning(unit, [value for _, values in series for value in values], scale)
        return lines(name, [Series(of, minutes, values, dash=0) for of, values in series], x, y, size=SIZE)

    memory = [s.rss_bytes / 2**20 for s in samples], [s.state_bytes / 2**20 for s in samples]
    handles = [float(s.descriptors) for s in samples], [float(s.threads) for s in samples]
    charts = [
        chart(
            "Memory", "MiB", Scale.LINEAR, ("resident memory", memory[0]), ("rows and indexes of the state", memory[1])
        ),
        chart("Handles", "number", Scale.LINEAR, ("file descriptors", handles[0]), ("threads", handles[1])),
        chart(
            "From event sent to score seen",
            "ms",
            Scale.LOG,
            ("p50", [s.p50_ms for s in samples]),
            ("p99", [s.p99_ms for s in samples]),
        ),
    ]
    write_sheet(file, title, note, charts)


def limited_app(folder: Path) -> Path:
    """The tutorial's shop, but rows of the tables that grow live for `LIVE` only: else the state grows for ever."""
    shutil.copytree(SQL / "jd", folder)
    script = folder / "tables.sql"
    text = script.read_text()
    for columns, index in INDEXES.items():
        if text.count(columns) != 1:
            raise ValueError(f"{script}: {columns!r} was to be there once")
        text = text.replace(columns, f"{columns},\n    INDEX({index}, TTL={LIVE})")
    script.write_text(text)
    return folder


def soak(folder: Path, minutes: float, per_s: float) -> tuple[list[Sample], list[str]]:
    """Runs it; the samples, and what was wrong."""
    with pipeline(folder) as rig:
        traffic = Traffic(rig.stage, per_s, seed=1, users=5000, now=True)
        subscriber = Subscriber(rig.stage, traffic, keep=False)
        rig.stage.values["app"] = str(limited_app(folder / "app"))
        scorers = Scorers(rig.stage, folder, SCORERS)
        deadline = time.monotonic() + READY_S
        while scorers.ready() < SCORERS:
            if time.monotonic() > deadline:
                raise Failed(f"not ready after {READY_S:.0f} s: {scorers.slots[0].process.tail()}")
            time.sleep(0.2)
        subscriber.start()
        traffic.start()
        samples: list[Sample] = []
        with (folder / "samples.csv").open("w", newline="") as sink:
            writer = csv.DictWriter(sink, list(Sample.__dataclass_fields__))
            writer.writeheader()
            started = time.monotonic()
            while time.monotonic() - started < minutes * 60:
                time.sleep(SAMPLE_S)
                latency_ms, subscriber.latency_ms = subscriber.latency_ms, []
                samples.append(take(time.monotonic() - started, subscriber.seen, scorers, latency_ms))
                writer.writerow(asdict(samples[-1]))
                sink.flush()
                if len(samples) % 12 == 0:
                    print(samples[-1], flush=True)
        traffic.close()
        deadline = time.monotonic() + ANSWERED_S
        while traffic.sent and time.monotonic() < deadline:
            time.sleep(0.1)
        restarts = [status for slot in scorers.slots for status in slot.statuses]
        statuses = scorers.close()
        subscriber.close()
    found = faults(samples)
    if traffic.sent or subscriber.doubled or subscriber.disordered:
        found.append(
            f"{len(traffic.sent)} scores lost, {len(subscriber.doubled)} doubled, "
            f"{len(subscriber.disordered)} out of order"
        )
    if len(subscriber.dead) != traffic.poison + (traffic.comments + 1) // 2:
        found.append(f"{traffic.poison} poison messages, {len(subscriber.dead)} dead letters")
    if restarts or any(statuses):
        found.append(f"scorers ended meanwhile: {restarts}, and at the end with {statuses}")
    return samples, found


def read(file: Path) -> list[Sample]:
    """The samples of an earlier run."""
    with file.open(newline="") as source:
        rows = [{name: float(text) for name, text in row.items()} for row in csv.DictReader(source)]
    return [Sample(**{**row, **{name: int(row[name]) for name in WHOLE}}) for row in rows]  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--per-s", type=float, default=300.0)
    parser.add_argument("--folder", type=Path, default=Path("build/soak"))
    parser.add_argument("--plot", type=Path, default=Path("build/soak/soak.svg"))
    parser.add_argument("--samples", type=Path, help="only plot the samples of an earlier run")
    words = parser.parse_args()
    folder = words.folder.resolve()
    found: list[str] = []
    if words.samples:
        samples = read(words.samples)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        samples, found = soak(folder, words.minutes, words.per_s)
    found = found or faults(samples)
    first, last = samples[len(samples) // 4], samples[-1]
    title = f"{last.second / 60:.0f} minutes, {last.events:,} events, {SCORERS} scorers"
    plot(samples, words.plot, title)
    print(f"{title}: from {first} to {last}\nplot: {words.plot}")
    if found:
        sys.exit("not flat: " + "; ".join(found))
    print("flat, each event scored once")


if __name__ == "__main__":
    main()
