"""The trainer's network, loss and optimiser in PyTorch, for `python -m benchmarks.training --torch PYTHON`.

    PYTHON torch_training.py FOLDER [--sparse]

FOLDER has `options.json`, `rows.npy` (int32 [samples, fields]), `labels.npy` and `weights.npz`, all of OneFlow's side:
both nets start from the same weights. First it prints the loss of the first batch, without dropout, to be compared with
OneFlow's. Then for each line that comes in it trains all samples once and prints the seconds.

Adam on everything, as the trainer does; with `--sparse` the tables' gradients are sparse, and SparseAdam updates
touched rows only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class DeepFM(nn.Module):  # type: ignore[misc]
    """`batch.train.deepfm.DeepFM`, line for line where PyTorch has no better way."""

    def __init__(self, options: dict[str, Any], sparse: bool) -> None:
        super().__init__()
        self.width = options["fields"] * options["embedding"]
        self.embedding = nn.Embedding(options["rows"], options["embedding"], sparse=sparse)
        self.first_order = nn.Embedding(options["rows"], 1, sparse=sparse)
        deep: list[nn.Module] = []
        widths = [self.width, *options["layers"]]
        for inputs, outputs in itertools.pairwise(widths):
            deep += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(options["dropout"])]
        deep.append(nn.Linear(widths[-1], 1))
        self.deep = nn.Sequential(*deep)

    def forward(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """int [n, fields] -> logits [n], squared length of each sample's embeddings [n]."""
        found = self.embedding(rows)
        vectors = found.reshape(-1, self.width)
        summed = found.sum(1)
        squares = (vectors * vectors).sum(1)
        pairwise = 0.5 * ((summed * summed).sum(1) - squares)
        return self.deep(vectors).squeeze(1) + self.first_order(rows).sum((1, 2)) + pairwise, squares


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sparse", action="store_true")
    words = parser.parse_args()
    options = json.loads((words.folder / "options.json").read_text())
    rows, labels = (torch.from_numpy(np.load(words.folder / f"{name}.npy")) for name in ("rows", "labels"))
    model = DeepFM(options, words.sparse)
    with np.load(words.folder / "weights.npz") as weights:
        model.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights.files})
    tables = [*model.embedding.parameters(), *model.first_order.parameters()]
    rate, size = options["learning_rate"], options["batch_size"]
    optimisers: list[torch.optim.Optimizer]
    if words.sparse:
        optimisers = [torch.optim.SparseAdam(tables, lr=rate), torch.optim.Adam(model.deep.parameters(), lr=rate)]
    else:
        optimisers = [torch.optim.Adam(model.parameters(), lr=rate)]
    criterion = nn.BCEWithLogitsLoss()

    def train() -> None:
        for start in range(0, len(rows) - size + 1, size):
            logits, squares = model(rows[start : start + size])
            loss = criterion(logits, labels[start : start + size])
            (loss + 0.5 * options["embedding_l2"] * squares.mean()).backward()
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()
            loss.item()

    model.eval()
    with torch.no_grad():
        print(criterion(model(rows[:size])[0], labels[:size]).item(), flush=True)
    model.train()
    for _ in sys.stdin:
        began = time.perf_counter()
        train()
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()
