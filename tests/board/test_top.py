"""A screen of `top`, as it is drawn: what is known, and what is not."""

from __future__ import annotations

import io
import json
import unicodedata
from zoneinfo import ZoneInfo

from fixtures.jd import jd
from rich.cells import cell_len
from rich.console import Console

from streaming.board.attributes import Attributes
from streaming.board.board import Board
from streaming.board.decoding import Raw
from streaming.board.fields import score_fields
from streaming.board.followers import KafkaState
from streaming.board.letters import Letters
from streaming.board.outcomes import AucFigures
from streaming.board.pairs import Pairs
from streaming.board.rows import Place
from streaming.board.scorers import ScorerFigures
from streaming.board.told import auc_told, letters_told, spark
from streaming.board.top import screen
from streaming.board.why import Explanation

NOW = 100.0
FIELDS = score_fields(jd())
NO_AUC = AucFigures("labels are not on Kafka")


def shown(
    pairs: Pairs, kafka: KafkaState, scorers: ScorerFigures, auc: AucFigures = NO_AUC, rows: int = 5
) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(screen(board_of(pairs, kafka, scorers, auc), rows, NOW))
    return console.export_text().splitlines()


def board_of(pairs: Pairs, kafka: KafkaState, scorers: ScorerFigures, auc: AucFigures) -> Board:
    """A board that keeps these, and nothing else."""

    class Judged(Board):
        def auc(self) -> AucFigures:
            return auc

    class Told:
        def figures(self) -> ScorerFigures:
            return scorers

        def explain(self, _: Place) -> Explanation:
            raise AssertionError

    told = Told()
    return Judged(jd(), {}, pairs, Letters(), Attributes(FIELDS), kafka, told, told)


def test_the_best_come_first_with_the_figures_above() -> None:
    pairs = Pairs(FIELDS, 100)
    for number, (user, item, probability) in enumerate([("a", "x", 0.25), ("b", "y", 0.75), ("a", "x", 0.5)]):
        score = {"request_id": f"r{number}", "user_id": user, "sku_id": item, "event_time": 5000 + number}
        value = json.dumps({**score, "purchase_probability": probability, "model_version": "1"}).encode()
        pairs.add([Raw(value, number, 0, number)])
    lines = shown(pairs, KafkaState("", True), ScorerFigures(0.012, 1.5, lag=3, state_rows=1234, ready=1, asked=2))
    text = "\n".join(lines)
    for told in (
        "live  08:01:40 CST",
        "p50 12 ms, p99 1.50 s",
        "3 records, 1,234 rows",
        "version 1, 1 of 2 ready",
        "none",
    ):
        assert told in text
    ranked = [line.split()[:5] for line in lines if " · " in line][1:]
    assert ranked == [["1", "b", "·", "y", "75.0%"], ["2", "a", "·", "x", "50.0%"]]
    assert max(map(len, lines)) <= 80


def test_a_name_does_nothing_to_the_terminal() -> None:
    pairs = Pairs(FIELDS, 100)
    names = ["\x1b[31mred\x07", "a\nb\r", "\u202eturned", "x" * 300, "nul\x00", "👩\u200d👧", ""]
    for number, name in enumerate(names):
        score = {"request_id": f"r{number}", "user_id": "u", "sku_id": name, "event_time": 5000}
        value = json.dumps({**score, "purchase_probability": (9 - number) / 10, "model_version": name}).encode()
        pairs.add([Raw(value, number, 0, number)])
    lines = shown(pairs, KafkaState("", True), ScorerFigures(), rows=10)
    ranked = [line for line in lines if " · " in line][1:]  # behind the heading
    assert len(ranked) == len(names)
    assert not any(unicodedata.category(char) == "Cc" or char == "\u202e" for line in lines for char in line)
    assert any("u · 👩\u200d👧 " in line for line in lines)
    assert any("u · (empty) " in line for line in lines)
    assert all("%" in line and "ago" in line for line in ranked)
    assert max(map(cell_len, lines)) <= 80


def test_what_is_not_known_is_said() -> None:
    away = ScorerFigures(asked=1, away={"http://127.0.0.1:9": "refuses the connection"})
    text = "\n".join(shown(Pairs(FIELDS, 100), KafkaState("no answer"), away))
    for told in ("Kafka is away", "p50 –, p99 –", "– records, – rows", "no score yet", "refuses the connection"):
        assert told in text


def test_an_auc_says_what_it_is_of_or_why_there_is_none() -> None:
    known_to = 1_459_419_080_000
    auc = AucFigures("", True, 0.8712, 0.8501, 0.8899, 12_345, 321, known_to)
    lines = shown(Pairs(FIELDS, 100), KafkaState("", True), ScorerFigures(), auc)
    (line,) = [line for line in lines if line.startswith("AUC")]
    assert line.removeprefix("AUC").strip() == "0.871 (0.850–0.890), 321 of 12,345 positive, to 31 Mar 18:11"
    for figures, told in (
        (NO_AUC, "– (labels are not on Kafka)"),
        (AucFigures(), "– (reading labels)"),
        (AucFigures("", True), "– (no label is known yet)"),
        (AucFigures("", True, matured=40, positives=4), "– (4 of 40 positive: needs 5 of each)"),
    ):
        assert auc_told(figures, ZoneInfo("UTC")) == told


def test_dead_letters_are_told_in_all_and_by_their_commonest_reasons() -> None:
    assert letters_told([]) == "none"
    assert letters_told([("malformed", 1200)]) == "1,200: 1,200 malformed"
    five = [("invalid_field", 5), ("malformed", 2), ("null_value", 2), ("empty_value", 2), ("too_large", 1)]
    assert letters_told(five) == "12: 5 invalid_field, 2 malformed, 2 null_value, …"


def test_a_spark_line_goes_from_nothing_to_the_greatest() -> None:
    assert spark([0, 1, 2]) == " ▄█"
    assert spark([0, 0]) == "  "
    assert spark([]) == ""
