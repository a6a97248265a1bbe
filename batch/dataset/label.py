"""Labels: is the pair ordered (action type 4) strictly later than the request and within five days?

Both bounds to the millisecond: `request < order <= request + 5 days`. An order that is the request's own cause does not
count. Where a dataset brings its `action` table, its actionValue is the label instead (`recorded`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from streaming.errors import BadInput

__all__ = ["HORIZON_MS", "LABEL_COLUMN", "ORDER_TYPE", "five_day_rule", "later_order", "recorded"]

HORIZON_MS = 5 * 86_400_000
ORDER_TYPE = "4"
LABEL_COLUMN = "action_actionValue_multi_direct_2"


def later_order(
    request_pair: NDArray[np.int64],
    request_ms: NDArray[np.int64],
    order_pair: NDArray[np.int64],
    order_ms: NDArray[np.int64],
    horizon_ms: int = HORIZON_MS,
) -> NDArray[np.int8]:
    """1 where the request's pair has an order in (request, request + horizon], else 0.

    Pairs are any integers; times are epoch ms. One sort of the orders, one binary search per request.
    """
    label = np.zeros(len(request_pair), np.int8)
    if not len(order_pair):
        return label
    by_pair_and_time = np.lexsort([order_ms, order_pair])
    order_pair, order_ms = order_pair[by_pair_and_time], order_ms[by_pair_and_time]
    # The pairs' numbers are made dense and put in front of the time, so that one sorted array of int64 is searched.
    pairs, order_dense = np.unique(order_pair, return_inverse=True)
    dense = np.searchsorted(pairs, request_pair)
    known = np.flatnonzero((dense < len(pairs)) & (pairs[np.minimum(dense, len(pairs) - 1)] == request_pair))
    if not len(known):
        return label
    origin = min(int(order_ms.min()), int(request_ms[known].min()))
    span = max(int(order_ms.max()), int(request_ms[known].max())) - origin + 1
    if span * len(pairs) >= 1 << 62:
        raise BadInput(f"times span {span} ms over {len(pairs)} ordered pairs: too far apart to be real")
    keys = order_dense * span + (order_ms - origin)
    after = np.searchsorted(keys, dense[known] * span + (request_ms[known] - origin), side="right")
    next_order = np.minimum(after, len(keys) - 1)
    found = (after < len(keys)) & (order_dense[next_order] == dense[known])
    label[known] = found & (order_ms[next_order] - request_ms[known] <= horizon_ms)
    return label


def five_day_rule(requests: pa.Table, actions: pa.Table) -> NDArray[np.int8]:
    """The label of each request, int8 [n].

    Args:
        requests: columns pair_id (string) and eventTime (timestamp).
        actions: bo_action: columns pair_id, type (string) and ingestionTime (timestamp).
    """
    orders = actions.filter(pc.equal(actions["type"], ORDER_TYPE))
    pairs = pa.chunked_array(requests["pair_id"].chunks + orders["pair_id"].chunks, pa.string())
    codes = _codes(pairs)
    n = requests.num_rows
    return later_order(codes[:n], _epoch_ms(requests["eventTime"]), codes[n:], _epoch_ms(orders["ingestionTime"]))


def recorded(features: pa.Table) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
    """The `action` table's own labels, as the feature query joined them: (label int8 [n], known bool [n]).

    Any positive actionValue is a purchase. Requests without a row in `action` have no label: `known` is False there.
    """
    values = features[LABEL_COLUMN]
    known = pc.is_valid(values).to_numpy(zero_copy_only=False)
    return (pc.fill_null(values, 0).to_numpy() > 0).astype(np.int8), known


def _codes(values: pa.ChunkedArray) -> NDArray[np.int64]:
    """A number per distinct text; NULL pairs never match, so each gets a number of its own."""
    missing = pc.is_null(values).to_numpy(zero_copy_only=False)
    indices = pa.concat_arrays(values.chunks).dictionary_encode().indices
    codes: NDArray[np.int64] = pc.fill_null(indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    codes[missing] = -1 - np.flatnonzero(missing)
    return codes


def _epoch_ms(times: pa.ChunkedArray) -> NDArray[np.int64]:
    if times.null_count:
        row = int(np.flatnonzero(pc.is_null(times).to_numpy(zero_copy_only=False))[0])
        raise BadInput(f"row {row}: no time, so no label")
    ms: NDArray[np.int64] = pc.cast(pc.cast(times, pa.timestamp("ms"), safe=False), pa.int64()).to_numpy()
    return ms
