"""What the loop's tests stand on: a small seeded shop, its topics on the real broker, the truth recomputed offline."""

from __future__ import annotations

import functools
import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from batch.encode import fit
from batch.folder import digest
from deploy.kafka.broker import Broker
from deploy.triton.server import Triton
from streaming.config import Config, Store
from streaming.encode import Encoder
from streaming.event import Action, action_columns, dimension_columns, dimension_decoders
from streaming.health import Health
from streaming.lineage import Lineages
from streaming.login import Login
from streaming.loop import Scorer
from streaming.metrics import Metrics
from streaming.poison import open_poison
from streaming.publish import Publisher
from streaming.reader import Waiting
from streaming.snapshots import load_state
from streaming.source import ActionSource, DimensionSource
from streaming.store import EmbeddedStore, FeatureStore
from streaming.topics import Topics
from streaming.triton import Model

REPOSITORY = Path(__file__).resolve().parent.parent
START_MS = 1_459_419_080_000
PARTITIONS = 2
PATIENCE_S = 120.0

# The seed system's encoding hashes every column as it is, so that any difference in any feature is another score.
ANSWER = "return (ids.astype(np.uint64).sum(axis=1) % np.uint64(16777213) / 16777213).astype(np.float32)[:, None]"


def probabilities(ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """What the tests' model answers."""
    total = ids.astype(np.uint64).sum(axis=1) % np.uint64(16777213)
    answer: npt.NDArray[np.float32] = (total / 16777213).astype(np.float32)
    return answer


@dataclass
class Shop:
    """A seeded stream: users come back to few products; some actions are late, some share a millisecond."""

    actions: list[dict[str, Any]]
    users: list[dict[str, Any]]
    products: list[dict[str, Any]]
    comments: list[dict[str, Any]]

    @classmethod
    def seeded(cls, actions: int, seed: int = 11) -> Shop:
        random = np.random.default_rng(seed)
        times = START_MS + np.cumsum(random.integers(0, 3, actions) * 40_000)
        times = np.where(random.random(actions) < 0.1, times - random.integers(0, 86_400_000, actions), times)
        return cls(
            [
                {
                    "user_id": str(int(user)), "sku_id": str(int(sku)), "time": int(time), "type": str(int(kind)),
                    "model_id": str(int(model)), "cate": "8", "br": str(int(sku) % 5), "request_id": f"request-{n}",
                }
                for n, (user, sku, time, kind, model) in enumerate(
                    zip(
                        random.integers(0, 40, actions), random.integers(0, 12, actions), times,
                        random.integers(1, 7, actions), random.integers(0, 4, actions), strict=True,
                    )
                )
            ],
            [
                {
                    "user_id": str(n), "ingestionTime": START_MS - 10**10, "age": "26-35岁", "sex": str(n % 3),
                    "user_lv_cd": str(n % 5), "user_reg_tm": START_MS - 10**11,
                }
                for n in range(30)
            ],
            [
                {
                    "sku_id": str(n), "ingestionTime": START_MS, "a1": str(n % 4), "a2": "1", "a3": "2", "cate": "8",
                    "br": str(n % 5),
                }
                for n in range(10)
            ],
            [
                {
                    "sku_id": str(n % 12), "ingestionTime": START_MS - n * 86_400_000, "dt": 0, "comment_num": n % 4,
                    "has_bad_comment": str(n % 2), "bad_comment_rate": n / 100,
                }
                for n in range(60)
            ],
        )  # fmt: skip


def poison(action: dict[str, Any]) -> dict[str, tuple[bytes | None, bytes | None, str]]:
    """Kind → key, value and the exception class that its dead letter must name."""
    key = action["user_id"].encode()

    def changed(**changes: Any) -> bytes:
        return json.dumps({k: v for k, v in {**action, **changes}.items() if v is not ...}).encode()

    return {
        "broken JSON": (key, changed()[:-3], "Malformed"),
        "wrong type": (key, changed(cate=8), "InvalidField"),
        "missing field": (key, changed(sku_id=...), "InvalidField"),
        "null": (key, None, "NullValue"),
        "empty": (key, b"", "EmptyValue"),
        "5 MB": (key, changed(br="x" * 5_000_000), "TooLarge"),
        "negative time": (key, changed(time=-1), "InvalidField"),
        "far-future time": (key, changed(time=4_102_444_800_000), "TimeOutOfRange"),
        "unknown type": (key, changed(type="9"), "InvalidField"),
        "wrong key": (b"somebody else", changed(), "WrongKey"),
        "no key": (None, changed(), "WrongKey"),
        "not UTF-8": (key, changed().replace(b'"8"', b'"\xff"'), "Malformed"),
    }


def loaded_store(horizon_ms: int = 0) -> EmbeddedStore:
    """The tutorial's tables, empty, and its deployment."""
    store = EmbeddedStore(Store(sql=str(REPOSITORY / "sql")), horizon_ms)
    store.load()
    return store


def answers(shop: Shop) -> pa.Table:
    """The deployment's answer to each action, one at a time, after all dimension rows."""
    store = loaded_store()
    decoders = dimension_decoders(65_536, 300)
    for table, key, rows in (
        ("bo_user", "user_id", shop.users),
        ("bo_product", "sku_id", shop.products),
        ("bo_comment", "sku_id", shop.comments),
    ):
        events = [decoders[table].decode(json.dumps(row).encode(), row[key].encode(), START_MS) for row in rows]
        store.restore({table: dimension_columns(table, events)}, None)
    return pa.concat_tables([store.answer({}, action_columns([Action(**action)])) for action in shop.actions])


@dataclass
class Committed:
    """What a `read_committed` subscriber saw."""

    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    doubled: list[str] = field(default_factory=list)
    records: list[Message] = field(default_factory=list)
    dead: list[Message] = field(default_factory=list)


def check(found: Committed, truth: dict[str, float]) -> None:
    """Each event once, with the probability that its features have when it is answered alone."""
    assert found.doubled == []
    assert found.scores.keys() == truth.keys()
    wrong = [name for name, score in found.scores.items() if score["purchase_probability"] != truth[name]]
    assert wrong == []


class Stage:
    """Topics of one test's own on the session's broker, and what goes in and out of them."""

    def __init__(self, bootstrap: str, artifact: Path, triton: str) -> None:
        self.artifact, self.triton = artifact, triton
        self.name = uuid.uuid4().hex[:8]
        self.bootstrap = bootstrap
        keys = ("actions", "users", "products", "comments", "scores", "dead_letters")
        self.topics = {key: f"{key}-{self.name}" for key in keys}
        self.values: dict[str, Any] = {
            "kafka": {
                "bootstrap_servers": bootstrap, "group_id": f"group-{self.name}", "instance_id": "one",
                "transactional_id_prefix": self.name, "topics": self.topics, "give_up_after_s": 30.0,
                "session_timeout_s": 6.0,
            },
            "batch": {"messages_max": 50},
            "store": {"sql": str(REPOSITORY / "sql")},
            "model": {"url": triton, "artifact": str(artifact), "backoff_ms": 50, "backoff_ms_max": 200},
            "http": {"port": 0},
            "log": {"format": "console"},
        }  # fmt: skip

    @staticmethod
    def store_settings(**changes: Any) -> Store:
        """A store over the SDK."""
        return Store(**{"kind": "openmldb", "sql": str(REPOSITORY / "sql"), "openmldb": {"zk": "zk:2181"}, **changes})

    def create_topics(self, broker: Broker) -> None:
        """On a broker."""
        two = ("actions", "scores")
        broker.create_topics({name: PARTITIONS if key in two else 1 for key, name in self.topics.items()})

    def config(self, **tables: dict[str, Any]) -> Config:
        """The configuration, with some keys of some tables changed."""
        changed = {name: {**self.values.get(name, {}), **keys} for name, keys in tables.items()}
        return Config(**{**self.values, **changed})

    def file(self, folder: Path, **tables: dict[str, Any]) -> Path:
        """The same as a TOML file."""
        lines: list[str] = []
        for name, keys in self.config(**tables).model_dump(mode="json", exclude_defaults=True).items():
            inner = {key: value for key, value in keys.items() if isinstance(value, dict)}
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in keys.items() if k not in inner)]
            for key, values in inner.items():
                lines += [f"[{name}.{key}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
        file = folder / f"{self.name}.toml"
        file.write_text("\n".join(lines))
        return file

    def send(self, messages: Sequence[tuple[str, bytes | None, bytes | None]]) -> None:
        """Produces (topic's key in [kafka.topics], key, value), and waits until the broker has them."""
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap, "message.max.bytes": 8_000_000, "linger.ms": 5,
                "partitioner": "murmur2_random",
            }
        )  # fmt: skip
        for topic, key, value in messages:
            producer.produce(self.topics[topic], value, key, headers=[("trace", b"\x00\xff")])
        assert producer.flush(30) == 0

    def send_shop(self, shop: Shop) -> None:
        """All of it: dimension rows first."""
        self.send([("users", row["user_id"].encode(), json.dumps(row).encode()) for row in shop.users])
        for topic, rows in (("products", shop.products), ("comments", shop.comments)):
            self.send([(topic, row["sku_id"].encode(), json.dumps(row).encode()) for row in rows])
        self.send_actions(shop.actions)

    def send_actions(self, actions: Sequence[dict[str, Any]]) -> None:
        """Actions under their users' keys."""
        self.send([("actions", action["user_id"].encode(), json.dumps(action).encode()) for action in actions])

    def collect(self, scores: int, dead: int = 0, isolation: str = "read_committed") -> Committed:
        """Reads both output topics from their beginning until so many records are there, then to their ends."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap, "group.id": str(uuid.uuid4()), "isolation.level": isolation,
                "auto.offset.reset": "earliest", "enable.partition.eof": True, "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )  # fmt: skip
        found = Committed()
        deadline = time.monotonic() + PATIENCE_S
        partitions = {
            TopicPartition(self.topics[key], number, 0)
            for key, count in (("scores", PARTITIONS), ("dead_letters", 1))
            for number in range(count)
        }
        ended: set[tuple[str, int]] = set()
        try:
            consumer.assign(list(partitions))
            while len(found.records) < scores or len(found.dead) < dead or len(ended) < len(partitions):
                assert time.monotonic() < deadline, f"{len(found.records)} scores, {len(found.dead)} dead letters"
                for record in consumer.consume(1000, 0.1):
                    place = (record.topic() or "", record.partition() or 0)
                    error = record.error()
                    if error is not None:
                        assert error.code() == KafkaError._PARTITION_EOF, error
                        ended.add(place)
                        continue
                    ended.discard(place)
                    if record.topic() == self.topics["dead_letters"]:
                        found.dead.append(record)
                        continue
                    found.records.append(record)
                    score = json.loads(record.value() or b"")
                    if score["request_id"] in found.scores:
                        found.doubled.append(score["request_id"])
                    found.scores[score["request_id"]] = score
        finally:
            consumer.close()
        return found

    def committed(self, topic: str = "actions", partitions: int = PARTITIONS) -> list[int]:
        """The scorer group's committed offsets; 0 where it has none."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": f"group-{self.name}"})
        wanted = [TopicPartition(self.topics[topic], number) for number in range(partitions)]
        # A broker that is new makes its groups' topic first.
        found = Waiting(threading.Event()).retry(lambda: consumer.committed(wanted, timeout=30), PATIENCE_S)
        offsets = [max(0, partition.offset) for partition in found]
        consumer.close()
        return offsets

    def ends(self, topic: str = "actions", partitions: int = PARTITIONS) -> list[int]:
        """The topic's end offsets."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "none"})
        ends = [consumer.get_watermark_offsets(TopicPartition(self.topics[topic], n))[1] for n in range(partitions)]
        consumer.close()
        return ends


Step = Callable[[Scorer, str], None]


@contextmanager
def running(
    config: Config, encoder: Encoder, store: FeatureStore | None = None, step: Step = lambda *_: None
) -> Iterator[Scorer]:
    """A scorer on a thread of this process; leaving the block stops it. What it raised is raised here."""
    stop, health, model = threading.Event(), Health(60), Model(config.model.url, timeout_s=config.model.timeout_s)
    login = Login(config.kafka)
    publisher = Publisher(config.kafka, stop, health.beat, login=login)
    publisher.start()
    waiting, metrics = Waiting(stop, health.beat, login), Metrics()
    lineages = Lineages(config, Topics(config.kafka, waiting))
    snapshots, restored = None, None
    if config.snapshots.folder:
        store = EmbeddedStore(config.store, config.dedup.horizon_ms)
        snapshots, restored = load_state(config, store, lineages, metrics)
    elif config.store.history:
        store = EmbeddedStore(config.store, config.dedup.horizon_ms)
        store.load()
    poison = open_poison(config)
    scorer = Scorer(
        config, source=functools.partial(ActionSource, config.kafka, waiting, lineages),
        dimensions=DimensionSource(config.kafka, waiting, lineages), lineages=lineages,
        store=store or loaded_store(config.dedup.horizon_ms), encoder=encoder, model=model, publisher=publisher,
        metrics=metrics, health=health, stop=stop, step=lambda name: step(scorer, name), snapshots=snapshots,
        restored=restored, poison=poison,
    )  # fmt: skip
    health.ready("model")
    raised: list[BaseException] = []

    def run() -> None:
        try:
            scorer.run()
        except BaseException as error:
            raised.append(error)
            stop.set()  # what waits for it need not wait longer

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield scorer
    finally:
        stop.set()
        thread.join(PATIENCE_S)
        model.close()
        poison.close()
        if snapshots is not None:
            snapshots.close()
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Polls `condition`; fails after `PATIENCE_S`."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def shop() -> Shop:
    """800 actions."""
    return Shop.seeded(800)


@pytest.fixture(scope="session")
def shop_answers(shop: Shop) -> pa.Table:
    """The features of the shop's actions, each answered alone."""
    return answers(shop)


@pytest.fixture(scope="session")
def scorer_encoder(shop_answers: pa.Table) -> Encoder:
    """Hashes each of the columns."""
    return fit(shop_answers, "seed")


@pytest.fixture(scope="session")
def truth(shop: Shop, shop_answers: pa.Table, scorer_encoder: Encoder) -> dict[str, float]:
    """request id → probability, each event answered alone."""
    scores = probabilities(scorer_encoder.encode(shop_answers)).tolist()
    return dict(zip((action["request_id"] for action in shop.actions), scores, strict=True))


def save_sql(artifact: Path) -> None:
    """The artifact's query, and of its manifest what says that it is the one."""
    sql = Path(shutil.copy(REPOSITORY / "sql" / "features.sql", artifact / "features.sql"))
    (artifact / "manifest.json").write_text(json.dumps({"sql_sha256": digest(sql)}))


def save_artifact(artifact: Path, encoder: Encoder) -> None:
    """An artifact folder: SQL, encoder, and a model repository whose answer (`probabilities`) any test can compute."""
    encoder.save(artifact / "encoder")
    save_sql(artifact)
    model = artifact / "triton" / "embedding"
    (model / "1").mkdir(parents=True)
    config = (REPOSITORY / "deploy" / "triton" / "config.pbtxt").read_text()
    config = config.replace("$instances", "1").replace("$encoder_sha256", encoder.digest)
    (model / "config.pbtxt").write_text(config)
    (model / "1" / "model.py").write_text(
        "import numpy as np\n"
        "import triton_python_backend_utils as pb_utils\n"
        "def answer(ids):\n"
        f"    {ANSWER}\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        inputs = [pb_utils.get_input_tensor_by_name(r, 'INPUT_0').as_numpy() for r in requests]\n"
        "        return [pb_utils.InferenceResponse([pb_utils.Tensor('OUTPUT_0', answer(i))]) for i in inputs]\n"
    )


@pytest.fixture(scope="session")
def scorer_artifact(scorer_encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `save_artifact`; do not write into it."""
    artifact = tmp_path_factory.mktemp("scorer-artifact")
    save_artifact(artifact, scorer_encoder)
    return artifact


@pytest.fixture(scope="session")
def scorer_triton(scorer_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A real Triton that serves `scorer_artifact`; tests leave it running."""
    with Triton(scorer_artifact / "triton", tmp_path_factory.mktemp("scorer-triton")) as server:
        yield server


@pytest.fixture
def stage(broker: Broker, scorer_artifact: Path, scorer_triton: Triton) -> Stage:
    """Fresh topics."""
    made = Stage(broker.bootstrap, scorer_artifact, scorer_triton.grpc_url)
    made.create_topics(broker)
    return made


@pytest.fixture
def delete_records() -> Callable[[str, str, list[int]], None]:
    """Deletes the records of a topic before the given offsets, as retention does."""

    def delete(bootstrap: str, topic: str, before: list[int]) -> None:
        admin = AdminClient({"bootstrap.servers": bootstrap})
        wanted = [TopicPartition(topic, number, offset) for number, offset in enumerate(before)]
        for future in admin.delete_records(wanted).values():
            future.result(30)

    return delete
