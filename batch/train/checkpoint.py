"""A checkpoint: weights, vocabulary and shape of a trained model, as a folder.

config.json      what is needed to build the model again, and what it was trained on (`ModelShape`)
vocabulary.npz   which id has which row of the embeddings
model/           the weights
"""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from batch.dataset.read import DatasetError
from batch.train.options import TrainOptions
from batch.train.vocabulary import Vocabulary

if TYPE_CHECKING:
    from batch.train.deepfm import DeepFM

__all__ = ["Checkpoint", "ModelShape", "build_model", "load_checkpoint", "read_shape", "save_checkpoint"]


class ModelShape(msgspec.Struct, frozen=True):
    """`config.json` of a checkpoint: what is needed to build the model again, and what it was trained on.

    Attributes:
        fields: inputs of the model.
        rows: of its embeddings.
        base_rate: share of positives in the training part.
        options: `TrainOptions`, by name.
        table_size_array, data_sha256, sql_sha256, encoder_sha256: see `batch.dataset.read.DatasetInfo`.
    """

    fields: int
    rows: int
    base_rate: float
    options: dict[str, Any]
    table_size_array: list[int]
    data_sha256: str
    sql_sha256: str
    encoder_sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """A trained model, ready to predict.

    Attributes:
        shape: what it was built by.
        vocabulary: which id has which row.
        model: the network, its weights loaded.
    """

    shape: ModelShape
    vocabulary: Vocabulary
    model: DeepFM


def build_model(shape: ModelShape, bias: float = 0.0) -> DeepFM:
    """An untrained model of that shape."""
    from batch.train.deepfm import DeepFM

    return DeepFM(
        rows=shape.rows,
        fields=shape.fields,
        embedding=shape.options["embedding"],
        layers=shape.options["layers"],
        dropout=shape.options["dropout"],
        bias=bias,
        cold_rows=shape.fields,
    )


def read_shape(checkpoint: Path) -> ModelShape:
    """Reads `config.json` of a checkpoint.

    Raises:
        DatasetError: it is missing or wrong.
    """
    path = checkpoint / "config.json"
    try:
        shape = msgspec.json.decode(path.read_bytes(), type=ModelShape)
    except FileNotFoundError:
        raise DatasetError(
            f"{path} does not exist: is {checkpoint} a folder that `jd-intent-batch train` wrote?"
        ) from None
    except msgspec.DecodeError as error:
        raise DatasetError(f"{path}: {error}") from error
    try:
        msgspec.convert(shape.options, TrainOptions)
    except msgspec.ValidationError as error:
        raise DatasetError(f"{path}: options: {error}") from error
    return shape


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes weights, vocabulary and shape into an empty folder; equal checkpoints give equal bytes."""
    from batch.train.deepfm import save_weights

    save_weights(checkpoint.model, folder / "model")
    checkpoint.vocabulary.save(folder / "vocabulary.npz")
    (folder / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(checkpoint.shape), indent=2))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads what `save_checkpoint` wrote.

    Raises:
        DatasetError: the folder is not a checkpoint, or a file of it is damaged.
    """
    from batch.train.deepfm import load_weights

    shape = read_shape(folder)
    path = folder / "vocabulary.npz"
    try:
        vocabulary = Vocabulary.load(path)
        wrong = (vocabulary.fields, vocabulary.size) != (shape.fields, shape.rows)
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} is damaged: {error}") from error
    if wrong:
        raise DatasetError(
            f"{path} has {vocabulary.size} rows of {vocabulary.fields} fields, {folder / 'config.json'} "
            f"says {shape.rows} of {shape.fields}"
        )
    model = build_model(shape)
    for name, value in model.state_dict().items():
        weights = folder / "model" / name / "out"
        if not weights.is_file() or weights.stat().st_size != 4 * math.prod(value.shape):
            size = f"{weights.stat().st_size} bytes" if weights.is_file() else "not there"
            raise DatasetError(f"{weights} is {size}: the model of config.json has {4 * math.prod(value.shape)} bytes")
    try:
        load_weights(model, folder / "model")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DatasetError(f"{folder / 'model'} is damaged: {error}") from error
    return Checkpoint(shape, vocabulary, model)
