"""A scorer as one writes it with Quix Streams, for `make bench` and `make bench-latency`; runs in `.envs/peers`.

    python quix.py BOOTSTRAP EVENTS SCORES --state DIR [--triton HOST:PORT] [--commit-s S] [--commit-every N]

It does: read JSON events, exactly once (its state in RocksDB with a changelog, offsets and scores in one transaction);
one window per key, a tumbling hour that counts the key's events and keeps the newest; hash count and fields to the
model's 41 ids; ask the same Triton by gRPC as the scorer does; write JSON with the probability. librdkafka's settings
are the scorer's, checkpoints are as large as its transactions.

It does not: compute the tutorial's other 37 features, encode them, check what comes in, or keep dead letters. Its
function runs once per record, so it asks Triton row by row: the library has no call over many records between its input
and its output topic. Without `--triton` nothing is asked: what is left is the library's own cost.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from quixstreams import Application, message_context
from quixstreams.dataframe.windows.aggregations import Count, Latest
from tritonclient.grpc import InferenceServerClient, InferInput

FIELDS = 41
EVENT_FIELDS = ("user_id", "sku_id", "type", "model_id", "cate", "br")


class Scores:
    """Asks Triton.

    Args:
        url: HOST:PORT of its gRPC; "": the answer is always 0.5.
    """

    def __init__(self, url: str) -> None:
        self._client = InferenceServerClient(url) if url else None
        self._ids = np.zeros((1, FIELDS), np.int64)
        self._input = InferInput("INPUT_0", [1, FIELDS], "INT64")

    def score(self, window: dict[str, Any]) -> dict[str, Any]:
        """The score of a window's newest event."""
        event = window["event"]
        cells = (window["count"], *(event.get(name) for name in EVENT_FIELDS))
        for at, cell in enumerate(cells):
            self._ids[0, at] = xxhash.xxh64_intdigest(str(cell).encode()) >> 1
        probability = 0.5
        if self._client is not None:
            self._input.set_data_from_numpy(self._ids)
            probability = float(self._client.infer("embedding", [self._input]).as_numpy("OUTPUT_0")[0, 0])
        return {
            "user_id": event.get("user_id"),
            "sku_id": event.get("sku_id"),
            "event_time": event.get("time"),
            "purchase_probability": probability,
        }


def source(_value: Any, _key: Any, _timestamp: int, _headers: Any) -> list[tuple[str, bytes]]:
    """The header by which a subscriber knows the event: the scorer's own `ce_id`."""
    place = message_context()
    return [("ce_id", f"{place.topic}[{place.partition}]@{place.offset}".encode())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bootstrap", "events", "scores"):
        parser.add_argument(name)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--triton", default="")
    parser.add_argument("--commit-s", type=float, default=1.0)
    parser.add_argument("--commit-every", type=int, default=0)
    words = parser.parse_args()
    app = Application(
        broker_address=words.bootstrap,
        consumer_group=f"quix-{words.scores}",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=words.commit_s,
        commit_every=words.commit_every,
        consumer_poll_timeout=min(words.commit_s, 1.0),
        producer_extra_config={"linger.ms": 5, "retry.backoff.ms": 2, "partitioner": "murmur2_random"},
        state_dir=words.state,
    )
    frame = app.dataframe(app.topic(words.events, value_deserializer="json", key_deserializer="bytes"))
    frame = frame.tumbling_window(timedelta(hours=1)).agg(count=Count(), event=Latest()).current()
    frame = frame.apply(Scores(words.triton).score)
    frame = frame.set_headers(source)
    frame.to_topic(app.topic(words.scores, value_serializer="json", key_serializer="bytes"))
    app.run()


if __name__ == "__main__":
    main()
