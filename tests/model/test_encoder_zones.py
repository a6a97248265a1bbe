"""Hours and weekdays in the application's zone; an encoder from before there were zones is UTC+8."""

from __future__ import annotations

import datetime
import json
import zoneinfo
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference.random_features import features

from batch.dataset.fit_encoder import fit
from streaming.errors import ArtifactMismatch
from streaming.model.encoder import NULL_ID, UTC8, Binned, Encoder, value_id

UTC = datetime.timezone.utc
FIELDS = [
    Binned("h", "t", "hour", [float(hour) for hour in range(24)]),
    Binned("w", "t", "weekday", [float(day) for day in range(1, 8)]),
    Binned("d", "d", "weekday", [float(day) for day in range(1, 8)]),
]
NOTHING = np.empty(0, np.int64)
ZONES = ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]


def dayofweek(day: datetime.date) -> int:
    """1 is Sunday, as of OpenMLDB's function."""
    return day.isoweekday() % 7 + 1


@given(
    zone=st.sampled_from(ZONES),
    moments=st.lists(
        st.none() | st.integers(0, 253_402_000_000_000) | st.integers(1_400_000_000_000, 1_800_000_000_000)
    ),
)
def test_hours_and_weekdays_are_those_of_the_zone_s_clocks(zone: str, moments: list[int | None]) -> None:
    encoder = Encoder(FIELDS, NOTHING, [0] * 3, zone)
    days = [None if moment is None else datetime.date.fromtimestamp(moment // 1000) for moment in moments]
    table = pa.table({"t": pa.array(moments, pa.timestamp("ms")), "d": pa.array(days, pa.date32())})
    found = encoder.encode(table).tolist()
    for moment, day, ids in zip(moments, days, found, strict=True):
        if moment is None or day is None:
            assert ids == [NULL_ID] * 3
            continue
        local = datetime.datetime.fromtimestamp(moment // 1000, zoneinfo.ZoneInfo(zone))
        assert ids == [value_id(b"%d" % number) for number in (local.hour, dayofweek(local.date()), dayofweek(day))]


def test_the_default_is_utc_8_at_all_times_and_is_not_spelled_out(tmp_path: Path) -> None:
    encoder = Encoder(FIELDS[:2], NOTHING, [0] * 2)
    summer = int(datetime.datetime(1988, 7, 1, 16, 30, tzinfo=UTC).timestamp() * 1000)  # Shanghai was at UTC+9
    ids = encoder.encode(pa.table({"t": pa.array([summer], pa.timestamp("ms"))}))
    assert ids[0].tolist() == [value_id(b"0"), value_id(b"7")]
    encoder.save(tmp_path)
    assert "time_zone" not in json.loads((tmp_path / Encoder.JSON).read_text())["encoder"]
    assert Encoder.load(tmp_path).time_zone == UTC8
    assert fit(features()).time_zone == UTC8


def test_another_zone_is_saved_and_one_that_is_unknown_is_refused(tmp_path: Path) -> None:
    encoder = Encoder(FIELDS, NOTHING, [0] * 3, "Europe/Berlin")
    encoder.save(tmp_path)
    assert Encoder.load(tmp_path).time_zone == "Europe/Berlin"
    assert Encoder.load(tmp_path).digest == encoder.digest != Encoder(FIELDS, NOTHING, [0] * 3).digest
    with pytest.raises(ArtifactMismatch, match="unknown time zone 'Mars/Olympus'"):
        Encoder(FIELDS, NOTHING, [0] * 3, "Mars/Olympus")
