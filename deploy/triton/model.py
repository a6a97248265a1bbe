"""The model `embedding` in Triton's Python backend: raw ids in, purchase probabilities out, computed by OneFlow.

Export puts this file, `deepfm.py`, `vocabulary.py` and what training wrote into one version's folder: the version
carries the code that made it, and needs nothing of this project on the server, only OneFlow and numpy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

__all__ = ["TritonPythonModel"]

# The first call at a size pays for allocations and one-off choices of kernels: let no request be that call.
WARM_UP_ROWS = (1, 64, 4096)


class TritonPythonModel:
    """What the backend calls; one object per model instance, each in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the weights of the version that `args` names and runs it once."""
        folder = Path(args["model_repository"]) / args["model_version"]
        sys.path.insert(0, str(folder))
        from deepfm import DeepFM, load_weights, probabilities  # type: ignore[import-not-found]
        from vocabulary import Vocabulary  # type: ignore[import-not-found]

        shape = json.loads((folder / "config.json").read_text())
        options = shape["options"]
        self._vocabulary = Vocabulary.load(folder / "vocabulary.npz")
        self._model = DeepFM(
            rows=shape["rows"],
            fields=shape["fields"],
            embedding=options["embedding"],
            layers=options["layers"],
            dropout=options["dropout"],
        )
        load_weights(self._model, folder / "model")
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
