"""The model `embedding` in Triton's Python backend: raw ids in, purchase probabilities out, computed by OneFlow.

Export puts this file, `deepfm.py`, `vocabulary.py` and what training wrote into one version's folder: the version
carries the code that made it, and needs nothing of this project on the server, only OneFlow and numpy.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

__all__ = ["TritonPythonModel"]

# A thread of OpenBLAS that has nothing to do yields in a circle for some 20 ms before it sleeps. Between two calls that
# takes the processor from the server and its client: sleep at once. Read when OneFlow is loaded.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

# Triton answers for a version once `initialize` has returned. The first call at a size pays for memory and for one-off
# choices of kernels, so each power of two up to the rows of one pass is run before: let no request be that call.
WARM_UP_ROWS = tuple(1 << power for power in range(13))


class TritonPythonModel:
    """What the backend calls; one object per model instance, each in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the weights of the version that `args` names and runs it once at every size of `WARM_UP_ROWS`."""
        folder = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(folder))
        from deepfm import DeepFM, Served, load_weights, probabilities  # type: ignore[import-not-found]
        from vocabulary import Vocabulary  # type: ignore[import-not-found]

        shape = json.loads((folder / "config.json").read_text())
        options = shape["options"]
        self._vocabulary = Vocabulary.load(folder / "vocabulary.npz")
        trained = DeepFM(
            rows=shape["rows"],
            fields=shape["fields"],
            embedding=options["embedding"],
            layers=options["layers"],
            dropout=options["dropout"],
        )
        load_weights(trained, folder / "model")
        self._model = Served(trained)
        self._probabilities = probabilities
        for rows in WARM_UP_ROWS:
            self._score(np.zeros((rows, shape["fields"]), np.int64))

    def _score(self, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """float32 [n, 1] of int64 [n, fields]."""
        scores: np.ndarray[Any, Any] = self._probabilities(self._model, self._vocabulary.lookup(ids))
        return scores.reshape(-1, 1)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One forward pass over all requests at hand, cut again into one response each."""
        inputs = [pb_utils.get_input_tensor_by_name(request, "INPUT_0").as_numpy() for request in requests]
        scores = self._score(np.concatenate(inputs) if len(inputs) > 1 else np.ascontiguousarray(inputs[0]))
        ends = np.cumsum([len(ids) for ids in inputs])[:-1]
        return [
            pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("OUTPUT_0", np.ascontiguousarray(part))])
            for part in np.split(scores, ends)
        ]
