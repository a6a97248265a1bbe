"""The scripts of sql/ hold one query, and it is the tutorial's."""

from __future__ import annotations

import pytest
from places import SQL


def query(script: str) -> str:
    """The feature query of a script, without comments, without what follows it."""
    text = (SQL / script).read_text(encoding="utf-8")
    start = text.index("select * from\n")
    end = text.index("on out0.reqId_1 = out3.reqId_17") + len("on out0.reqId_1 = out3.reqId_17")
    return text[start:end]


@pytest.mark.parametrize("script", ["deploy.sql", "select_into_outfile.sql"])
def test_one_query_everywhere(script: str) -> None:
    assert query(script) == query("features.sql")


def test_the_query_is_the_tutorials() -> None:
    tutorial = SQL.parent.parent / "shared" / "TUTORIAL.zh.md"
    if not tutorial.exists():
        pytest.skip(f"the tutorial is not at {tutorial}")
    text = tutorial.read_text(encoding="utf-8").replace("fz_top", "top")  # 0.9's names of the same functions
    assert query("features.sql") in text
