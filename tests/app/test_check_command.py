"""`jd-intent-score check`: the picture of an application, or one line on what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.applications import make
from places import SQL
from typer.testing import CliRunner

from streaming.app.wrong import WrongApp
from streaming.cli.commands import app
from streaming.ops.exits import MISTAKE, exit_status

PICTURE = """application payments (digest DIGEST, time zone Europe/Berlin)

events → tables
  paid: topic paid, key number, event time moment, scored
    │ number bigint NOT NULL
    │ moment timestamp NOT NULL
    │ cents int
    │ reference string NOT NULL
    │ CHECK (cents > 0)
    └─► payments (6 of 6 columns)
  card_rows: topic card_rows, key card, event time since, read by partition
    │ card bigint NOT NULL
    │ since timestamp NOT NULL
    │ country string
    └─► cards (3 of 3 columns)

tables
  payments: 6 columns, 48 bytes a row, and each different text once, the query's main table: its rows are the requests
  cards: 3 columns, 24 bytes a row, and each different text once

indexes
  payments (key card, ts at), made by DEPLOY, rows live for ever; 16 bytes a row and 40 a key
  cards (key card, ts since), made by DEPLOY, rows live for ever; 16 bytes a row and 40 a key

windows and joins
  window: one walk over payments by card
    range 1h … 0s: payments_1h
  last join: cards by card, the latest since

features: 3 of the query's 4 columns, as 3 fields of the model
  amount: real of a double
  payments_1h: integer of a bigint
  country: category of a string

label: a row of payments with amount > 1000 of the same card in 12h
scores: topic scores: payment = id, risk = $probability
"""


def test_an_application_is_a_picture(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["check", str(make(tmp_path / "bank"))])
    assert done.exit_code == 0
    first, _, rest = done.output.partition(",")
    assert f"{first.partition('(')[0]}(digest DIGEST,{rest}" == PICTURE


@pytest.mark.parametrize("name", ["jd", "talkingdata"])
def test_the_projects_own_applications_are_right(name: str) -> None:
    done = CliRunner().invoke(app, ["check", str(SQL / name)])
    assert done.exit_code == 0
    assert f"application {name} (" in done.output


def test_what_is_wrong_is_an_error_of_usage(tmp_path: Path) -> None:
    folder = make(tmp_path / "bank", events=("moment AS at", "momnt AS at"))
    done = CliRunner().invoke(app, ["check", str(folder)])
    assert done.output == ""
    assert isinstance(done.exception, WrongApp)
    assert str(done.exception) == f"{folder}/events.sql:9:41: unknown column momnt"
    assert exit_status(done.exception) == MISTAKE
