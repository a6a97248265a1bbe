"""Results -> one Arrow record batch, in one kernel call.

A batch of 42 columns built array by array costs more than its features do. Here a kernel writes all buffers behind one
another as the body of an Arrow IPC message, and the numbers of its header (lengths, NULL counts, places of buffers)
into a copy of a header that Arrow itself wrote for this schema; Arrow then reads the message without copying.
"""

# ruff: noqa: PLR0917 -- kernels take arrays; numba knows no objects to bundle them in that load from a cache
# mypy: disable-error-code="untyped-decorator, no-any-return, return-value"
from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.engine.cache import kernel
from streaming.engine.types import ARROW, Type

__all__ = ["Assembler"]

Int64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.uint8]

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


@kernel
def _body_size(kinds: Int64, places: Int64, n: int, mem: Int64, nul: Flags, ends: Int64) -> int:
    """Bytes of the body; -1 where a column of text would not fit Arrow's 32-bit offsets."""
    total = 0
    for k in range(len(kinds)):
        total += (n + 63) // 64 * 8  # validity
        kind = kinds[k]
        if kind == 0:
            total += (n + 63) // 64 * 8
        elif kind == 1:
            total += (2 * n + 7) // 8 * 8
        elif kind in (2, 4):
            total += (4 * n + 7) // 8 * 8
        elif kind == 3:
            total += 8 * n
        else:
            text = 0
            for i in range(places[k], places[k] + n):
                if not nul[i]:
                    code = mem[i]
                    text += ends[code] - (ends[code - 1] if code else 0)
            if text >= 1 << 31:
                return -1
            total += (4 * (n + 1) + 7) // 8 * 8 + (text + 7) // 8 * 8
    return total


@kernel
def _write(
    kinds: Int64, places: Int64, n: int, mem: Int64, mem_f: Any, nul: Flags, arena: Any, ends: Int64, out: Any,
    start: int, nodes: int, buffers: int,
) -> None:  # fmt: skip
    """Writes the body from byte `start` of `out`, and the header's numbers from words `nodes` and `buffers`."""
    words, out16, out32 = out.view(np.int64), out.view(np.int16), out.view(np.int32)
    float32 = out.view(np.float32)
    at, buffer = start, buffers
    for k in range(len(kinds)):
        kind, place = kinds[k], places[k]
        missing = 0
        for i in range(n):
            missing += nul[place + i]
        words[nodes + 2 * k], words[nodes + 2 * k + 1] = n, missing
        size = (n + 63) // 64 * 8 if missing else 0
        words[buffer], words[buffer + 1] = at - start, size
        buffer += 2
        if missing:
            for i in range(size):
                out[at + i] = 0
            for i in range(n):
                if not nul[place + i]:
                    out[at + (i >> 3)] |= np.uint8(1 << (i & 7))
            at += size
        if kind == 0:
            size = (n + 63) // 64 * 8
            for i in range(size):
                out[at + i] = 0
            for i in range(n):
                if mem[place + i] and not nul[place + i]:
                    out[at + (i >> 3)] |= np.uint8(1 << (i & 7))
        elif kind == 1:
            size = (2 * n + 7) // 8 * 8
            for i in range(n):
                out16[at // 2 + i] = mem[place + i]
        elif kind == 2:
            size = (4 * n + 7) // 8 * 8
            for i in range(n):
                out32[at // 4 + i] = mem[place + i]
        elif kind == 3:
            size = 8 * n
            for i in range(n):
                words[at // 8 + i] = mem[place + i]
        elif kind == 4:
            size = (4 * n + 7) // 8 * 8
            for i in range(n):
                float32[at // 4 + i] = np.float32(mem_f[place + i])
        else:
            size = (4 * (n + 1) + 7) // 8 * 8
            words[buffer], words[buffer + 1] = at - start, size
            buffer += 2
            offsets, base = at // 4, at + size
            text = base
            for i in range(n):
                out32[offsets + i] = text - base
                if not nul[place + i]:
                    code = mem[place + i]
                    for j in range(ends[code - 1] if code else 0, ends[code]):
                        out[text] = arena[j]
                        text += 1
            out32[offsets + n] = text - base
            at = base
            size = (text - base + 7) // 8 * 8
        words[buffer], words[buffer + 1] = at - start, size
        buffer += 2
        at += size


class Assembler:
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
        self._length, self._nodes, self._buffers, self._body = _places(message)

    def batch(
        self, places: Int64, n: int, mem: Int64, mem_f: Any, nul: Flags, arena: Any, ends: Int64
    ) -> pa.RecordBatch:  # fmt: skip
        """The batch whose column k is `mem[places[k] : places[k] + n]`.

        Raises:
            OverflowError: a column has more than 2 GiB of text.
        """
        if n == 0:
            return self._empty[0]
        size = _body_size(self._kinds, places, n, mem, nul, ends)
        if size < 0:
            raise OverflowError("a column of more than 2 GiB of text does not fit one Arrow array")
        start = len(self._header)
        out = np.empty(start + size, np.uint8)
        out[:start] = self._header
        words = out[:start].view(np.int64)
        words[self._length] = n
        words[self._body] = size
        _write(
            self._kinds, places, n, mem, mem_f, nul, arena, ends, out, start, self._nodes, self._buffers
        )  # fmt: skip
        return pa.ipc.read_record_batch(pa.py_buffer(out), self.schema)


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
