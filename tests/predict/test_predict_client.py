"""`jd-intent-score predict`: rows as words, JSON or files, and the answer by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.scorer import Shop
from fixtures.serve import EXAMPLE, Answering, State, holding, served_over
from rich.console import Console

from deploy.process import free_ports
from streaming.model.encoder import Encoder
from streaming.predict.client import PredictFailed, ask, read_row, run_predict, show


@pytest.fixture(scope="module")
def served(shop: Shop, scorer_encoder: Encoder) -> Iterator[tuple[httpx.Client, State, Answering]]:
    with served_over(holding(shop, shop.actions), scorer_encoder) as served:
        yield served


@pytest.fixture
def model(served: tuple[httpx.Client, State, Answering]) -> Iterator[Answering]:
    yield served[2]
    served[2].well()


@pytest.fixture
def client(served: tuple[httpx.Client, State, Answering]) -> httpx.Client:
    return served[0]


def words(row: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in row.items()]


def test_a_row_comes_as_words_json_or_file(client: httpx.Client, tmp_path: Path) -> None:
    text = json.dumps(EXAMPLE)
    assert read_row(client, [text], None, 0) == EXAMPLE
    assert read_row(client, words(EXAMPLE), None, 0) == EXAMPLE

    (tmp_path / "row.json").write_text(text)
    assert read_row(client, [], tmp_path / "row.json", 0) == EXAMPLE

    (tmp_path / "rows.jsonl").write_text(f"{{}}\n{text}\n")
    assert read_row(client, [], tmp_path / "rows.jsonl", 1) == EXAMPLE

    columns = {name: pa.array([value] * 3) for name, value in EXAMPLE.items()}
    columns["eventTime"] = columns["eventTime"].cast(pa.timestamp("ms")).cast(pa.timestamp("us"))
    columns["reqId"] = pa.array(["a", "b", None])
    columns["another"] = pa.array([1, 2, 3])
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=2)
    for number, name in enumerate(["a", "b", None]):
        assert read_row(client, [], tmp_path / "rows.parquet", number) == {**EXAMPLE, "reqId": name}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give one row"),
        (["reqId"], "'reqId' is not column=value"),
        (["skuId=1"], "there is no column 'skuId'; the columns are reqId, "),
        (["time=1", "time=2"], "column 'time' is given twice"),
        (["time=soon"], "time: 'soon' is not a bigint"),
        (["{"], "the row is not JSON"),
    ],
    ids=repr,
)
def test_a_row_that_cannot_be_read_is_named(client: httpx.Client, given: list[str], message: str) -> None:
    with pytest.raises(PredictFailed, match=message):
        read_row(client, given, None, 0)


def test_a_file_that_cannot_be_read_is_named(client: httpx.Client, tmp_path: Path) -> None:
    cases: dict[str, tuple[bytes | None, int, str]] = {
        "absent.json": (None, 0, "cannot be read"),
        "list.json": (b"[]", 0, "is not a JSON object"),
        "one.json": (b"{}", 1, "holds one row"),
        "latin.json": (b'{"a": "\xe4"}', 0, "cannot be read"),
        "short.jsonl": (b"{}\n", 1, "has no row 1"),
        "empty.parquet": (b"", 0, "cannot be read"),
        "row.csv": (b"", 0, r"must end in \.json, \.jsonl or \.parquet"),
    }
    for name, (content, row, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(PredictFailed, match=f"{name}.*{message}"):
            read_row(client, [], tmp_path / name, row)
    pq.write_table(pa.table({"reqId": ["a"]}), tmp_path / "one.parquet")
    for row in (1, -1):
        with pytest.raises(PredictFailed, match=f"has no row {row}: it has 1"):
            read_row(client, [], tmp_path / "one.parquet", row)
    with pytest.raises(PredictFailed, match=r"422 .*eventTime: Field required.*time1: Field required"):
        ask(client, read_row(client, [], tmp_path / "one.parquet", 0))


def test_the_answer_is_shown_by_name(client: httpx.Client, tmp_path: Path) -> None:
    answer = ask(client, {**EXAMPLE, "reqId": "[bold]not markup[/bold]", "user_id": None}, ids=True)
    with (tmp_path / "shown").open("w+") as sink:
        show(answer, Console(file=sink))
        sink.seek(0)
        shown = sink.read()
    # The seed system's fields have their columns' names: two tables, one under the other.
    features, ids = shown.split("\nids")
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in features.splitlines()[1:]}
    assert lines["reqId_1"] == "'[bold]not markup[/bold]'"
    assert lines["flattenRequest_user_id_original_26"] == "NULL"
    assert lines["bo_action_type_multi_top3frequency_42"] == "',NULL,NULL'"
    assert f"{answer['probability']:.6f}" in shown
    assert "embedding, version 3" in shown
    assert list(lines) == list(answer["features"])
    for name, number in answer["ids"].items():
        assert re.search(rf"^{name} +{number}\b", ids, re.MULTILINE)


def test_the_server_s_own_message_reaches_the_user(client: httpx.Client, model: Answering) -> None:
    with pytest.raises(PredictFailed, match=r"422 .*user_id: Input should be a valid string"):
        ask(client, {**EXAMPLE, "user_id": 1})
    model.away = True
    with pytest.raises(PredictFailed, match=r"503 .*connection refused"):
        ask(client, EXAMPLE)
    (port,) = free_ports(1)
    with pytest.raises(PredictFailed, match=f"127.0.0.1:{port}"):
        run_predict([json.dumps(EXAMPLE)], url=f"http://127.0.0.1:{port}")
