"""`make bench-check`: ratios round by round, and what counts as fallen."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.ratios import Run, compare, main, ratios

ECHO = "ours / echo, constant model"
NET = "ours / min(features, model), demo's net"


def run(ours: list[float], **others: list[float]) -> Run:
    return Run({"cpu": "one"}, {"ours, constant": ours, **others})


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine halves its speed in the second round: no ratio may show that.
    measured = run([40.0, 20.0], echo=[100.0, 50.0])
    assert ratios(measured.per_s) == {ECHO: [0.4, 0.4]}


def test_the_slower_ceiling_of_each_round_counts() -> None:
    per_s = {"ours, net": [9.0, 8.0], "features": [10.0, 40.0], "model": [30.0, 16.0]}
    assert ratios(per_s) == {NET: [0.9, 0.5]}


def test_a_system_without_all_rounds_is_no_ratio() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratios({"ours, constant": [1.0, 2.0], "echo": [1.0]})


@pytest.mark.parametrize(
    ("now", "fell", "rose"), [(0.84, True, False), (0.86, False, False), (1.14, False, False), (1.16, False, True)]
)
def test_fifteen_per_cent_are_allowed(now: float, fell: bool, rose: bool) -> None:
    (one,) = compare(run([1.0], echo=[1.0]), run([now], echo=[1.0]))
    assert (one.fell, one.rose) == (fell, rose)


def test_speed_alone_is_never_judged() -> None:
    (one,) = compare(run([1000.0], echo=[2000.0]), run([1.0], echo=[2.0]))
    assert not one.fell


def test_what_is_no_longer_measured_fell() -> None:
    (one,) = compare(run([1.0], echo=[1.0]), run([1.0]))
    assert one.fell
    assert "not measured" in str(one)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = run([1.0, 3.0, 2.0], echo=[2.0, 2.0, 2.0])
    written.write(tmp_path / "new" / "bench.json")
    read = Run.read(tmp_path / "new" / "bench.json")
    assert (read, read.rounds, read.medians()) == (written, 3, {ECHO: 1.0})


def test_the_check_prints_each_and_ends_with_the_names_of_those_that_fell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now, recorded = tmp_path / "now.json", tmp_path / "recorded.json"
    words = [str(now), "--recorded", str(recorded)]
    run([1.0], **{"echo": [2.0], "Quix Streams": [0.25]}).write(now)
    main([*words, "--record"])
    main(words)
    run([0.5], **{"echo": [2.0], "Quix Streams": [0.125]}).write(now)
    capsys.readouterr()
    with pytest.raises(SystemExit, match=ECHO) as ended:
        main(words)
    assert "Quix" not in str(ended.value)
    said = capsys.readouterr().out
    assert f"{ECHO}: 0.5 recorded, 0.25 now (0.50×), FELL" in said
    assert "ours / Quix Streams: 4 recorded, 4 now (1.00×), holds" in said


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"per_s": {"echo": 3}}'])
def test_what_is_no_run_is_one_line(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "bench.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SystemExit, match=r"bench\.json"):
        Run.read(file)
