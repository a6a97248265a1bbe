"""How fast records become rows: `python -m benchmarks.decoding`.

The tutorial's actions by the folder `sql/jd`, and ad clicks by `sql/talkingdata`, in batches of 1, 100 and 1,000
records, beside JSON alone, the ceiling: µs per record, the best of several rounds that take turns.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence

import msgspec

from benchmarks.records import NOW_MS, Written
from streaming.app.decoding import StreamDecoder
from streaming.app.folder import load_app
from streaming.events.record import Record
from streaming.shipped_files import SQL_FOLDER

BYTES_MAX, FUTURE_S = 65_536, 300
ROUNDS = 9


def actions(count: int) -> list[Record]:
    """Actions without names of their own: these are made of user, product and time."""
    draw = random.Random(1)
    found: list[Record] = []
    for _ in range(count):
        user, sku, at = str(draw.randrange(10**6)), str(draw.randrange(10**5)), NOW_MS - draw.randrange(10**5)
        event = {"user_id": user, "sku_id": sku, "time": at, "type": "6", "model_id": "27", "cate": "8", "br": "214"}
        found.append(Written(user.encode(), json.dumps(event).encode()))
    return found


def clicks(count: int) -> list[Record]:
    draw = random.Random(1)
    found: list[Record] = []
    for _ in range(count):
        event = {name: draw.randrange(400) for name in ("app", "device", "os", "channel")}
        event |= {"ip": draw.randrange(10**6), "click_time": NOW_MS - draw.randrange(10**5)}
        found.append(Written(str(event["ip"]).encode(), json.dumps(event).encode()))
    return found


def best_us(work: Sequence[Callable[[], object]], records: int) -> list[float]:
    """µs per record of each, the best of the rounds."""
    repeats = max(3, 3_000 // records)
    best = [float("inf")] * len(work)
    for _ in range(ROUNDS):
        for i, run in enumerate(work):
            started = time.perf_counter()
            for _ in range(repeats):
                run()
            best[i] = min(best[i], (time.perf_counter() - started) / repeats / records * 1e6)
    return best


def main() -> None:
    shop, ads = load_app(SQL_FOLDER / "jd"), load_app(SQL_FOLDER / "talkingdata")
    json_of = msgspec.json.Decoder().decode
    folder = StreamDecoder(shop, shop.scored[0], BYTES_MAX, FUTURE_S)
    of_ads = StreamDecoder(ads, ads.scored[0], BYTES_MAX, FUTURE_S)
    print(f"{'records':>8} {'JSON alone':>14} {'sql/jd':>8} {'sql/talkingdata':>16}   µs per record")
    for count in (1, 100, 1_000):
        some, others = actions(count), clicks(count)
        work = [
            lambda some=some: [json_of(record.value()) for record in some],
            lambda some=some: folder.decode(some),
            lambda others=others: of_ads.decode(others),
        ]
        alone_us, jd_us, ads_us = best_us(work, count)
        print(f"{count:>8} {alone_us:>14.2f} {jd_us:>8.2f} {ads_us:>16.2f}")


if __name__ == "__main__":
    main()
