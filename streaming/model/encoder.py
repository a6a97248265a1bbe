"""Features to ids: one typed encoder, fitted offline on training data, the same for batch and streaming.

`Encoder.encode` turns the feature query's columns into int64 [n, 41]. A field reads one column and gives an id per row:

    id = xxhash64(canonical text of the value, seed 10), read as a signed 64-bit integer

Canonical text (`canonical`), by type:

    string      its UTF-8 bytes as they are; '' and 'NULL' are strings like others
    integer     decimal digits
    real        the shortest decimal that gives back its float32 ("0.0192", "1.0"; -0.0 is "0.0"), so that a float
                and a double of the same column value have one spelling
    timestamp   epoch milliseconds, decimal
    NULL, NaN   the byte 0xFF, which no UTF-8 text contains
    rare        the byte 0xFE: any value that training saw too seldom, or never

Binned fields hash the canonical text of their bin's lower bound. The same id may occur in several fields: the model
keeps fields apart (`batch.train.vocabulary`).

On disk: `encoder.json` (fields in order, with what was fitted; a digest of itself and of the other file) and
`vocabulary.npy` (int64, the ids that training kept, sorted within each field's slice). Equal fits give equal bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from streaming.errors import ArtifactMismatch

__all__ = [
    "DAY_MS",
    "NULL_ID",
    "NULL_TEXT",
    "RARE_ID",
    "RARE_TEXT",
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

Ids: TypeAlias = NDArray[np.int64]

SEED = 10
NULL_TEXT = b"\xff"
RARE_TEXT = b"\xfe"
FORMAT = 1
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LOCAL_MS = 8 * HOUR_MS  # the shop's clock is UTC+8
FEW_ROWS = 128  # a text column of so many is not dictionary-encoded
CACHE_VALUES_MAX = 1 << 20  # of texts per field; then it starts anew


def canonical(value: str | int | float | None) -> bytes:
    """The canonical text of one value; timestamps come as epoch ms (int)."""
    if value is None:
        return NULL_TEXT
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        return b"%d" % value
    single = np.float32(value)
    if np.isnan(single):
        return NULL_TEXT
    return str(single + np.float32(0.0)).encode()  # adding zero makes -0.0 positive


def value_id(text: bytes) -> int:
    """The signed 64-bit id of a canonical text."""
    unsigned = xxhash.xxh64_intdigest(text, SEED)
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


NULL_ID = value_id(NULL_TEXT)
RARE_ID = value_id(RARE_TEXT)


class Spec(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """What every field has: its own name, and the column of the feature query that it reads."""

    name: str
    column: str


class Known(Spec, frozen=True):
    """A field that keeps the ids of training: `known` is its slice of vocabulary.npy, the others share the rare id."""

    known: tuple[int, int]


class Category(Known, frozen=True, tag="category"):
    """A string as it is."""


class ListTop(Known, frozen=True, tag="list_top"):
    """The `place`-th (from 1) entry of a frequency list that names something: neither '' nor the padding 'NULL'.

    '' is what the request row itself adds to its windows, so where it stands says how often, not what (`ListShape`).
    """

    place: int


class ListShape(Spec, frozen=True, tag="list_shape"):
    """Where the empty entry stands in a frequency list of three: one letter each, e empty, n padding, v a value.

    The request row adds one '' to each window and ties go to the smaller key, so "evn" means that the pair's most
    frequent value was seen once, "ven" more than once, "vve" and "vvv" that it was busy.
    """


class Binned(Spec, frozen=True, tag="binned"):
    """A number in bins: bin i is [starts[i], starts[i + 1]), the first one open below, the last one above.

    `of` says what is binned: an integer column, a real column, or (timestamp columns) the days from it to the event's
    time and its hour of the day in UTC+8. `event_time` is the column of the event's time, for the days.
    """

    of: Literal["integer", "real", "days_since", "hour"]
    starts: list[float]
    event_time: str = ""


class Hashed(Spec, frozen=True, tag="hashed"):
    """Any column, each value its own id, nothing fitted: the seed system's encoding."""


Field: TypeAlias = Category | ListTop | ListShape | Binned | Hashed


class _Fitted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    fields: list[Field]
    table_sizes: list[int]
    vocabulary_sha256: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    digest: str
    encoder: _Fitted


class Encoder:
    """A fitted encoder. Immutable but for its caches; not for several threads at once.

    Args:
        fields: in the order of the model's input.
        vocabulary: int64 ids; each field's slice is sorted.
        table_sizes: distinct ids per field in training.
    """

    JSON: ClassVar[str] = "encoder.json"
    VOCABULARY: ClassVar[str] = "vocabulary.npy"

    def __init__(self, fields: Sequence[Field], vocabulary: Ids, table_sizes: Sequence[int]) -> None:
        self.fields: tuple[Field, ...] = tuple(fields)
        self.table_sizes: list[int] = list(table_sizes)
        self._vocabulary = np.ascontiguousarray(vocabulary, np.int64)
        buffer = io.BytesIO()
        np.save(buffer, self._vocabulary, allow_pickle=False)
        self._vocabulary_bytes = buffer.getvalue()
        self._fitted = _Fitted(
            FORMAT, list(fields), self.table_sizes, hashlib.sha256(self._vocabulary_bytes).hexdigest()
        )
        self.digest: str = _digest(self._fitted)
        self._encode: list[Callable[[_Columns], Ids]] = [self._compile(field) for field in self.fields]

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
        return cls(file.encoder.fields, ids, file.encoder.table_sizes)

    def encode(self, features: pa.Table) -> Ids:
        """The ids of each row: int64 [n, 41], C-contiguous.

        Raises:
            ArtifactMismatch: a column is missing or of another type.
        """
        ids = np.empty((features.num_rows, len(self.fields)), np.int64)
        columns = _Columns(features)
        for at, encode in enumerate(self._encode):
            ids[:, at] = encode(columns)
        return ids

    def _compile(self, field: Field) -> Callable[[_Columns], Ids]:
        match field:
            case Category() | ListTop():
                return _TextLookup(field.column, speller(field), self._known(field))
            case ListShape():
                return _TextLookup(field.column, speller(field), None)
            case Binned():
                return _BinLookup(field)
            case Hashed():
                return _AsItComes(field.column)

    def _known(self, field: Known) -> Ids:
        start, end = field.known
        known = self._vocabulary[start:end]
        if len(known) != end - start or np.any(known[1:] <= known[:-1]):
            raise ArtifactMismatch(f"encoder: field {field.name}: no sorted ids at {start}:{end} of the vocabulary")
        return known


def speller(field: Category | ListTop | ListShape) -> Callable[[str], bytes]:
    """What makes a field's canonical text of its column's text (which is not NULL)."""
    match field:
        case Category():
            return str.encode
        case ListTop(place=place):
            return lambda text: _named_entry(text, place).encode()
        case ListShape():
            return lambda text: _shape(text).encode()


def _digest(fitted: _Fitted) -> str:
    return "sha256:" + hashlib.sha256(msgspec.json.encode(fitted)).hexdigest()


class _Columns:
    """The columns of one call; the distinct texts of a column are found once, whoever reads it."""

    def __init__(self, features: pa.Table) -> None:
        self._features = features
        self._texts: dict[str, tuple[list[str | None], NDArray[np.int32] | None]] = {}
        self._times: dict[str, tuple[Ids, NDArray[np.bool_] | None]] = {}

    def column(self, name: str, is_type: Callable[[pa.DataType], bool], wanted: str) -> pa.Array:
        at = self._features.schema.get_field_index(name)
        if at < 0:
            raise ArtifactMismatch(f"the encoder needs column {name}, the features do not have it")
        column = self._features.column(at)
        if wanted and not is_type(column.type):
            raise ArtifactMismatch(f"column {name}: the encoder needs {wanted}, the features have {column.type}")
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def texts(self, name: str) -> tuple[list[str | None], NDArray[np.int32] | None]:
        """Distinct texts (None among them where there are NULLs) and each row's place among them.

        Of few rows each one's text, and no places: then it is quicker not to look for equal ones.
        """
        if name not in self._texts:
            column = self.column(name, _is_text, "a string")
            if len(column) <= FEW_ROWS:
                self._texts[name] = (column.to_pylist(), None)
            else:
                encoded = column.dictionary_encode(null_encoding="encode")
                # An object array on the way: of many values it is several times faster than to_pylist.
                distinct = encoded.dictionary.to_numpy(zero_copy_only=False).tolist()
                self._texts[name] = (distinct, encoded.indices.to_numpy())
        return self._texts[name]

    def numbers(self, name: str, of: str) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Values, and which of them are NULL (None: none is). What stands in the place of a NULL means nothing."""
        if of == "integer":
            column = self.column(name, pa.types.is_integer, "an integer")
        elif of == "real":
            column = self.column(name, pa.types.is_floating, "a real number")
        else:
            if name not in self._times:
                column = self.column(name, pa.types.is_timestamp, "a timestamp")
                self._times[name] = _values(_epoch_ms(column))
            return self._times[name]
        return _values(column)


def _values(column: pa.Array) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    if not column.null_count:
        return column.to_numpy(), None
    return pc.fill_null(column, 0).to_numpy(), column.is_null().to_numpy(zero_copy_only=False)


def _epoch_ms(column: pa.Array) -> pa.Array:
    return (column if column.type.unit == "ms" else column.cast(pa.timestamp("ms"), safe=False)).view(pa.int64())


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _named_entry(text: str, place: int) -> str:
    named = [entry for entry in text.split(",") if entry not in {"", "NULL"}]
    return named[place - 1] if len(named) >= place else ""


def _shape(text: str) -> str:
    return "".join({"": "e", "NULL": "n"}.get(entry, "v") for entry in text.split(",")[:3])


class _TextLookup:
    """Ids of a text column: a hash per new distinct text, a dictionary look-up per known one."""

    def __init__(self, column: str, spell: Callable[[str], bytes], known: Ids | None) -> None:
        self._column = column
        self._spell = spell
        self._known = known
        self._cache: dict[str | None, int] = {None: NULL_ID}

    def __call__(self, columns: _Columns) -> Ids:
        texts, rows = columns.texts(self._column)
        new = [text for text in texts if text not in self._cache and text is not None]
        if len(self._cache) + len(new) > CACHE_VALUES_MAX:
            # Anew with all of this call's texts: the ones known before are needed now too.
            self._cache = {None: NULL_ID}
            new = [text for text in texts if text is not None]
        if new:
            self._learn(new)
        ids = np.array([self._cache[text] for text in texts], np.int64)
        return ids if rows is None else ids[rows]

    def _learn(self, texts: list[str]) -> None:
        digest, spell = xxhash.xxh64_intdigest, self._spell
        ids = np.array([digest(spell(text), SEED) for text in texts], np.uint64).view(np.int64)
        if self._known is not None:
            at = np.searchsorted(self._known, ids)
            at[at == len(self._known)] = 0
            kept = (self._known[at] == ids) | (ids == NULL_ID) if len(self._known) else ids == NULL_ID
            ids = np.where(kept, ids, RARE_ID)
        self._cache.update(zip(texts, ids.tolist(), strict=True))  # NULL is in it from the start


class _BinLookup:
    """Ids of a number: a binary search over the bins, whose ids are known beforehand."""

    def __init__(self, field: Binned) -> None:
        self._field = field
        whole = field.of in {"integer", "hour"}
        # Reals are compared as floats, so that a float and a double of one value share a bin.
        self._inner = np.array(field.starts[1:], np.int64 if whole else np.float32)
        self._ids = np.array(
            [value_id(canonical(int(start) if whole else start)) for start in field.starts] + [NULL_ID], np.int64
        )

    def __call__(self, columns: _Columns) -> Ids:
        field = self._field
        values, missing = columns.numbers(field.column, field.of)
        if field.of == "hour":
            values = (values + LOCAL_MS) // HOUR_MS % 24
        elif field.of == "days_since":
            event, event_missing = columns.numbers(field.event_time, field.of)
            values = ((event - values) / DAY_MS).astype(np.float32)
            if event_missing is not None:
                missing = event_missing if missing is None else missing | event_missing
        elif field.of == "real":
            values = values.astype(np.float32, copy=False)
            unknown = np.isnan(values)
            if unknown.any():
                missing = unknown if missing is None else missing | unknown
        bins = np.searchsorted(self._inner, values, side="right")
        if missing is not None:
            bins[missing] = len(self._ids) - 1
        return self._ids[bins]


class _AsItComes:
    """Ids of any column, each distinct value hashed."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __call__(self, columns: _Columns) -> Ids:
        column = columns.column(self._column, bool, "")
        if pa.types.is_timestamp(column.type):
            column = _epoch_ms(column)
        encoded = column.dictionary_encode(null_encoding="encode")
        distinct = np.array([value_id(canonical(value)) for value in encoded.dictionary.to_pylist()], np.int64)
        ids: Ids = distinct[encoded.indices.to_numpy()]
        return ids
