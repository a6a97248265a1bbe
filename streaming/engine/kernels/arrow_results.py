"""Results -> one Arrow record batch, in one kernel call.

A batch of 42 columns built array by array costs more than its features do. Here a kernel writes all buffers behind one
another as the body of an Arrow IPC message, and the numbers of its header (lengths, NULL counts, places of buffers)
into a copy of a header that Arrow itself wrote for this schema; Arrow then reads the message without copying.
"""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

from streaming.engine.native.kernel import Bytes, Float64, Int64, inner, kernel
from streaming.engine.native.memory import address, copy, int64s_at, store16, store32, store64, store_float32
from streaming.engine.types import ARROW, Type

__all__ = ["BatchAssembler"]

_BITS, _INT16, _INT32, _INT64, _FLOAT32, _TEXT = range(6)

_KINDS = {
    Type.NULL: _BITS,
    Type.BOOL: _BITS,
    Type.SMALLINT: _INT16,
    Type.INT: _INT32,
    Type.BIGINT: _INT64,
    Type.FLOAT: _FLOAT32,
    Type.DOUBLE: _INT64,
    Type.TIMESTAMP: _INT64,
    Type.DATE: _INT32,
    Type.STRING: _TEXT,
}


@inner
def _size(kinds: Int64, places: Int64, n: int, mem: Int64, nulls: Bytes, ends: Int64) -> int:
    """Bytes of the body at most; -1 where a column of text would not fit Arrow's 32-bit offsets."""
    total = 0
    for k in range(len(kinds)):
        total += (n + 63) // 64 * 8  # validity
        kind = kinds[k]
        if kind == _BITS:
            total += (n + 63) // 64 * 8
        elif kind == _INT16:
            total += (2 * n + 7) // 8 * 8
        elif kind == _INT64:
            total += 8 * n
        elif kind < _TEXT:
            total += (4 * n + 7) // 8 * 8
        else:
            text = 0
            for i in range(places[k], places[k] + n):
                if not nulls[i]:
                    code = mem[i]
                    text += ends[code] - (ends[code - 1] if code else 0)
            if text >= 1 << 31:
                return -1
            total += (4 * (n + 1) + 7) // 8 * 8 + (text + 7) // 8 * 8
    return total


@inner
def _bits(at: int, n: int, values: int, mem: Int64, nulls: Bytes, valid: int) -> int:
    """Writes n bits: validity, or the values of bools. Returns their bytes."""
    size = (n + 63) // 64 * 8
    for word in range(size // 8):
        bits = 0
        for i in range(64 * word, min(n, 64 * word + 64)):
            if not nulls[values + i] and (valid or mem[values + i]):
                bits |= 1 << (i - 64 * word)
        store64(at + 8 * word, bits)
    return size


@kernel
def _write(
    header: Bytes,
    numbers: Int64,
    kinds: Int64,
    places: Int64,
    n: int,
    mem: Int64,
    mem_f: Float64,
    nulls: Bytes,
    arena: Bytes,
    ends: Int64,
    out: Bytes,
) -> int:
    """Writes the message into `out`, or nothing where it is too short.

    Args:
        numbers: the places of the header's numbers, in words: length, nodes, buffers, the body's length.

    Returns the bytes of the message; -1 where a column has too much text.
    """
    start, size = len(header), _size(kinds, places, n, mem, nulls, ends)
    if size < 0 or start + size > len(out):
        return -1 if size < 0 else start + size
    copy(address(out), address(header), start)
    words, body = int64s_at(address(out), start // 8), address(out) + start
    at, node, buffer = 0, numbers[1], numbers[2]
    for k in range(len(kinds)):
        kind, place = kinds[k], places[k]
        missing = 0
        for i in range(n):
            missing += nulls[place + i]
        words[node + 2 * k], words[node + 2 * k + 1] = n, missing
        size = _bits(body + at, n, place, mem, nulls, 1) if missing else 0
        words[buffer], words[buffer + 1] = at, size
        at += size
        buffer += 2
        if kind == _BITS:
            size = _bits(body + at, n, place, mem, nulls, 0)
        elif kind == _INT16:
            size = (2 * n + 7) // 8 * 8
            for i in range(n):
                store16(body + at + 2 * i, mem[place + i])
        elif kind == _INT32:
            size = (4 * n + 7) // 8 * 8
            for i in range(n):
                store32(body + at + 4 * i, mem[place + i])
        elif kind == _INT64:
            size = 8 * n
            for i in range(n):
                store64(body + at + 8 * i, mem[place + i])
        elif kind == _FLOAT32:
            size = (4 * n + 7) // 8 * 8
            for i in range(n):
                store_float32(body + at + 4 * i, mem_f[place + i])
        else:
            offsets, size = body + at, (4 * (n + 1) + 7) // 8 * 8
            words[buffer], words[buffer + 1] = at, size
            at += size
            buffer += 2
            begin = start + at
            text = begin
            for i in range(n):
                store32(offsets + 4 * i, text - begin)
                if not nulls[place + i]:
                    code = mem[place + i]
                    first = ends[code - 1] if code else 0
                    copy(address(out) + text, address(arena) + first, ends[code] - first)
                    text += ends[code] - first
            store32(offsets + 4 * n, text - begin)
            size = (text - begin + 7) // 8 * 8
        words[buffer], words[buffer + 1] = at, size
        buffer += 2
        at += size
    words[numbers[0]], words[numbers[3]] = n, at
    return start + at


class BatchAssembler:
    """Makes record batches of one schema.

    Args:
        names: the columns.
        kinds: their types.
    """

    def __init__(self, names: list[str], kinds: list[Type]) -> None:
        self.schema = pa.schema([pa.field(name, ARROW[kind]) for name, kind in zip(names, kinds, strict=True)])
        self._kinds = np.array([_KINDS[kind] for kind in kinds], np.int64)
        self._empty = self.schema.empty_table().to_batches() or [
            pa.RecordBatch.from_arrays([pa.array([], field.type) for field in self.schema], schema=self.schema)
        ]
        one = pa.RecordBatch.from_arrays([pa.nulls(1, field.type) for field in self.schema], schema=self.schema)
        message = one.serialize().to_pybytes()
        (size,) = struct.unpack_from("<i", message, 4)
        self._header = np.frombuffer(message[: 8 + size], np.uint8)
        self._numbers = np.array(_places(message), np.int64)
        self._row_bytes = 16 * len(kinds)  # what a row takes at most, as far as we have seen

    def batch(
        self, places: Int64, n: int, mem: Int64, mem_f: Float64, nulls: Bytes, arena: Bytes, ends: Int64
    ) -> pa.RecordBatch:
        """The batch whose column k is `mem[places[k] : places[k] + n]`.

        Raises:
            OverflowError: a column has more than 2 GiB of text.
        """
        if n == 0:
            return self._empty[0]
        size = len(self._header) + 64 * len(self._kinds) + n * self._row_bytes
        while True:
            out = np.empty(size, np.uint8)
            needed = _write(self._header, self._numbers, self._kinds, places, n, mem, mem_f, nulls, arena, ends, out)
            if needed < 0:
                raise OverflowError("a column of more than 2 GiB of text does not fit one Arrow array")
            if needed <= size:
                return pa.ipc.read_record_batch(pa.py_buffer(out), self.schema)
            size = needed
            self._row_bytes = needed // n + 1


def _places(message: bytes) -> tuple[int, int, int, int]:
    """Where an IPC message's header has its length, its nodes, its buffers and its body's length, in 64-bit words.

    The header is a flatbuffer (Arrow's Message.fbs): Message(version, header_type, header, bodyLength),
    RecordBatch(length, nodes, buffers).
    """
    base = 8  # after the continuation mark and the header's size

    def table(at: int) -> int:
        return at + int(struct.unpack_from("<I", message, at)[0])

    def field(at: int, number: int) -> int:
        vtable = at - struct.unpack_from("<i", message, at)[0]
        (offset,) = struct.unpack_from("<H", message, vtable + 4 + 2 * number)
        if not offset:
            raise ValueError(f"Arrow left out field {number} of an IPC header")
        return at + int(offset)

    root = table(base)
    batch = table(field(root, 2))
    places = (field(batch, 0), table(field(batch, 1)) + 4, table(field(batch, 2)) + 4, field(root, 3))
    if any(place % 8 for place in places):
        raise ValueError("an IPC header whose numbers are not aligned")
    length, nodes, buffers, body = (place // 8 for place in places)
    return length, nodes, buffers, body
