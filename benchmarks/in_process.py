"""What OneFlow does in process with an exported version: asked line by line, so that it can take turns with Triton.

    python -m benchmarks.in_process build/artifact/triton/embedding/1    # in the model's environment

Each line `NETWORK ROWS CALLS` is answered by the median of the seconds of a call: raw ids in, probabilities out.
NETWORK is `trained` (the network as training and evaluation run it) or `served` (as Triton does).
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from batch.train.checkpoint import load_checkpoint

__all__: list[str] = []


def main() -> None:
    from batch.train.deepfm import DeepFM, Served, probabilities

    checkpoint = load_checkpoint(Path(sys.argv[1]))
    networks: dict[str, DeepFM | Served] = {"trained": checkpoint.model, "served": Served(checkpoint.model)}
    for line in sys.stdin:
        network, rows, calls = line.split()
        shape = int(rows), checkpoint.shape.fields
        ids = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, shape, dtype=np.int64)
        taken = []
        for _ in range(int(calls)):
            started = time.perf_counter()
            probabilities(networks[network], checkpoint.vocabulary.lookup(ids))
            taken.append(time.perf_counter() - started)
        print(statistics.median(taken), flush=True)


if __name__ == "__main__":
    main()
