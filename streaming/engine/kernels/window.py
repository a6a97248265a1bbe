"""Kernels of windows: the rows of each element's windows, and where each frame begins and ends among them."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from streaming.engine.kernels.indexes import (
    EVERYTHING,
    UNMEASURED,
    IndexField,
    fill_probe,
    first_entry,
    limit_of,
    live,
    row_of,
)
from streaming.engine.kernels.instructions import REQUESTS, ROW_BITS, Domain, State
from streaming.engine.kernels.operands import (
    COLLECT_FIELDS,
    CollectField,
    FilteredSourceField,
    FrameField,
    KeyField,
    OwnRow,
)
from streaming.engine.kernels.registers import place
from streaming.engine.native.kernel import Bytes, Int64, Matrix, inner
from streaming.engine.native.memory import address, int64s_at, word

__all__ = ["collect"]


@inner
def _first_below(mem: Int64, last: int, n: int, bound: int) -> int:
    """The first of n times, which do not increase, that is less than `bound`; n where there is none.

    Time number p is mem[last - p].
    """
    low, high = 0, n
    while low < high:
        middle = (low + high) >> 1
        if mem[last - middle] < bound:
            high = middle
        else:
            low = middle + 1
    return low


@inner
def _frame(mem: Int64, last: int, n: int, time: int, operands: Int64, frame: int, uncounted: int) -> tuple[int, int]:
    """Where a frame begins and ends among `n` rows, newest first (for their times see `_first_below`).

    `uncounted`: the first row, where a frame that ends before it has it nevertheless, takes no place of MAXSIZE.
    """
    start, end = operands[frame + FrameField.START], operands[frame + FrameField.END]
    maxsize = operands[frame + FrameField.MAXSIZE]
    if operands[frame + FrameField.BY_ROWS]:
        high = min(start + 1, n) if start >= 0 else n
        return min(end, high), high
    high = _first_below(mem, last, n, time - start) if start >= 0 else n
    near = time - end
    low = 0
    if near < 0:  # OpenMLDB cuts the bound off at 0: rows of time 0 are in
        low = _first_below(mem, last, n, word(1))
    elif near < EVERYTHING:  # that is the time of a request without one
        low = _first_below(mem, last, n, near + 1)
    low = min(low, high)
    if maxsize:
        high = min(high, low + maxsize + (1 if uncounted and end > 0 and low == 0 else 0))
    return low, high


@inner
def _chosen(operands: Int64, filtered: int, domains: Matrix, mem: Int64, nulls: Bytes, parent: int, p: int) -> int:
    """`p` or the next element of the parent's segment that the condition of a filtered source lets in; -1: none."""
    domain = operands[filtered + FilteredSourceField.DOMAIN]
    test = place(domains, operands[filtered + FilteredSourceField.CONDITION])
    last = mem[domains[domain, Domain.OFFSETS] + parent + 1]
    while p < last:
        if mem[test + p] and not nulls[test + p]:
            return p
        p += 1
    return -1


@inner
def _reach(operands: Int64, frames_at: int, n_frames: int, exclude_time: int) -> tuple[int, int, int]:
    """The rows that some frame may reach: by place, or by both time and place.

    Returns:
        The last place of a frame by rows; how far back a frame by time reaches, and the number of rows that it needs.
    """
    everything = word(EVERYTHING)
    place_max = everything if n_frames == 0 else word(-1)
    span_max, range_max = word(-1), word(0)
    for f in range(n_frames):
        frame = frames_at + FrameField.SIZE * f
        start, end = operands[frame + FrameField.START], operands[frame + FrameField.END]
        maxsize = operands[frame + FrameField.MAXSIZE]
        if start < 0:
            start = everything
        if operands[frame + FrameField.BY_ROWS]:
            place_max = max(place_max, start)
        else:
            span_max = max(span_max, start)
            range_max = max(range_max, maxsize if maxsize and end == 0 and not exclude_time else everything)
    return place_max, span_max, range_max


@inner
def _newest_source(
    operands: Int64, sources_at: int, n_sources: int, cursor: Int64, domains: Matrix, mem: Int64, indexes: Matrix
) -> int:
    """The source whose next row is the newest, of equal times the first one; -1: none has a row left."""
    source, newest = -1, word(0)
    for j in range(n_sources):
        if cursor[j] >= 0:
            index = operands[sources_at + j]
            if index < 0:
                time_register = operands[-1 - index + FilteredSourceField.TIME]
                time = mem[place(domains, time_register) + cursor[j]]
            else:
                time = int64s_at(indexes[index, IndexField.ENTRIES], UNMEASURED)[2 * cursor[j] + 1]
            if source < 0 or time > newest:
                source, newest = j, time
    return source


@inner
def _walk(
    merges: bool,
    operands: Int64,
    at: int,
    cursor: Int64,
    seen: Int64,
    i: int,
    request: int,
    time: int,
    top: int,
    reach: tuple[int, int, int],
    domains: Matrix,
    mem: Int64,
    nulls: Bytes,
    indexes: Matrix,
    limits: Matrix,
) -> int:
    """Puts the rows of element i, newest first, behind mem[top], and their times in front of the end of `mem`.

    Args:
        merges: whether rows of several sources, or of a filtered one, are merged; compiled once for each: rows of one
            source are what most windows have.
        at: where the `operands.Collect` lies.
        cursor: by source, the entry (of a filtered source the element) that comes next; -1: none.
        seen: see `live`.
        request: the request that the element belongs to.
        time: of the element.
        reach: see `_reach`.

    Returns the number of rows, or -1 where `mem` is too short.
    """
    n_sources, own_row = operands[at + CollectField.N_SOURCES], operands[at + CollectField.OWN_ROW]
    sources_at, last = at + COLLECT_FIELDS, len(mem) - 1
    place_max, span_max, range_max = reach
    oldest = time - span_max
    source, index, entry, entries_at, limit = word(0), word(0), word(-1), word(0), word(0)
    if not merges:
        index, entry = operands[sources_at], cursor[0]
        entries_at, limit = indexes[index, IndexField.ENTRIES], limit_of(limits, request, index)
    n_rows = word(0)
    if own_row == OwnRow.FIRST or own_row == OwnRow.FIRST_UNCOUNTED:  # noqa: PLR1714 - a tuple costs numba much time
        if top >= last:
            return -1
        mem[last] = time
        mem[top] = -1
        n_rows += 1
    while True:
        if merges:
            source = _newest_source(operands, sources_at, n_sources, cursor, domains, mem, indexes)
            if source < 0:
                break
            index, entry = operands[sources_at + source], cursor[source]
            if index >= 0:
                entries_at, limit = indexes[index, IndexField.ENTRIES], limit_of(limits, request, index)
        elif entry < 0:
            break
        entries = int64s_at(entries_at, UNMEASURED)
        if index >= 0:
            row_time = entries[2 * entry + 1]
        else:
            row_time = mem[place(domains, operands[-1 - index + FilteredSourceField.TIME]) + entry]
        if n_rows > place_max and (row_time < oldest or n_rows >= range_max):
            break
        if top + n_rows >= last - n_rows:
            return -1
        mem[last - n_rows] = row_time
        if index >= 0:
            mem[top + n_rows] = row_of(indexes[index], entry) | source << ROW_BITS
            entry = live(indexes[index], entries, entries[2 * entry], limit, seen, source)
        else:
            rows = domains[operands[-1 - index + FilteredSourceField.DOMAIN], Domain.BASE]
            mem[top + n_rows] = mem[rows + entry] | source << ROW_BITS
            entry = _chosen(operands, -1 - index, domains, mem, nulls, i, entry + 1)
        if merges:
            cursor[source] = entry
        n_rows += 1
    return n_rows


@inner
def _lay_out(out: int, n: int, start: int, m: int, offsets: int, domains: Matrix, mem: Int64, state: Int64) -> int:
    """Makes a domain of `m` rows from mem[start] on, of which `offsets` says whose they are.

    Returns 0, or the length of `mem` that it needs.
    """
    mem[offsets + n] = m
    domains[out, Domain.LENGTH], domains[out, Domain.BASE] = m, start
    end = start + m * domains[out, Domain.SLOTS]
    if end > len(mem):
        return end
    owner = start + m
    for i in range(n):
        for p in range(mem[offsets + i], mem[offsets + i + 1]):
            mem[owner + p] = i
    state[State.TOP] = end
    return 0


@inner
def collect(
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
    """Lays out domain `out`: for each parent element its rows, newest first, as far as some frame reaches.

    `at`: where the `operands.Collect` lies that says which rows.

    Returns 0, or the length of `mem` that it needs.
    """
    n_sources, n_keys = operands[at + CollectField.N_SOURCES], operands[at + CollectField.N_KEYS]
    n_frames = operands[at + CollectField.N_FRAMES]
    own_row, bounded = operands[at + CollectField.OWN_ROW], operands[at + CollectField.BOUNDED]
    exclude_time, time_register = operands[at + CollectField.EXCLUDE_TIME], operands[at + CollectField.TIME]
    sources_at = at + COLLECT_FIELDS
    keys_at = sources_at + n_sources
    frames_at = keys_at + KeyField.SIZE * n_keys
    parent = domains[out, Domain.PARENT]
    n = domains[parent, Domain.LENGTH]
    offsets, frames = state[State.TOP], state[State.TOP] + n + 1
    room = frames + 2 * n_frames * n
    top = room + n_keys + 1 + 2 * n_sources  # rows go here until the end is known
    if top + 1024 > len(mem):
        return top + 1024
    domains[out, Domain.OFFSETS], domains[out, Domain.FRAMES] = offsets, frames
    probe = int64s_at(address(mem) + 8 * room, n_keys + 1)
    cursor = int64s_at(address(mem) + 8 * (room + n_keys + 1), n_sources)
    seen = int64s_at(address(mem) + 8 * (room + n_keys + 1 + n_sources), n_sources)
    reach = _reach(operands, frames_at, n_frames, exclude_time)
    merges = n_sources != 1 or operands[sources_at] < 0
    start = top
    nested = parent > REQUESTS and domains[parent, Domain.PARENT] > 0
    for i in range(n):
        mem[offsets + i] = top - start
        fill_probe(probe, operands, keys_at, n_keys, i, domains, mem, nulls)
        time = EVERYTHING
        if time_register >= 0:
            time = mem[place(domains, time_register) + i]
        request = i
        if nested:
            request = mem[domains[parent, Domain.BASE] + domains[parent, Domain.LENGTH] + i]
        newest = time - 1 if exclude_time else time
        for j in range(n_sources):
            index = operands[sources_at + j]
            if index < 0:
                begin = mem[domains[operands[-1 - index + FilteredSourceField.DOMAIN], Domain.OFFSETS] + i]
                cursor[j] = _chosen(operands, -1 - index, domains, mem, nulls, i, begin)
                continue
            seen[j] = 0
            limit = limit_of(limits, request, index)
            skip = 1 if j == 0 and own_row == OwnRow.NEWEST_OUT else 0
            cursor[j] = first_entry(indexes[index], probe, limit, seen, j, newest, bounded, skip)
        if merges:
            n_rows = _walk(
                True, operands, at, cursor, seen, i, request, time, top, reach, domains, mem, nulls, indexes, limits
            )
        else:
            n_rows = _walk(
                False, operands, at, cursor, seen, i, request, time, top, reach, domains, mem, nulls, indexes, limits
            )
        if n_rows < 0:
            return 2 * len(mem)
        top += n_rows
        for f in range(n_frames):
            frame = frames_at + FrameField.SIZE * f
            uncounted = 1 if own_row == OwnRow.FIRST_UNCOUNTED else 0
            low, high = _frame(mem, len(mem) - 1, n_rows, time, operands, frame, uncounted)
            mem[frames + 2 * f * n + i] = low
            mem[frames + (2 * f + 1) * n + i] = high
    return _lay_out(out, n, start, top - start, offsets, domains, mem, state)
