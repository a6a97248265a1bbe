"""Which requests an event of their key follows in time: the search behind labels by a later event."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streaming.errors import BadInput

__all__ = ["follows"]


def follows(
    request_key: NDArray[np.int64],
    request_ms: NDArray[np.int64],
    event_key: NDArray[np.int64],
    event_ms: NDArray[np.int64],
    horizon_ms: int,
) -> NDArray[np.int8]:
    """1 where an event of the request's key is in (request, request + horizon], else 0.

    Keys are any integers; times are epoch ms. One sort of the events, one binary search per request.
    """
    label = np.zeros(len(request_key), np.int8)
    if not len(event_key):
        return label
    by_key_and_time = np.lexsort([event_ms, event_key])
    event_key, event_ms = event_key[by_key_and_time], event_ms[by_key_and_time]
    # The keys' numbers are made dense and put in front of the time, so that one sorted array of int64 is searched.
    keys, event_dense = np.unique(event_key, return_inverse=True)
    dense = np.searchsorted(keys, request_key)
    known = np.flatnonzero((dense < len(keys)) & (keys[np.minimum(dense, len(keys) - 1)] == request_key))
    if not len(known):
        return label
    origin = min(int(event_ms.min()), int(request_ms[known].min()))
    span = max(int(event_ms.max()), int(request_ms[known].max())) - origin + 1
    if span * len(keys) >= 1 << 62:
        raise BadInput(f"times span {span} ms over {len(keys)} keys: too far apart to be real")
    sorted_events = event_dense * span + (event_ms - origin)
    after = np.searchsorted(sorted_events, dense[known] * span + (request_ms[known] - origin), side="right")
    next_event = np.minimum(after, len(sorted_events) - 1)
    found = (after < len(sorted_events)) & (event_dense[next_event] == dense[known])
    label[known] = found & (event_ms[next_event] - request_ms[known] <= horizon_ms)
    return label
