"""Kernels that find rows: the windows of a batch of requests, and the rows that joins match."""

# mypy: disable-error-code="no-any-return, return-value"
from __future__ import annotations

from streaming.engine.native.kernel import Bytes, Int64, Matrix, inner
from streaming.engine.native.memory import address, int64s_at, word
from streaming.engine.storage.table import find_key, key_word

__all__ = ["EVERYWHERE", "ROWS", "collect", "flat_column", "join"]

# Columns of the tables of indexes and tables that `execute` fills with addresses.
SLOTS, SLOTS_SIZE, KEYS, KEYS_SIZE, HEADS, ENTRIES, ROW_OF = 0, 1, 2, 3, 4, 5, 6
LATEST, EXPIRY, BOTH = 7, 8, 9  # time to live: rows per key, the oldest time that lives, whether both must be over
ROWS, WIDTH, N_COLUMNS = 0, 1, 2
EVERYWHERE = 1 << 40  # the length of an array that nobody measured


@inner
def _head(index: Int64, probe: Int64) -> int:
    """The newest entry of a key; -1 where the key is unknown."""
    slots = int64s_at(index[SLOTS], index[SLOTS_SIZE])
    keys = int64s_at(index[KEYS], index[KEYS_SIZE])
    slot = find_key(probe, slots, keys)
    if slots[slot] < 0:
        return -1
    return int64s_at(index[HEADS], EVERYWHERE)[slots[slot]]


@inner
def _live(index: Int64, entries: Int64, entry: int, limit: int, seen: Int64, source: int) -> int:
    """`entry` or the next older one that is there: before the limit, and within its time to live; -1: none."""
    while entry >= limit:
        entry = entries[2 * entry]
    if entry >= 0 and (index[LATEST] or index[EXPIRY]):
        many = index[LATEST] > 0 and seen[source] >= index[LATEST]
        old = entries[2 * entry + 1] < index[EXPIRY]
        if (many and old) if index[BOTH] else (many or old):
            return -1
        seen[source] += 1
    return entry


@inner
def _address(doms: Matrix, reference: int) -> int:
    d = reference >> 20
    return doms[d, 1] + (reference & 0xFFFFF) * doms[d, 0]


@inner
def _fill_probe(probe: Int64, extra: Int64, at: int, n_keys: int, i: int, doms: Matrix, mem: Int64, nul: Bytes) -> None:
    missing = 0
    for k in range(n_keys):
        reference, text = extra[at + 2 * k], extra[at + 2 * k + 1]
        place = _address(doms, reference) + (i if reference >> 20 else 0)
        probe[k] = key_word(mem[place], nul[place] != 0, text != 0)
        if nul[place] and not text:
            missing |= 1 << k
    probe[n_keys] = missing


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
def _frame(
    mem: Int64, last: int, n: int, ts: int, uncounted: int, rows: int, begin: int, end: int, maxsize: int
) -> tuple[int, int]:
    """Where a frame begins and ends among `n` rows, newest first (for their times see `_first_below`).

    `uncounted`: the first row, where a frame that ends before it has it nevertheless, takes no place of MAXSIZE.
    """
    if rows:
        high = min(begin + 1, n) if begin >= 0 else n
        return min(end, high), high
    high = _first_below(mem, last, n, ts - begin) if begin >= 0 else n
    near = ts - end
    low = 0
    if near < 0:  # OpenMLDB cuts the bound off at 0: rows of time 0 are in
        low = _first_below(mem, last, n, word(1))
    elif near < 0x7FFFFFFFFFFFFFFF:  # that is the time of a request without one
        low = _first_below(mem, last, n, near + 1)
    low = min(low, high)
    if maxsize:
        high = min(high, low + maxsize + (1 if uncounted and end > 0 and low == 0 else 0))
    return low, high


@inner
def _chosen(extra: Int64, place: int, doms: Matrix, mem: Int64, nul: Bytes, parent: int, p: int) -> int:
    """`p` or the next element of the parent's segment that the condition of a filtered source lets in; -1: none."""
    domain, test = extra[place + 1], _address(doms, extra[place + 2])
    last = mem[doms[domain, 2] + parent + 1]
    while p < last:
        if mem[test + p] and not nul[test + p]:
            return p
        p += 1
    return -1


@inner
def collect(
    out: int, at: int, extra: Int64, doms: Matrix, mem: Int64, nul: Bytes, state: Int64, indexes: Matrix, limits: Matrix
) -> int:
    """Lays out domain `out`: for each parent element its rows, newest first, as far as some frame reaches.

    `extra` from `at`: number of sources, of keys, of frames, register of the time or -1; 1 where the row that the
    window belongs to is the first, plus 2 where it takes no place (see `_frame`), 4 where the newest row of the first
    source is left out; whether other rows of its time are out, whether the time bounds the rows. Then the sources,
    (register, is text) of the keys, and (is rows, start or -1, end, maxsize) of the frames. A source is the number of
    an index, or -1 - p, where at p of `extra` there are the index, the domain that holds its rows, the register that
    says which of them are in, and that of their times.

    Returns 0, or the length of `mem` that it needs.
    """
    n_sources, n_keys, n_frames, ts_reference = extra[at], extra[at + 1], extra[at + 2], extra[at + 3]
    own, uncounted, without_newest = extra[at + 4] & 1, extra[at + 4] & 2, extra[at + 4] & 4
    exclude_time, bounded = extra[at + 5], extra[at + 6]
    sources_at = at + 7
    keys_at = sources_at + n_sources
    frames_at = keys_at + 2 * n_keys
    n = doms[doms[out, 5], 0]
    offsets, frames = state[3], state[3] + n + 1
    room = frames + 2 * n_frames * n
    top = room + n_keys + 1 + 2 * n_sources + 2 * n_frames  # rows go here until the end is known
    if top + 1024 > len(mem):
        return top + 1024
    doms[out, 2], doms[out, 3] = offsets, frames
    probe = int64s_at(address(mem) + 8 * room, n_keys + 1)
    cursor = int64s_at(address(mem) + 8 * (room + n_keys + 1), n_sources)
    seen = int64s_at(address(mem) + 8 * (room + n_keys + 1 + n_sources), n_sources)
    lo = int64s_at(address(mem) + 8 * (top - 2 * n_frames), n_frames)
    hi = int64s_at(address(mem) + 8 * (top - n_frames), n_frames)
    last = len(mem) - 1  # times of one request's rows lie from here downwards
    limited = limits.shape[0] > 0
    # the rows that some frame of one source may reach: by place, or by time and place
    everything = word(0x7FFFFFFFFFFFFFFF)
    place_max = everything if n_frames == 0 else word(-1)
    span_max, range_max = word(-1), word(0)
    for f in range(n_frames):
        begin, end, maxsize = extra[frames_at + 4 * f + 1], extra[frames_at + 4 * f + 2], extra[frames_at + 4 * f + 3]
        if begin < 0:
            begin = everything
        if extra[frames_at + 4 * f]:
            place_max = max(place_max, begin)
        else:
            span_max = max(span_max, begin)
            range_max = max(range_max, maxsize if maxsize and end == 0 and not exclude_time else everything)
    start = top
    depth2 = doms[doms[out, 5], 5] > 0 and doms[out, 5] > 1
    for i in range(n):
        mem[offsets + i] = top - start
        _fill_probe(probe, extra, keys_at, n_keys, i, doms, mem, nul)
        ts = 0x7FFFFFFFFFFFFFFF
        if ts_reference >= 0:
            ts = mem[_address(doms, ts_reference) + i]
        request = i
        if depth2:
            request = mem[doms[doms[out, 5], 1] + doms[doms[out, 5], 0] + i]
        for j in range(n_sources):
            index = extra[sources_at + j]
            if index < 0:
                begin = mem[doms[extra[-index], 2] + i]
                cursor[j] = _chosen(extra, -1 - index, doms, mem, nul, i, begin)
                continue
            entry = _head(indexes[index], probe)
            entries = int64s_at(indexes[index, ENTRIES], EVERYWHERE)
            limit = limits[request, index] if limited else everything
            seen[j] = 0
            entry = _live(indexes[index], entries, entry, limit, seen, j)
            if bounded:
                newest = ts - 1 if exclude_time else ts
                while entry >= 0 and entries[2 * entry + 1] > newest:
                    entry = _live(indexes[index], entries, entries[2 * entry], limit, seen, j)
            if j == 0 and without_newest != 0 and entry >= 0:
                entry = _live(indexes[index], entries, entries[2 * entry], limit, seen, j)
            cursor[j] = entry
        position = 0
        if n_sources == 1 and extra[sources_at] >= 0:
            index = extra[sources_at]
            entries = int64s_at(indexes[index, ENTRIES], EVERYWHERE)
            limit = limits[request, index] if limited else everything
            entry, row, row_ts = cursor[0], word(-1), ts
            if own == 0 and entry >= 0:
                row, row_ts = entry, entries[2 * entry + 1]
            oldest = ts - span_max
            while own != 0 or row >= 0:
                if position > place_max and (row_ts < oldest or position >= range_max):
                    break
                if top + position >= last:
                    return 2 * len(mem)
                mem[last - position] = row_ts
                if row >= 0 and indexes[index, ROW_OF]:
                    row = int64s_at(indexes[index, ROW_OF], EVERYWHERE)[row]
                mem[top] = row
                top += 1
                position += 1
                if position > 1 or own == 0:
                    entry = _live(indexes[index], entries, entries[2 * entry], limit, seen, word(0))
                if entry < 0:
                    break
                row, row_ts = entry, entries[2 * entry + 1]
            for f in range(n_frames):
                frame = frames_at + 4 * f
                low, high = _frame(
                    mem,
                    last,
                    position,
                    ts,
                    uncounted,
                    extra[frame],
                    extra[frame + 1],
                    extra[frame + 2],
                    extra[frame + 3],
                )
                mem[frames + 2 * f * n + i] = low
                mem[frames + (2 * f + 1) * n + i] = high
            continue
        for f in range(n_frames):
            lo[f], hi[f] = -1, -1
        row_ts, row = ts, -1
        first = own != 0
        while True:
            source = -1
            if first:
                first = False
                row_ts, row = ts, -1
            else:
                # newest of the sources' next entries; of equal times the first source's
                for j in range(n_sources):
                    if cursor[j] >= 0:
                        index = extra[sources_at + j]
                        if index < 0:
                            t = mem[_address(doms, extra[2 - index]) + cursor[j]]
                        else:
                            t = int64s_at(indexes[index, ENTRIES], EVERYWHERE)[2 * cursor[j] + 1]
                        if source < 0 or t > row_ts:
                            source, row_ts = j, t
                if source < 0:
                    break
                index = extra[sources_at + source]
                entry = cursor[source]
                if index < 0:
                    row = mem[doms[extra[-index], 1] + entry]
                    cursor[source] = _chosen(extra, -1 - index, doms, mem, nul, i, entry + 1)
                else:
                    row = entry
                    if indexes[index, ROW_OF]:
                        row = int64s_at(indexes[index, ROW_OF], EVERYWHERE)[entry]
                    entries = int64s_at(indexes[index, ENTRIES], EVERYWHERE)
                    limit = limits[request, index] if limited else everything
                    cursor[source] = _live(indexes[index], entries, entries[2 * entry], limit, seen, source)
                row |= source << 40
            alive = n_frames == 0
            for f in range(n_frames):
                if hi[f] >= 0:
                    continue
                frame = frames_at + 4 * f
                begin, end, maxsize = extra[frame + 1], extra[frame + 2], extra[frame + 3]
                if extra[frame]:
                    if begin >= 0 and position > begin:
                        hi[f] = position
                        continue
                    if position >= end and lo[f] < 0:
                        lo[f] = position
                else:
                    if begin >= 0 and row_ts < ts - begin:
                        hi[f] = position
                        continue
                    near = max(ts - end, word(0))  # OpenMLDB cuts the bound off at 0: rows of time 0 are in
                    if row_ts <= near:
                        if lo[f] < 0:
                            lo[f] = position
                        if maxsize and position - lo[f] >= maxsize + (1 if uncounted and end > 0 and lo[f] == 0 else 0):
                            hi[f] = position
                            continue
                alive = True
            if not alive:
                break
            if top >= len(mem):
                return 2 * len(mem)
            mem[top] = row
            top += 1
            position += 1
        for f in range(n_frames):
            end = hi[f] if hi[f] >= 0 else position
            mem[frames + 2 * f * n + i] = lo[f] if lo[f] >= 0 else end
            mem[frames + (2 * f + 1) * n + i] = end
    m = top - start
    mem[offsets + n] = m
    doms[out, 0], doms[out, 1] = m, start
    end = start + m * doms[out, 4]
    if end > len(mem):
        return end
    owner = start + m
    for i in range(n):
        for p in range(mem[offsets + i], mem[offsets + i + 1]):
            mem[owner + p] = i
    state[3] = end
    return 0


@inner
def flat_column(
    out: int,
    source: int,
    words: Int64,
    width: int,
    n_columns: int,
    c: int,
    alone: int,
    doms: Matrix,
    mem: Int64,
    nul: Bytes,
) -> None:
    """Column `c` of the rows of `source` (-1: of whichever source) into register `out` of their domain.

    `alone`: the other elements become NULL instead of staying as they are.
    """
    d = out >> 20
    place, rows, m = _address(doms, out), doms[d, 1], doms[d, 0]
    flag_word, bit = n_columns + c // 62, c % 62
    for p in range(m):
        row = mem[rows + p]
        if row >= 0 and (source < 0 or row >> 40 == source):
            base = (row & 0xFFFFFFFFFF) * width
            mem[place + p] = words[base + c]
            nul[place + p] = (words[base + flag_word] >> bit) & 1
        elif alone:
            mem[place + p] = 0
            nul[place + p] = 1


@inner
def join(
    out: int, at: int, extra: Int64, doms: Matrix, mem: Int64, nul: Bytes, state: Int64, indexes: Matrix, limits: Matrix
) -> int:
    """The newest row of each element's key into register `out`; NULL where there is none.

    `extra` from `at`: index number, number of keys, whether NULL keys match nothing, (register, is text) of the keys.

    Returns 0, or the length of `mem` that it needs.
    """
    d = out >> 20
    place, n = _address(doms, out), doms[d, 0]
    index, n_keys, strict = extra[at], extra[at + 1], extra[at + 2]
    room = state[3]
    if room + n_keys + 2 > len(mem):
        return room + n_keys + 2
    probe = int64s_at(address(mem) + 8 * room, n_keys + 1)
    seen = int64s_at(address(mem) + 8 * (room + n_keys + 1), 1)
    entries = int64s_at(indexes[index, ENTRIES], EVERYWHERE)
    for i in range(n):
        request = i
        if d > 1:
            request = mem[doms[d, 1] + n + i]
        limit = limits[request, index] if limits.shape[0] else word(0x7FFFFFFFFFFFFFFF)
        _fill_probe(probe, extra, at + 3, n_keys, i, doms, mem, nul)
        entry = _head(indexes[index], probe)
        if strict:
            for k in range(n_keys):
                reference = extra[at + 3 + 2 * k]
                if nul[_address(doms, reference) + (i if reference >> 20 else 0)]:
                    entry = -1
        seen[0] = 0
        entry = _live(indexes[index], entries, entry, limit, seen, word(0))
        mem[place + i] = entry
        nul[place + i] = entry < 0
        if entry >= 0 and indexes[index, ROW_OF]:
            mem[place + i] = int64s_at(indexes[index, ROW_OF], EVERYWHERE)[entry]
    return 0
