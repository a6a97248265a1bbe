"""DeepFM (Guo et al. 2017, arXiv:1703.04247) in OneFlow: first order + pairwise products + a deep network, one logit.

    logit = bias + sum_f w[row_f] + sum_{f<g} <v[row_f], v[row_g]> + MLP(concat_f v[row_f])

Exported beside the model (no import from this project), so that a version carries the code that made it.

On CPU, with `nn.Embedding`. The tutorial's CUDA path (OneEmbedding, Triton's `oneflow` backend) is not here: without a
CUDA device OneEmbedding aborts the process, so it could not be run. What holds for both is the contract: INT64 [fields]
raw ids in, FP32 [1] out; `deploy/triton/config.oneflow.pbtxt` is the tutorial's configuration for its own image.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def _prefer_fast_kernels() -> None:
    # The OpenBLAS inside OneFlow 0.9.0 does not know newer AMD and Intel processors and falls back to its SSE kernels
    # ("Barcelona"): 2.3 to 3 times slower matrix products. Haswell names the AVX2 kernels, which all of them can run.
    try:
        flags = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return
    if " avx2 " in flags and " fma " in flags:
        os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what native code writes to standard error, unless the block fails: OneFlow misses InfiniBand each time
    that it is loaded."""
    with tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        standard_error = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(standard_error, said.read())
            raise
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)


# Both are read when OneFlow is loaded. Its warning about the missing CUDA driver is harmless on CPU.
_prefer_fast_kernels()
os.environ.setdefault("GLOG_minloglevel", "2")

import numpy as np  # noqa: E402

with _quiet():
    import oneflow as flow
    from oneflow import nn

__all__ = ["DeepFM", "Served", "load_weights", "probabilities", "save_weights"]

EMBEDDING_STD = 0.01  # small enough that the pairwise term starts near zero and the bias alone sets the first logits


class Dropout(nn.Module):  # type: ignore[misc]
    """As `nn.Dropout`, whose kernel takes six to nine times as long as numpy's random numbers.

    Repeatable by `np.random.seed` before the module is made.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self._random = np.random.default_rng(np.random.randint(2**31))

    def forward(self, values: flow.Tensor) -> flow.Tensor:
        if not self.training or not self.share:
            return values
        kept = self._random.random(tuple(values.shape), dtype=np.float32) >= self.share
        return values * flow.tensor(kept * np.float32(1 / (1 - self.share)))


class DeepFM(nn.Module):  # type: ignore[misc]
    """Logits of rows of categorical ids.

    The obvious spellings of the FM term (slices of one table, sums over axis 1, broadcasts) are 4 to 10 times slower on
    OneFlow's CPU kernels, gradients above all, than matrix products with constants; hence `field_sum` and `ones`.

    Args:
        rows: rows of the embedding tables, the vocabulary's size.
        fields: ids of a sample.
        embedding: dimensions of an embedding.
        layers: widths of the deep network's hidden layers; ReLU and dropout follow each.
        dropout: share of hidden activations set to zero in training.
        bias: initial logit; log-odds of the base rate, so that training starts calibrated.
        cold_rows: the first rows of the table, which start at zero: where no rare id trains one, an unseen id must add
            nothing.
    """

    def __init__(
        self,
        *,
        rows: int,
        fields: int,
        embedding: int,
        layers: Sequence[int],
        dropout: float,
        bias: float = 0.0,
        cold_rows: int = 0,
    ) -> None:
        super().__init__()
        self.width = fields * embedding
        self.embedding = nn.Embedding(rows, embedding)
        self.first_order = nn.Embedding(rows, 1)
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_STD)
        nn.init.zeros_(self.first_order.weight)
        with flow.no_grad():
            self.embedding.weight[:cold_rows] = 0.0
        deep: list[nn.Module] = []
        widths = [self.width, *layers]
        for inputs, outputs in itertools.pairwise(widths):
            deep += [nn.Linear(inputs, outputs), nn.ReLU(), Dropout(dropout)]
        deep.append(nn.Linear(widths[-1], 1))
        self.deep = nn.Sequential(*deep)
        nn.init.constant_(self.deep[-1].bias, bias)
        field_sum = np.tile(np.eye(embedding, dtype=np.float32), (fields, 1))
        self.register_buffer("field_sum", flow.tensor(field_sum), persistent=False)
        self.register_buffer("ones", flow.ones(self.width, 1), persistent=False)

    def forward(self, rows: flow.Tensor) -> tuple[flow.Tensor, flow.Tensor]:
        """int [n, fields] -> logits [n], squared length of each sample's embeddings [n] (for the L2 penalty)."""
        vectors = self.embedding(rows).reshape(-1, self.width)
        weights = self.first_order(rows).reshape(rows.shape[0], -1)
        summed = flow.matmul(vectors, self.field_sum)
        squares = flow.matmul(vectors * vectors, self.ones).squeeze(1)
        pairwise = 0.5 * ((summed * summed).sum(1) - squares)
        return self.deep(vectors).squeeze(1) + weights.sum(1) + pairwise, squares


class Served(nn.Module):  # type: ignore[misc]
    """A trained model with the same probabilities in half as many operators: what Triton runs.

    An operator costs OneFlow's eager mode 50 to 100 microseconds, which is what a call of few rows consists of. One
    table holds embedding and `w[row] - |v[row]|^2 / 2`, which is all of the first order and half of the FM term; the
    sums over fields are columns of the first layer's product.
    """

    def __init__(self, model: DeepFM) -> None:
        super().__init__()
        vectors = model.embedding.weight.numpy()
        size = vectors.shape[1]
        alone = model.first_order.weight.numpy() - 0.5 * np.square(vectors).sum(1, keepdims=True)
        self.register_buffer("table", flow.tensor(np.concatenate([vectors, alone], axis=1)))

        first, _, _, *rest = model.deep
        hidden = first.weight.shape[0]
        weight = np.zeros((model.width // size, size + 1, hidden + size + 1), np.float32)
        weight[:, :size, :hidden] = first.weight.numpy().T.reshape(-1, size, hidden)
        weight[:, :, hidden:] = np.eye(size + 1)
        self.register_buffer("weight", flow.tensor(weight.reshape(-1, weight.shape[2])))
        bias = np.concatenate([first.bias.numpy(), np.zeros(size + 1, np.float32)])
        self.register_buffer("bias", flow.tensor(bias))
        self.rest = nn.Sequential(*[module for module in rest if not isinstance(module, Dropout)])
        self.ends = (hidden, hidden + size)

    def forward(self, rows: flow.Tensor) -> flow.Tensor:
        """int [n, fields] -> probabilities [n]."""
        inputs = nn.functional.embedding(rows, self.table).reshape(rows.shape[0], -1)
        product = flow.matmul(inputs, self.weight) + self.bias
        hidden, summed = self.ends
        deep = self.rest(flow.relu(product[:, :hidden])).squeeze(1)
        sums = product[:, hidden:summed]
        return flow.sigmoid(deep + 0.5 * (sums * sums).sum(1) + product[:, summed])


def probabilities(model: DeepFM | Served, rows: np.ndarray[Any, Any], batch_size: int = 4096) -> np.ndarray[Any, Any]:
    """Purchase probabilities (float32 [n]) of rows (int32 [n, fields]); puts the model into evaluation mode."""
    model.eval()
    parts = []
    with flow.no_grad():
        for start in range(0, len(rows), batch_size):
            answer = model(flow.tensor(rows[start : start + batch_size]))
            parts.append((answer if isinstance(model, Served) else flow.sigmoid(answer[0])).numpy())
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def save_weights(model: DeepFM, folder: Path) -> None:
    """Writes the layout of the tutorial's serving folder: a text `meta` and the raw values in `out` per parameter.

    It is OneFlow's own (`flow.load` reads it). Written here, because `flow.save` numbers the files by a counter of the
    process and adds a pickle: equal weights give equal bytes this way, and nothing has to be unpickled.
    """
    for name, value in model.state_dict().items():
        parameter = folder / name
        parameter.mkdir(parents=True)
        (parameter / "out").write_bytes(value.numpy().astype("<f4").tobytes())
        dims = "".join(f"  dim: {size}\n" for size in value.shape)
        (parameter / "meta").write_text(f"shape {{\n{dims}}}\ndata_type: kFloat\n")
    (folder / "snapshot_done").touch()  # without it OneFlow takes the folder for half written


def load_weights(model: DeepFM, folder: Path) -> None:
    """Reads what `save_weights` wrote into a model of the same shape."""
    model.load_state_dict(flow.load(str(folder)))
