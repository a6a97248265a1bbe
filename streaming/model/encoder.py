"""Features to ids: one typed encoder, fitted offline on training data, the same for batch and streaming.

`Encoder.encode` turns the feature query's columns into int64 [n, fields]. A field reads one column and gives an id per
row:

    id = xxhash64(canonical text of the value, seed 10), read as a signed 64-bit integer

Canonical text (`canonical`), by type:

    string      its UTF-8 bytes as they are; '' and 'NULL' are strings like others
    integer     decimal digits; a bool as 0 or 1, a date as days since 1970
    real        the shortest decimal that gives back its float32 ("0.0192", "1.0"; -0.0 is "0.0"), so that a float
                and a double of the same column value have one spelling
    timestamp   epoch milliseconds, decimal
    NULL, NaN   the byte 0xFF, which no UTF-8 text contains
    rare        the byte 0xFE: any value that training saw too seldom, or never

Binned fields hash the canonical text of their bin's lower bound. The same id may occur in several fields: the model
keeps fields apart (`batch.train.vocabulary`).

On disk: `encoder.json` (fields in order, with what was fitted; the time zone of hours and weekdays, without which it is
UTC+8; a digest of itself and of the other file) and
`vocabulary.npy` (int64, the ids that training kept, sorted within each field's slice). Equal fits give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec
import numpy as np
import pyarrow as pa

from streaming.errors import ArtifactMismatch
from streaming.model.fields import (
    DAY_MS,
    NULL_ID,
    NULL_TEXT,
    RARE_ID,
    RARE_TEXT,
    Binned,
    Category,
    Field,
    Hashed,
    Known,
    ListShape,
    ListTop,
    canonical,
    speller,
    value_id,
)
from streaming.model.lookups import UTC8, AsItComes, BinLookup, Clock, Columns, Ids, ValueLookup, is_time, plain_values

__all__ = [
    "DAY_MS",
    "NULL_ID",
    "NULL_TEXT",
    "RARE_ID",
    "RARE_TEXT",
    "UTC8",
    "Binned",
    "Category",
    "Encoder",
    "Field",
    "Hashed",
    "ListShape",
    "ListTop",
    "canonical",
    "speller",
    "value_id",
]

FORMAT = 1
FEW_ROWS = 12  # are encoded value by value


class _Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    format: int
    fields: list[Field]
    table_sizes: list[int]
    vocabulary_sha256: str
    time_zone: str = UTC8


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: str
    encoder: _Fitted


class Encoder:
    """A fitted encoder. Immutable but for its caches; not for several threads at once.

    Args:
        fields: in the order of the model's input.
        vocabulary: int64 ids; each field's slice is sorted.
        table_sizes: distinct ids per field in training.
        time_zone: of hours and weekdays.

    Raises:
        ArtifactMismatch: there is no such time zone here.
    """

    JSON: ClassVar[str] = "encoder.json"
    VOCABULARY: ClassVar[str] = "vocabulary.npy"

    def __init__(
        self, fields: Sequence[Field], vocabulary: Ids, table_sizes: Sequence[int], time_zone: str = UTC8
    ) -> None:
        self.fields: tuple[Field, ...] = tuple(fields)
        self.table_sizes: list[int] = list(table_sizes)
        time_zone = UTC8 if time_zone == UTC8 else time_zone  # msgspec leaves out defaults by their identity
        self._clock = Clock(time_zone)
        self._vocabulary = np.ascontiguousarray(vocabulary, np.int64)
        buffer = io.BytesIO()
        np.save(buffer, self._vocabulary, allow_pickle=False)
        self._vocabulary_bytes = buffer.getvalue()
        self._fitted = _Fitted(
            FORMAT, list(fields), self.table_sizes, hashlib.sha256(self._vocabulary_bytes).hexdigest(), time_zone
        )
        self.digest: str = _digest(self._fitted)
        self._encode: list[ValueLookup | BinLookup | AsItComes] = [self._compile(field) for field in self.fields]
        self._few = [lookup for lookup in self._encode if not isinstance(lookup, AsItComes)]
        # What few rows are read from; nothing: an encoding that goes by Arrow's types takes all rows as arrays.
        names = [(field.column, getattr(field, "event_time", "")) for field in self.fields]
        named = dict.fromkeys(name for pair in names for name in pair if name)
        self._columns = list(named) if len(self._few) == len(self._encode) else []
        self._seen: pa.Schema | None = None
        self._places: dict[str, tuple[int, bool]] = {}  # of the columns in it, and whether they are times

    def save(self, folder: Path) -> None:
        """Writes the encoder's files to `folder`, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / self.VOCABULARY).write_bytes(self._vocabulary_bytes)
        text = msgspec.json.format(msgspec.json.encode(_File(self.digest, self._fitted)), indent=1)
        (folder / self.JSON).write_bytes(text + b"\n")

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """Reads what `save` wrote.

        Raises:
            ArtifactMismatch: a file is missing, unreadable, or not what it was when it was saved.
        """
        json, vocabulary = Path(folder) / cls.JSON, Path(folder) / cls.VOCABULARY
        try:
            file = msgspec.json.decode(json.read_bytes(), type=_File)
            content = vocabulary.read_bytes()
        except OSError as error:
            raise ArtifactMismatch(f"{error.filename}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise ArtifactMismatch(f"{json}: not an encoder: {error}") from error
        if file.encoder.format != FORMAT:
            raise ArtifactMismatch(f"{json}: format {file.encoder.format}, this program reads format {FORMAT}")
        if _digest(file.encoder) != file.digest:
            raise ArtifactMismatch(f"{json}: changed since it was saved: its content does not have its own digest")
        if hashlib.sha256(content).hexdigest() != file.encoder.vocabulary_sha256:
            raise ArtifactMismatch(f"{vocabulary}: changed since it was saved: not the digest that {json} has for it")
        ids: Ids = np.load(io.BytesIO(content), allow_pickle=False)
        return cls(file.encoder.fields, ids, file.encoder.table_sizes, file.encoder.time_zone)

    @property
    def time_zone(self) -> str:
        """The zone of its hours and weekdays."""
        return self._fitted.time_zone

    @property
    def vocabulary(self) -> Ids:
        """The ids that training kept, int64."""
        return self._vocabulary

    def encode(self, features: pa.Table) -> Ids:
        """The ids of each row: int64 [n, fields], C-contiguous.

        Raises:
            ArtifactMismatch: a column is missing or of another type.
        """
        if 0 < features.num_rows <= FEW_ROWS and features.schema == self._seen:
            return self._encode_few(features)
        ids = np.empty((features.num_rows, len(self.fields)), np.int64)
        columns = Columns(features)
        for at, encode in enumerate(self._encode):
            ids[:, at] = encode(columns)
        if self._columns and features.schema != self._seen:
            for lookup in self._encode:
                if isinstance(lookup, BinLookup):
                    lookup.knows(columns)
            self._seen = features.schema  # all its columns are there, and of their types
            self._places = {
                name: (self._seen.get_field_index(name), is_time(self._seen.field(name).type)) for name in self._columns
            }
        return ids

    def _encode_few(self, features: pa.Table) -> Ids:
        """The same, value by value: of few rows an array's fixed cost is most of it."""
        batches = features.to_batches()
        batch = batches[0] if len(batches) == 1 else features.combine_chunks().to_batches()[0]
        rows = {name: plain_values(batch, place, is_time=times) for name, (place, times) in self._places.items()}
        with np.errstate(over="ignore"):  # beyond a float: infinite
            return np.array([lookup.few(rows) for lookup in self._few], np.int64).T.copy()

    def _compile(self, field: Field) -> ValueLookup | BinLookup | AsItComes:
        match field:
            case Category() | ListTop():
                whole = isinstance(field, Category) and field.of == "whole"
                return ValueLookup(field.column, speller(field), self._known(field), whole=whole)
            case ListShape():
                return ValueLookup(field.column, speller(field), None, whole=False)
            case Binned():
                return BinLookup(field, self._clock)
            case Hashed():
                return AsItComes(field.column)

    def _known(self, field: Known) -> Ids:
        start, end = field.known
        known = self._vocabulary[start:end]
        if len(known) != end - start or np.any(known[1:] <= known[:-1]):
            raise ArtifactMismatch(f"encoder: field {field.name}: no sorted ids at {start}:{end} of the vocabulary")
        return known


def _digest(fitted: _Fitted) -> str:
    return "sha256:" + hashlib.sha256(msgspec.json.encode(fitted)).hexdigest()
