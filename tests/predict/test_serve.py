"""The predict server: what it answers, what it refuses, what it says while something is away, and who may ask."""

from __future__ import annotations

import datetime
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from fixtures.applications import make
from fixtures.artifact import probabilities
from fixtures.jd import jd as shop_app
from fixtures.scorer import Shop, wait_until
from fixtures.serve import EXAMPLE, Answering, State, application, command, holding, row_of, served_over
from fixtures.web import Certificate, Running
from places import REPOSITORY
from prometheus_client.parser import text_string_to_metric_families

from streaming.app.folder import load_app
from streaming.model.encoder import Encoder
from streaming.predict.application import BODY_BYTES_MAX, create_app
from streaming.predict.predictor import Predictor
from streaming.predict.request_model import request_model
from streaming.predict.server import LIMITS
from streaming.store.embedded import EmbeddedStore
from streaming.web.access import Rules


@pytest.fixture(scope="module")
def store(shop: Shop) -> EmbeddedStore:
    return holding(shop, shop.actions)


@pytest.fixture(scope="module")
def encoder(scorer_encoder: Encoder) -> Encoder:
    return scorer_encoder


@pytest.fixture(scope="module")
def served(store: EmbeddedStore, encoder: Encoder) -> Iterator[tuple[httpx.Client, State, Answering]]:
    with served_over(store, encoder) as served:
        yield served


@pytest.fixture
def state(served: tuple[httpx.Client, State, Answering]) -> Iterator[State]:
    yield served[1]
    served[1].well()


@pytest.fixture
def model(served: tuple[httpx.Client, State, Answering]) -> Iterator[Answering]:
    yield served[2]
    served[2].well()


@pytest.fixture
def client(served: tuple[httpx.Client, State, Answering]) -> httpx.Client:
    return served[0]


# ── what is answered ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_answer_is_the_engine_s_features_and_the_model_s_probability(
    client: httpx.Client, store: EmbeddedStore, encoder: Encoder, shop: Shop
) -> None:
    before = dict(store.sizes())
    for action in shop.actions[::40]:
        row = row_of(action)
        response = client.post("/predict", json=row)
        assert response.status_code == 200, response.text
        answer = response.json()
        features = store.request([row])
        assert list(answer["features"]) == features.column_names
        times = {c.name for c in features.schema if pa.types.is_timestamp(c.type)}
        for name, value in answer["features"].items():
            expected = features[name].cast(pa.int64()) if name in times else features[name]
            assert value == expected[0].as_py(), name
        ids = encoder.encode(features)
        assert answer["probability"] == pytest.approx(float(probabilities(ids)[0]), abs=0)
        assert (answer["model"], answer["model_version"]) == ("embedding", "3")
        assert "ids" not in answer
        with_ids = client.post("/predict", json=row, params={"ids": "true"}).json()
        assert list(with_ids["ids"].values()) == ids[0].tolist()
        assert list(with_ids["ids"]) == [field.name for field in encoder.fields]
    assert dict(store.sizes()) == before, "a request row was inserted"


def test_the_window_reaches_the_stored_actions(client: httpx.Client, shop: Shop) -> None:
    action = shop.actions[-1]
    features = client.post("/predict", json=row_of(action)).json()["features"]
    assert features["flattenRequest_user_id_original_26"] == action["user_id"]
    unseen = client.post("/predict", json=row_of({**action, "user_id": "nobody"})).json()["features"]
    assert unseen["flattenRequest_pair_id_window_unique_count_27"] == 1
    assert features["flattenRequest_pair_id_window_unique_count_27"] > 1


def test_the_tutorial_s_request_is_answered_as_the_tutorial_prints(jd: Path) -> None:
    """Its section 3.5: the array `ins`; the request's tables are the tutorial's data."""
    store = EmbeddedStore(shop_app(), str(jd))
    store.load()
    request, empty = EXAMPLE["reqId"], ",NULL,NULL"
    assert list(store.request([EXAMPLE]).to_pylist()[0].values()) == [
        request,
        datetime.datetime(2016, 3, 31, 10, 11, 20),
        request,
        "200001_80005",
        "80005",
        "200001",
        1,
        1.0,
        1.0,
        1,
        1,
        5,
        1,
        request,
        *[None] * 11,
        request,
        0.019200000911951065,
        0.0,
        0.0,
        2,
        2,
        "1,,NULL",
        "4,0,NULL",
        request,
        empty,
        empty,
        empty,
        1,
        1,
        1,
        empty,
        empty,
    ]


def test_null_is_a_value_of_its_own(client: httpx.Client, shop: Shop) -> None:
    row = row_of(shop.actions[-1])
    null = client.post("/predict", json={**row, "user_id": None}).json()["features"]
    empty = client.post("/predict", json={**row, "user_id": ""}).json()["features"]
    assert null["flattenRequest_user_id_original_26"] is None
    assert empty["flattenRequest_user_id_original_26"] == ""


def test_the_schema_is_the_deployment_s(client: httpx.Client) -> None:
    schema = client.get("/schema").json()
    assert (schema["database"], schema["deployment"]) == ("JD_db", "demo")
    assert [(c["name"], c["type"], c["nullable"]) for c in schema["request"]] == [
        ("reqId", "string", True),
        ("eventTime", "timestamp", False),
        ("main_id", "string", True),
        ("pair_id", "string", True),
        ("user_id", "string", True),
        ("sku_id", "string", True),
        ("time", "bigint", True),
        ("split_id", "int", True),
        ("time1", "string", True),
    ]
    types = {c["name"]: c["type"] for c in schema["features"]}
    assert len(types) == 42
    assert types["bo_comment_bad_comment_rate_multi_max_13"] == "float"
    assert types["flattenRequest_pair_id_window_top1_ratio_28"] == "double"
    assert types["bo_product_ingestionTime_multi_direct_8"] == "timestamp"
    assert len(schema["ids"]) == 41


def test_a_page_of_an_application_without_an_example_shows_none(
    store: EmbeddedStore, encoder: Encoder, tmp_path: Path
) -> None:
    """Its columns, their types and the database (none) are its own, too."""
    app = load_app(make(tmp_path / "app"))
    predictor = Predictor(State(store), encoder, Answering(encoder.digest), "embedding")  # type: ignore[arg-type]
    with Running(create_app(predictor, app), LIMITS) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        row = client.get("/openapi.json").json()["components"]["schemas"]["RequestRow"]
        schema = client.get("/schema").json()
    assert "examples" not in row
    assert list(row["properties"]) == ["id", "card", "at", "amount", "small", "note"]
    assert (schema["database"], schema["deployment"]) == ("", "demo")
    assert [(c["name"], c["type"]) for c in schema["features"]] == [
        ("id", "string"),
        ("amount", "double"),
        ("payments_1h", "bigint"),
        ("country", "string"),
    ]


def test_the_page_shows_a_row_that_works(client: httpx.Client) -> None:
    page = client.get("/openapi.json").json()
    row = page["components"]["schemas"]["RequestRow"]
    assert row["examples"] == [EXAMPLE]
    assert set(row["required"]) == set(row["properties"]) == EXAMPLE.keys()
    assert row["properties"]["eventTime"]["type"] == "integer"
    assert {"200", "413", "422", "500", "503"} <= page["paths"]["/predict"]["post"]["responses"].keys()
    assert client.post("/predict", json=EXAMPLE).status_code == 200
    page = client.get("/docs")
    assert page.status_code == 200
    assert "/predict" in page.text
    assert "<script" not in page.text  # it fetches nothing from anywhere


# ── what is refused ──────────────────────────────────────────────────────────────────────────────────────────────────


def problems(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 422, response.text
    return {".".join(map(str, part["loc"][1:])): part["type"] for part in response.json()["detail"]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"reqId": ...}, {"reqId": "missing"}),
        ({"eventTime": ..., "time1": ...}, {"eventTime": "missing", "time1": "missing"}),
        ({"eventTime": None}, {"eventTime": "int_type"}),
        ({"eventTime": -1}, {"eventTime": "greater_than_equal"}),
        ({"eventTime": 253_402_300_800_000}, {"eventTime": "less_than_equal"}),
        ({"eventTime": "1459419080000"}, {"eventTime": "int_type"}),
        ({"eventTime": "2016-03-31T10:11:20Z"}, {"eventTime": "int_type"}),
        ({"eventTime": 1459419080000.0}, {"eventTime": "int_type"}),
        ({"time": "1"}, {"time": "int_type"}),
        ({"time": 2**63}, {"time": "less_than_equal"}),
        ({"split_id": True}, {"split_id": "int_type"}),
        ({"split_id": 2**31}, {"split_id": "less_than_equal"}),
        ({"user_id": 200001}, {"user_id": "string_type"}),
        ({"user_id": "\ud800"}, {"user_id": "value_error"}),
        ({"sku_id": ["80005"]}, {"sku_id": "string_type"}),
        ({"skuId": "80005"}, {"skuId": "extra_forbidden"}),
    ],
    ids=repr,
)
def test_a_wrong_row_is_refused_by_field(
    client: httpx.Client, change: dict[str, Any], expected: dict[str, str]
) -> None:
    row = {name: value for name, value in {**EXAMPLE, **change}.items() if value is not ...}
    assert problems(client.post("/predict", content=json.dumps(row), headers=JSON)) == expected


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'"row"', b"{", b'{"reqId": NaN}', b"\xff\xfe", b"[" * 5000, b"{}"], ids=repr
)
def test_a_body_that_is_no_row_is_refused(client: httpx.Client, body: bytes) -> None:
    response = client.post("/predict", content=body, headers=JSON)
    assert response.status_code in (400, 422), response.text
    assert response.json()["detail"]


def test_a_refusal_does_not_repeat_what_came(client: httpx.Client) -> None:
    response = client.post("/predict", json={**EXAMPLE, "user_id": ["a secret"]})
    assert response.status_code == 422
    assert "a secret" not in response.text


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (None, 200),
        ("", 200),
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/vnd.shop+json", 200),
        ("application/x-www-form-urlencoded", 415),  # what curl's -d says
        ("text/plain;charset=UTF-8", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
        ("json", 415),
    ],
)
def test_a_body_is_json_unless_it_says_to_be_something_else(
    client: httpx.Client, kind: str | None, status: int
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    response = client.post("/predict", content=json.dumps(EXAMPLE).encode(), headers=headers)
    assert response.status_code == status, response.text
    if status == 415:
        assert response.json()["detail"].startswith(f"Content-Type: {kind!r} is not read here")
    response = client.post("/predict", content=b"{", headers=headers)  # and what is no JSON is said to be none
    assert response.status_code == (415 if status == 415 else 422)
    assert client.get("/predict", headers=headers).status_code == 405


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused(client: httpx.Client, chunked: bool) -> None:
    body = json.dumps({**EXAMPLE, "time1": "x" * BODY_BYTES_MAX}).encode()
    halves = (half for half in (body[: len(body) // 2], body[len(body) // 2 :]))
    response = client.post("/predict", content=halves if chunked else body, headers=JSON)
    assert response.status_code == 413
    assert str(BODY_BYTES_MAX) in response.json()["detail"]


def test_every_type_of_openmldb_is_taken_and_kept_strict() -> None:
    kinds: dict[str, tuple[pa.DataType, Any, list[Any]]] = {
        "bool": (pa.bool_(), True, [1, "true"]),
        "smallint": (pa.int16(), -(2**15), [2**15, 1.0, "1"]),
        "float": (pa.float32(), 1.5, ["1.5", 1e39, True]),
        "double": (pa.float64(), 1, ["1", False]),
        "date": (pa.date32(), "2016-03-31", ["2016-02-30", "31.3.2016", 16891]),
        "timestamp": (pa.timestamp("us"), 0, [-1, None, 0.5]),
        "schema": (pa.string(), "a column may have any name", [1]),
    }
    model = request_model("Row", pa.schema([(name, kind) for name, (kind, _, _) in kinds.items()]))
    good = {name: value for name, (_, value, _) in kinds.items()}
    assert model.model_validate(good).model_dump(by_alias=True) == good
    for name, (_, _, wrong) in kinds.items():
        for value in wrong:
            with pytest.raises(ValueError, match=f"1 validation error for Row\n{name}\n"):
                model.model_validate({**good, name: value})


# ── what is away ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_without_triton_it_says_to_come_back(client: httpx.Client, model: Answering) -> None:
    assert client.get("/readyz").json() == {"ready": True, "missing": {}}
    model.away = True
    response = client.post("/predict", json=EXAMPLE)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert "connection refused" in response.json()["detail"]
    readiness = client.get("/readyz")
    assert readiness.status_code == 503
    assert list(readiness.json()["missing"]) == ["model"]
    assert client.get("/healthz").status_code == 200
    model.away = False
    assert client.post("/predict", json=EXAMPLE).status_code == 200


def test_without_its_state_it_does_not_answer(client: httpx.Client, state: State) -> None:
    state.why = "the state is being rebuilt: 12 records to go"
    response = client.post("/predict", json=EXAMPLE)
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.json()["detail"] == state.why
    assert client.get("/readyz").json()["missing"] == {"state": state.why}
    state.failure = RuntimeError("offset out of range")
    assert client.get("/healthz").status_code == 503


@pytest.mark.parametrize("digest", ["sha256:another", None])
def test_a_model_of_another_encoder_is_not_asked_for_an_opinion(
    client: httpx.Client, model: Answering, digest: str | None
) -> None:
    model.digest, model.version = digest, "4"
    response = client.post("/predict", json=EXAMPLE)
    assert response.status_code == 500
    assert "trained with encoder" in response.json()["detail"]


def test_a_model_that_comes_back_is_asked_again(client: httpx.Client, model: Answering) -> None:
    assert client.post("/predict", json=EXAMPLE).status_code == 200
    model.away = True
    assert client.post("/predict", json=EXAMPLE).status_code == 503
    model.away, model.digest = False, "sha256:another"
    assert client.post("/predict", json=EXAMPLE).status_code == 500


def test_answers_are_counted(client: httpx.Client, model: Answering) -> None:
    def counts() -> dict[str, float]:
        families = text_string_to_metric_families(client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        found = {s.labels["status"]: s.value for s in samples if s.name == "jd_intent_predict_requests_total"}
        return found | {s.name: s.value for s in samples if s.name == "jd_intent_predict_seconds_count"}

    client.post("/predict", json=EXAMPLE)
    client.post("/predict", json={})
    model.away = True
    client.post("/predict", json=EXAMPLE)
    before = counts()
    client.post("/predict", json=EXAMPLE)
    after = counts()
    assert {"200", "422", "503"} <= before.keys()
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {
        "503": 1,
        "jd_intent_predict_seconds_count": 1,
    }


# ── who may ask ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_and_tls_between_client_and_server(store: EmbeddedStore, encoder: Encoder, tmp_path: Path) -> None:
    token, certificate = "0123456789abcdef-in-the-test", Certificate(tmp_path)
    (tmp_path / "token").write_text(f"{token}\n")
    app = application(State(store), encoder, Answering(encoder.digest), Rules(token=token))
    with Running(app, LIMITS, certificate.server()) as server:
        with httpx.Client(base_url=server.url, verify=certificate.client(), timeout=60) as client:
            for path in ("/schema", "/docs", "/openapi.json"):
                assert client.get(path).status_code == 401
            refused = client.post("/predict", json=EXAMPLE, headers={"authorization": "Bearer wrong"})
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert refused.json() == {"detail": "a token is needed: Authorization: Bearer TOKEN"}
            answers = {path: client.get(path).status_code for path in ("/healthz", "/readyz", "/metrics")}
            assert set(answers.values()) == {200}
            assert b'jd_intent_predict_requests_total{status="401"} 1.0' in client.get("/metrics").content
        asked = command("predict", "--url", server.url, "--ca", certificate.cert, json.dumps(EXAMPLE))
        for words, variables, status, says in (
            ([*asked, "--token-file", str(tmp_path / "token")], {}, 0, "purchase probability"),
            (asked, {"JD_INTENT_TOKEN": token}, 0, "purchase probability"),
            (asked, {"JD_INTENT_TOKEN": f"{token}0"}, 2, "401 Unauthorized: a token is needed"),
        ):
            env = {**os.environ, **variables}
            done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=REPOSITORY, env=env)
            told = done.stdout + done.stderr
            assert (done.returncode, says in told, token in told) == (status, True, False), told


def test_a_peer_that_hangs_up_in_its_body_is_no_defect(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    before = hung_up(client)
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), 60) as peer:
        peer.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n" + b"\r\n{")
    wait_until(lambda: hung_up(client) == before + 1, "it was given up")
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR"}]


def hung_up(client: httpx.Client) -> float:
    """Answers with status 400 so far."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return sum(s.value for f in families for s in f.samples if s.labels.get("status") == "400" and "total" in s.name)


def test_a_page_of_somebody_else_reads_no_features(client: httpx.Client) -> None:
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        assert client.post("/predict", json=EXAMPLE, headers=headers).status_code == 403
    assert (
        client.post("/predict", json=EXAMPLE, headers={"origin": str(client.base_url).rstrip("/")}).status_code == 200
    )
