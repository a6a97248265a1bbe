"""Each habit of a fake stands on a line of docs/reference/openmldb-server.md, and each line there is acted by one."""

from __future__ import annotations

import re

from places import REPOSITORY

PAGE = REPOSITORY / "docs" / "reference" / "openmldb-server.md"
RIGS = REPOSITORY / "tests" / "rigs"
FAKES = [*RIGS.glob("fake_*.py"), *(REPOSITORY / "streaming" / "standin").glob("*.py")]


def test_fakes_and_contract_name_each_other() -> None:
    lines = set(re.findall(r"^\| (C\d+) \|", PAGE.read_text(), re.MULTILINE))
    named = {line for file in FAKES for line in re.findall(r"\bC\d+\b", file.read_text())}
    assert len(lines) > 10
    assert named == lines
