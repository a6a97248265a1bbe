"""The tutorial's own way to a score, row by row, for `make bench`; runs in `.envs/peers`.

    python tutorial.py HOST:PORT ROWS.json [--seconds S]        prints {"rows_s": …}

It does what the tutorial's predict server does behind OpenMLDB: a pandas frame of one row, a hash of each cell, column
by column, and one call to Triton over HTTP, on a connection that stays. It does not ask OpenMLDB: the features of
ROWS.json are a present, as is the answer's way back; nor does it read or write Kafka.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xxhash
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput


def score(client: Any, row: dict[str, Any]) -> float:
    """The probability of one row of features."""
    frame = pd.DataFrame([row])
    for name in frame.columns:
        frame[name] = frame[name].map(lambda cell: xxhash.xxh64_intdigest(str(cell).encode(), 10))
    ids = frame.to_numpy(np.uint64).view(np.int64)
    asked = InferInput("INPUT_0", list(ids.shape), "INT64")
    asked.set_data_from_numpy(ids, binary_data=True)
    answer = client.infer("embedding", [asked], outputs=[InferRequestedOutput("OUTPUT_0", binary_data=True)])
    return float(answer.as_numpy("OUTPUT_0")[0, 0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("triton")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    words = parser.parse_args()
    rows = json.loads(words.rows.read_text())
    client = InferenceServerClient(words.triton)
    for row in rows[:20]:  # connection, imports and caches are warm then
        score(client, row)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < words.seconds:
        score(client, rows[done % len(rows)])
        done += 1
    print(json.dumps({"rows_s": done / (time.perf_counter() - began)}))


if __name__ == "__main__":
    main()
