"""A seeded world of ad clicks in the layout of sql/talkingdata, with intent to learn and a known ceiling.

    jd-intent-batch generate --app sql/talkingdata --out DIR --users 6000 --seed 1

writes `clicks/` (parquet, by time), `events/ad-clicks.jsonl` (the same clicks as they come on the topic, where nobody
knows yet which are attributed), `truth.parquet` (click_id, probability) and `world.json` (what was made). With
`--sample CSV` the clicks are those of the public sample of OpenMLDB's demo instead, and there is no truth.

Users are ips. Most click a few times, some thousands of times, in visits of some minutes. Whether an app is downloaded
after a click depends on the app, the channel, the hour and the device, on how often the ip clicked within the hour and
on the app before (who clicks much means little), and on the ip's own intent, which no column shows. So the AUC of the
true probabilities is a ceiling. The world is made in memory: some 200 bytes a click.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from streaming.errors import BadInput
from streaming.files.output_folder import Say, replacing
from streaming.files.tables import BadFile, Options, read_file

__all__ = ["RATE", "AdClicks", "convert_click_sample", "generate_ad_clicks"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RATE = 0.003
"""The share of clicks that are attributed, as in the public sample."""

START_MS = 1_509_897_600_000  # 2017-11-06 00:00 in UTC+8, where the public sample begins
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
DAYS_MAX = 3_650
SPAN_MS = DAYS_MAX * DAY_MS
PART_ROWS = 1 << 20
CLICKS_MAX = 20_000  # of one ip
APPS, CHANNELS, SYSTEMS = 200, 160, 100

# Clicks per hour of UTC+8, as in the public sample.
RHYTHM: Floats = np.array(
    [55, 52, 50, 53, 58, 57, 52, 47, 48, 52, 51, 54, 53, 53, 57, 54, 36, 21, 12, 9, 7, 8, 20, 41], np.float64
)

SCHEMA = pa.schema(
    [
        ("click_id", pa.string()),
        ("ip", pa.int32()),
        ("app", pa.int32()),
        ("device", pa.int32()),
        ("os", pa.int32()),
        ("channel", pa.int32()),
        ("click_time", pa.timestamp("ms")),
        ("is_attributed", pa.int32()),
    ]
)


class AdClicks(msgspec.Struct, frozen=True):
    """What was made: `world.json`. AUC: of the true probabilities against the labels; None where there is none.

    Attributes:
        seed: None of the public sample.
        ips, clicks, attributed: how many.
    """

    seed: int | None
    days: int
    ips: int
    clicks: int
    attributed: int
    true_auc: float | None
    start_ms: int
    end_ms: int


def generate_ad_clicks(
    out: Path, ips: int, seed: int, days: int = 4, rate: float = RATE, *, force: Say | None = None
) -> AdClicks:
    """Writes a world to `out` and returns what it made.

    Args:
        out: a folder that is new or empty, or holds an older world.
        ips: at least 1; each clicks about 40 times. seed: 0 or more; the same seed gives the same bytes.
        days: length. rate: the share of clicks that are attributed, in the mean of many worlds.
        force: see `streaming.files.output_folder.replacing`.

    Raises:
        BadInput: an argument out of its range. OutputRefused: `out` holds something else.
    """
    if not 1 <= ips <= 10_000_000:
        raise BadInput(f"--users must be between 1 and 10,000,000, not {ips}")
    if seed < 0:
        raise BadInput(f"--seed must be 0 or more, not {seed}")
    if not 1 <= days <= DAYS_MAX:
        raise BadInput(f"--days must be between 1 and {DAYS_MAX:,}, not {days}")
    if not 0 < rate < 1:
        raise BadInput(f"--rate must be between 0 and 1, not {rate}")
    with replacing(out, "world", force=force) as folder:
        rng = np.random.default_rng(seed)
        columns, log_odds = _clicks(ips, days, rng)
        probability = 1 / (1 + np.exp(-(log_odds + _offset(log_odds, rate))))
        label = (rng.random(len(probability)) < probability).astype(np.int32)
        ids = pc.binary_join_element_wise(
            *(pa.array(columns[name]).cast(pa.string()) for name in ("ip", "app", "click_time")), "_"
        )
        rows = {"click_id": ids, **columns, "is_attributed": label}
        clicks = pa.table([pa.array(rows[name]).cast(SCHEMA.field(name).type) for name in SCHEMA.names], SCHEMA)
        truth = pa.table({"click_id": ids, "probability": probability})
        pq.write_table(truth, folder / "truth.parquet")
        return _write(folder, clicks, days, seed, _auc(probability, label))


def convert_click_sample(csv: Path, out: Path, *, force: Say | None = None) -> AdClicks:
    """Writes the clicks of the public sample's csv in the same layout.

    Args:
        csv: columns ip, app, device, os, channel, click_time (text, UTC+8), is_attributed. Its rows name the clicks.
        out, force: see `generate_ad_clicks`.

    Raises:
        BadFile: the csv is missing, or a value is none of its column's. OutputRefused: `out` holds something else.
    """
    columns = pa.schema([field for field in SCHEMA if field.name != "click_id"])
    parts = [piece.rows for piece in read_file(csv, columns, Options(format="csv"))]
    clicks = pa.concat_tables(parts)
    if not clicks.num_rows:
        raise BadFile(f"{csv}: it has no rows")
    for name in columns.names:
        row = pc.index(clicks[name].is_null(), True).as_py()
        if row >= 0:
            raise BadFile(f"{csv}: row {row}, column {name}: it is blank")
    named = pa.array([f"row-{row}" for row in range(clicks.num_rows)])
    clicks = clicks.add_column(0, "click_id", named).cast(SCHEMA)
    order = np.argsort(clicks["click_time"].cast(pa.int64()).to_numpy(), kind="stable")
    clicks = clicks.take(pa.array(order))
    with replacing(out, "world", inputs=[csv], force=force) as folder:
        times = clicks["click_time"].cast(pa.int64())
        days = (times[-1].as_py() - times[0].as_py()) // DAY_MS + 1
        return _write(folder, clicks, days, None, None)


def _clicks(ips: int, days: int, rng: np.random.Generator) -> tuple[dict[str, Ints], Floats]:
    """The clicks by time: their columns, and the log-odds that each is attributed, up to a constant."""
    count = np.minimum(1 + (rng.pareto(1.3, ips) * 12).astype(np.int64), CLICKS_MAX)
    ip = np.repeat(np.arange(ips), count)
    first = np.repeat(np.cumsum(count) - count, count)
    time = _times(ip, np.arange(len(ip)) - first, days, rng)

    apps, channels = _Choice(APPS, rng), _Choice(CHANNELS, rng)
    favourite = apps.draw(ips, rng)
    app = np.where(rng.random(len(ip)) < 0.4, favourite[ip], apps.draw(len(ip), rng))
    # An app is advertised on a few channels.
    of_app = channels.draw(APPS * 6, rng).reshape(APPS, 6)
    channel = of_app[app, np.minimum(rng.geometric(0.4, len(ip)) - 1, 5)]
    device = rng.choice([1, 2, 0, 3032, 3543, 3866], len(ip), p=[0.94, 0.0447, 0.007, 0.0033, 0.0025, 0.0025])
    systems = _Choice(SYSTEMS, rng)
    system = np.where(rng.random(len(ip)) < 0.6, systems.draw(ips, rng)[ip], systems.draw(len(ip), rng))

    order = np.lexsort([time, ip])
    ip, time, app, channel, device, system = (x[order] for x in (ip, time, app, channel, device, system))
    within_hour = np.arange(len(ip)) - np.searchsorted(_moment(ip, time), _moment(ip, time - HOUR_MS)) + 1
    # Popular apps are clicked by everybody, and downloaded by few.
    app_effect = rng.normal(0, 1.2, APPS) + 1.5 * np.linspace(-1, 1, APPS)
    hour = (time + 8 * HOUR_MS) // HOUR_MS % 24
    log_odds = (
        app_effect[app]
        + rng.normal(0, 0.9, CHANNELS)[channel]
        + 0.6 * np.sin(2 * np.pi * (hour - 3) / 24)
        + np.where(device == 0, 2.0, 0.0)
        - 0.6 * np.log(within_hour)
        - 0.7 * np.log(_nth(ip * APPS + app))
        + rng.normal(0, 1.0, ips)[ip]
    )
    numbers = {
        "ip": rng.permutation(ips * 10)[:ips][ip] + 1,
        "app": apps.name[app],
        "device": device,
        "os": systems.name[system],
        "channel": channels.name[channel],
        "click_time": time,
    }
    by_time = np.lexsort([ip, time])
    return {name: values[by_time].astype(np.int64) for name, values in numbers.items()}, log_odds[by_time]


def _times(ip: Ints, place: Ints, days: int, rng: np.random.Generator) -> Ints:
    """Epoch ms, of one ip never twice the same: visits of some clicks, some minutes between."""
    starts = (place == 0) | (rng.random(len(ip)) < 0.17)
    visit = np.cumsum(starts) - 1
    visits = int(visit[-1]) + 1
    edges = np.concatenate([[0.0], np.cumsum(RHYTHM) / RHYTHM.sum()])
    of_day = np.interp(rng.random(visits), edges, np.arange(25) * 3600.0)
    begin = rng.integers(0, days, visits) * 86_400 + of_day.astype(np.int64)
    pause = np.where(starts, 0.0, rng.exponential(100.0, len(ip)))
    since = np.cumsum(pause)
    seconds = begin[visit] + (since - since[starts][visit]).astype(np.int64)
    seconds = np.minimum(seconds, days * 86_400 - 1)
    order = np.lexsort([seconds, ip])
    rank: Ints = np.empty(len(ip), np.int64)
    rank[order] = np.arange(len(ip)) - np.searchsorted(ip[order], ip[order])
    time: Ints = START_MS + seconds * 1000 + rank % 1000
    return time


class _Choice:
    """Numbers 0 … n - 1, the first ones far more often than the last; and the ids that stand for them."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        weight = (1.0 + np.arange(n)) ** -1.1
        self._share = np.cumsum(weight / weight.sum())
        self.name: Ints = rng.permutation(3 * n)[:n] + 1

    def draw(self, count: int, rng: np.random.Generator) -> Ints:
        return np.minimum(np.searchsorted(self._share, rng.random(count)), len(self._share) - 1)


def _moment(ip: Ints, time: Ints) -> Ints:
    """One number for ip and time, in the order of both; a time may lie an hour before the world."""
    return ip * (SPAN_MS + 2 * HOUR_MS) + (time - START_MS + HOUR_MS)


def _nth(group: Ints) -> Ints:
    """Of each element, how many of its group are there up to itself."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    nth: Ints = np.empty(len(group), np.int64)
    nth[order] = np.arange(len(group)) - np.searchsorted(ordered, ordered) + 1
    return nth


def _offset(log_odds: Floats, rate: float) -> float:
    """What has to be added to log-odds, so that the mean probability is the rate."""
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        if np.mean(1 / (1 + np.exp(-(log_odds + middle)))) < rate:
            low = middle
        else:
            high = middle
    return low


def _auc(probability: Floats, label: NDArray[np.int32]) -> float | None:
    positives = int(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return None
    ordered = np.sort(probability[label == 0])
    of_positive = probability[label == 1]
    below = np.searchsorted(ordered, of_positive, side="left") + np.searchsorted(ordered, of_positive, side="right")
    return float(below.sum() / 2 / positives / negatives)


def _write(folder: Path, clicks: pa.Table, days: int, seed: int | None, true_auc: float | None) -> AdClicks:
    """The tables' files, the events, and what was made."""
    (folder / "clicks").mkdir()
    (folder / "events").mkdir()
    names = [name for name in SCHEMA.names if name != "is_attributed"]
    encode = msgspec.json.Encoder().encode
    with (folder / "events" / "ad-clicks.jsonl").open("wb") as events:
        for part, first in enumerate(range(0, clicks.num_rows, PART_ROWS)):
            rows = clicks.slice(first, PART_ROWS)
            pq.write_table(rows, folder / "clicks" / f"part-{part:05d}.parquet")
            place = rows.schema.get_field_index("click_time")
            rows = rows.set_column(place, "click_time", rows["click_time"].cast(pa.int64()))
            for values in zip(*(rows[name].to_pylist() for name in names), strict=True):
                events.write(encode(dict(zip(names, values, strict=True))) + b"\n")
    start_ms = clicks["click_time"][0].cast(pa.int64()).as_py() if seed is None else START_MS
    last_ms = clicks["click_time"][-1].cast(pa.int64()).as_py()
    made = AdClicks(
        seed=seed,
        days=days,
        ips=pc.count_distinct(clicks["ip"]).as_py(),
        clicks=clicks.num_rows,
        attributed=pc.sum(pc.greater(clicks["is_attributed"], 0)).as_py(),
        true_auc=true_auc,
        start_ms=start_ms,
        end_ms=last_ms if seed is None else START_MS + days * DAY_MS,
    )
    (folder / "world.json").write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
    return made
