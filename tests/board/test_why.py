"""Why a score is what it is, of answers that no predict server of this application gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from fixtures.artifact import probabilities
from fixtures.jd import jd, jd_topics
from fixtures.records import Fake

from streaming.board.events import EventReader
from streaming.board.fields import score_fields
from streaming.board.pairs import Pairs
from streaming.board.rows import Place
from streaming.board.why import Explanation, Why
from streaming.config import Config
from streaming.model.encoder import Encoder
from streaming.model.triton import Scores

EVENT = (
    b'{"user_id":"1","sku_id":"2","time":1459419080000,"type":"1","model_id":"0","cate":"8","br":"1","request_id":"r"}'
)
SCORE = b'{"request_id":"r","user_id":"1","sku_id":"2","purchase_probability":0.25}'


class Topics(EventReader):
    """A score and its event, in place of a broker."""

    def _read(self, partition: tuple[str, int], offset: int, count: int) -> list[Any]:
        if partition[0] == "user-actions":
            return [Fake(b"1", EVENT, place=("user-actions", 0, 1), written_ms=-1)]
        return [Fake(b"1", SCORE, [("ce_id", b"user-actions[0]@1")])]


class Answering:
    """The tests' model, in place of Triton."""

    def score(self, ids: npt.NDArray[np.int64]) -> Scores:
        return Scores(probabilities(ids), "1")


def explained(encoder: Encoder, folder: Path, ids: object) -> Explanation:
    """What is told where the predict server answers with these ids."""
    encoder.save(folder / "encoder")
    features = {field.column: None for field in encoder.fields}
    server = httpx.MockTransport(lambda _: httpx.Response(200, json={"features": features, "ids": ids}))
    client = httpx.Client(transport=server, base_url="http://predict")
    shop = jd()
    pairs, events = Pairs(score_fields(shop), 10), Topics(Config(), shop, jd_topics())
    why = Why(shop, pairs, events, folder, Answering(), client)  # type: ignore[arg-type]
    return why.explain(Place(0, 3, 0.25))


def test_ids_of_this_encoder_are_scored(scorer_encoder: Encoder, tmp_path: Path) -> None:
    told = explained(scorer_encoder, tmp_path, {field.name: 2**63 - 1 for field in scorer_encoder.fields})
    assert not told.missing
    assert len(told.features) == len(scorer_encoder.fields)
    meanings = {feature.name: feature.meaning for feature in told.features}
    assert meanings["bo_product_br_multi_direct_6"] == "br of bo_product by sku_id"


@pytest.mark.parametrize("number", ["7", None, 1.5, 2**63, -(2**63) - 1, [1]])
def test_ids_that_are_none_are_the_server_s_fault(scorer_encoder: Encoder, tmp_path: Path, number: object) -> None:
    told = explained(scorer_encoder, tmp_path, {field.name: number for field in scorer_encoder.fields})
    assert told.missing.endswith("has no answer (200): its answer is not one of a predict server")


@pytest.mark.parametrize("ids", [{}, {"another": 1}])
def test_ids_of_other_fields_are_another_encoder_s(scorer_encoder: Encoder, tmp_path: Path, ids: object) -> None:
    told = explained(scorer_encoder, tmp_path, ids)
    assert told.missing == f"the predict server has another encoder than {tmp_path}"
