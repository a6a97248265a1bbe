"""Kernels of joins: the row that belongs to each element."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from streaming.engine.kernels.indexes import UNMEASURED, IndexField, fill_probe, head, limit_of, live, row_of
from streaming.engine.kernels.instructions import REQUESTS, SLOT_BITS, Domain, State
from streaming.engine.kernels.operands import JOIN_FIELDS, JoinField, KeyField
from streaming.engine.kernels.registers import element_place, is_vector, place
from streaming.engine.native.kernel import Bytes, Int64, Matrix, inner
from streaming.engine.native.memory import address, int64s_at, word

__all__ = ["join", "pick"]


@inner
def join(
    out: int,
    at: int,
    operands: Int64,
    domains: Matrix,
    mem: Int64,
    nulls: Bytes,
    state: Int64,
    indexes: Matrix,
    limits: Matrix,
) -> int:
    """The newest row of each element's key into register `out`; NULL where there is none.

    `at`: where the `operands.Join` lies that says which key.

    Returns 0, or the length of `mem` that it needs.
    """
    domain, base = out >> SLOT_BITS, place(domains, out)
    n = domains[domain, Domain.LENGTH]
    index, n_keys = operands[at + JoinField.INDEX], operands[at + JoinField.N_KEYS]
    strict, keys_at = operands[at + JoinField.STRICT], at + JOIN_FIELDS
    room = state[State.TOP]
    if room + n_keys + 2 > len(mem):
        return room + n_keys + 2
    probe = int64s_at(address(mem) + 8 * room, n_keys + 1)
    seen = int64s_at(address(mem) + 8 * (room + n_keys + 1), 1)
    entries = int64s_at(indexes[index, IndexField.ENTRIES], UNMEASURED)
    for i in range(n):
        request = i
        if domain > REQUESTS:
            request = mem[domains[domain, Domain.BASE] + n + i]
        fill_probe(probe, operands, keys_at, n_keys, i, domains, mem, nulls)
        entry = head(indexes[index], probe)
        if strict:
            for k in range(n_keys):
                value = operands[keys_at + KeyField.SIZE * k + KeyField.REGISTER]
                if nulls[element_place(domains, value, i)]:
                    entry = -1
        seen[0] = 0
        entry = live(indexes[index], entries, entry, limit_of(limits, request, index), seen, word(0))
        mem[base + i] = row_of(indexes[index], entry) if entry >= 0 else entry
        nulls[base + i] = entry < 0
    return 0


@inner
def pick(base: int, n: int, candidates: int, register: int, domains: Matrix, mem: Int64, nulls: Bytes) -> None:
    """The first of each element's candidates, which are a domain, whose condition is true; NULL where none is."""
    offsets, rows = domains[candidates, Domain.OFFSETS], domains[candidates, Domain.BASE]
    condition, step = place(domains, register), is_vector(register)
    for i in range(n):
        nulls[base + i] = 1
        mem[base + i] = -1
        for p in range(mem[offsets + i], mem[offsets + i + 1]):
            if mem[condition + step * p] and not nulls[condition + step * p]:
                mem[base + i] = mem[rows + p]
                nulls[base + i] = 0
                break
