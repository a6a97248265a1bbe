"""The code knows no shop: the tutorial's tables, columns and topics stand in sql/jd and in what makes its world."""

from __future__ import annotations

import re

from fixtures.jd import jd
from places import REPOSITORY

WORLDS = REPOSITORY / "batch" / "world"
"""What makes, and replays, the tutorial's world."""


def tutorial_names() -> set[str]:
    """Of tables, columns and topics, but for words that anybody may use."""
    app = jd()
    names = {app.tables.database, *app.tables.columns, app.settings.scores.topic, app.dead_letters}
    names |= {stream.topic for stream in app.streams}
    names |= {column.name for columns in app.tables.columns.values() for column in columns}
    names |= {column.name for stream in app.streams for column in stream.columns}
    names |= {name for name, _ in app.query.columns} | {field.name for field in app.encoder_fields}
    return {name for name in names if re.search(r"[_A-Z-]", name)} - {"request_id", "hour_of_day"}


def test_no_name_of_the_tutorials_shop_is_in_the_code() -> None:
    names = tutorial_names()
    assert {"bo_action", "flattenRequest", "sku_id", "reqId", "user-actions", "JD_db"} <= names
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(names)))})(?![\w-])")
    files = [file for room in ("streaming", "batch", "deploy") for file in (REPOSITORY / room).rglob("*.py")]
    files += (REPOSITORY / "deploy" / "triton").glob("*.pbtxt")
    assert len(files) > 200
    found = [
        f"{file.relative_to(REPOSITORY)}:{number}: {match[0]}"
        for file in files
        if WORLDS not in file.parents
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
    ]
    assert found == []
