"""Functions in Python: those called too rarely, or too much about text, to be kernels.

Each works on Python values that are not NULL (a timestamp is epoch milliseconds, a date days since 1970) and may answer
None, which is NULL, or bytes, where it cuts strings as OpenMLDB does: by bytes (see `cut`). Dates and times of day are
UTC+8's. To add one, write it in the module of its topic and register it in that module's FUNCTIONS, with every
combination of argument types that OpenMLDB takes: it converts none by itself.

May be imported by: `plan`, `program`, `storage`. May import: `types`.
"""

from __future__ import annotations

from streaming.engine.library.casts import CASTS
from streaming.engine.library.hashes import FUNCTIONS as HASHES
from streaming.engine.library.numbers import FUNCTIONS as OF_NUMBERS
from streaming.engine.library.numbers import earth_distance
from streaming.engine.library.overload import Overload
from streaming.engine.library.texts import CUTS, VARIADIC
from streaming.engine.library.texts import FUNCTIONS as OF_TEXTS
from streaming.engine.library.times import FUNCTIONS as OF_TIMES

__all__ = ["ALIASES", "CASTS", "CUTS", "FUNCTIONS", "VARIADIC", "earth_distance"]

FUNCTIONS: dict[str, list[Overload]] = {**HASHES, **OF_NUMBERS, **OF_TEXTS, **OF_TIMES}
ALIASES = {
    "ceiling": "ceil",
    "character_length": "char_length",
    "day": "dayofmonth",
    "farm_fingerprint": "hash64",
    "ifnull": "if_null",
    "isnull": "is_null",
    "lower": "lcase",
    "nvl": "if_null",
    "pow": "power",
    "substr": "substring",
    "upper": "ucase",
    "week": "weekofyear",
}
