"""Random answers of the feature query: every type, NULLs among them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from places import SQL

from batch.dataset.fit_encoder import seed_order
from streaming.app.folder import load_app

SEED_ORDER = tuple(seed_order(load_app(SQL / "jd")))
REQUEST_ID = "reqId_1"
EVENT_TIME = "flattenRequest_eventTime_original_0"
PAIR = "flattenRequest_pair_id_original_24"
TEXT, WHOLE, REAL, TIME = pa.string(), pa.int64(), pa.float64(), pa.timestamp("ms")
LABEL = "action_actionValue_multi_direct_2"


def schema() -> pa.Schema:
    """The 42 columns of the feature query."""
    types: dict[str, pa.DataType] = dict.fromkeys((*SEED_ORDER, LABEL), TEXT)
    for name in types:
        if "ratio" in name:
            types[name] = REAL
        elif "bad_comment_rate" in name:
            types[name] = pa.float32()
        elif "count_" in name:
            types[name] = WHOLE
        elif "dayofweek" in name or "isweekday" in name or name == LABEL:
            types[name] = pa.int32()
        elif "Time" in name and "isweekday" not in name:
            types[name] = TIME
    return pa.schema(types)


def features(rows: int = 400, seed: int = 3) -> pa.Table:
    """Random features of every type, NULLs among them, in the query's schema."""
    rng = np.random.default_rng(seed)
    columns = []
    for field in schema():
        missing = rng.random(rows) < 0.05
        if "list" in field.name or "top3frequency" in field.name:
            values = [rng.choice([",a,NULL", "a,,NULL", "b,a,", "b,a,c", ",NULL,NULL"]) for _ in range(rows)]
        elif field.type == TEXT:
            values = [f"v{rng.integers(0, 30)}" for _ in range(rows)]
        elif pa.types.is_integer(field.type):
            values = rng.integers(0, 90, rows).tolist()
        elif pa.types.is_timestamp(field.type):
            values = (1_455_000_000_000 + rng.integers(0, 10**9, rows)).tolist()
        else:
            values = np.round(rng.random(rows), 2).tolist()
        if field.name == EVENT_TIME:
            missing[:] = False
        columns.append(pa.array([None if m else v for v, m in zip(values, missing, strict=True)], field.type))
    return pa.table(columns, schema=schema())
