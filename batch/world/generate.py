"""A seeded world in the tutorial's layout and schema, with intent to learn and a known ceiling.

    jd-intent-batch generate --out DIR --users 5000 --seed 1

writes `bo_action/`, `bo_comment/`, `bo_product/`, `bo_user/`, `flattenRequest_clean/` (parquet parts), `truth.parquet`
(reqId, probability: what `batch.world.intent` knows about a strictly later order within five days) and `world.json`
(what was made). Every action is a row of bo_action; every action before the last five days is a request too, so each
request's label has its whole horizon. Users are made in chunks of `CHUNK_USERS`, each from a seed of its own, and
written part by
part: memory holds a chunk and the catalogue (about 150 bytes a product, two products to five users), and the same
arguments give the same bytes.

The true probability knows what no model sees (the latent intent), so its AUC is a ceiling, not a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.world.catalogue import CATEGORIES, DAY_MS, LOCAL_MS, WORLD_START_MS, Catalogue, Users, timestamps
from batch.world.intent import (
    ACTION_TYPES,
    CLICK,
    HORIZON_DAYS,
    INTENT_GRID,
    LASTS_AFTER_ORDER,
    LEAVE,
    ORDER,
    WEEK_RHYTHM,
    IntentChain,
    day_share,
    time_of_day,
)
from streaming.app.later_event import follows
from streaming.errors import BadInput
from streaming.files.output_folder import Say, replacing

__all__ = ["CHUNK_USERS", "World", "generate_world"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK_USERS = 2_000
CHUNK_PRODUCTS = 20_000
PARTS = ("bo_action", "bo_comment", "bo_product", "bo_user", "flattenRequest_clean")

# The pages a click can hit (model_id), their share, and how much more often they are hit with intent: some pages are
# for comparing and paying, others for strolling.
PAGES = ("0", "216", "217", "218", "26", "27", "211", "24", "29", "21", "17", "111", "219", "19", "14")
PAGE_SHARE: Floats = np.array([23, 10.7, 9.6, 3.2, 3.0, 2.7, 1.4, 0.9, 0.9, 0.8, 0.6, 0.55, 0.4, 0.33, 0.23])
PAGE_INTENT: Floats = np.array([-0.3, 0.2, -0.2, 0.5, -0.4, 0.7, -0.3, -0.5, 0.5, 0.3, -0.4, 0.6, -0.1, 0.4, 0.8])


class World(msgspec.Struct, frozen=True):
    """What was made: `world.json`. AUC: of the true probabilities against the five-day labels; None without both."""

    seed: int
    days: int
    users: int
    products: int
    actions: int
    requests: int
    positives: int
    true_auc: float | None
    start_ms: int
    requests_end_ms: int
    end_ms: int


@dataclass(frozen=True)
class Interests:
    """Pairs of one chunk: user (its number in the chunk), product, and the time of the first visit.

    Each of a user's interests has a millisecond of the second to itself, for all its actions: no two actions of a user
    are at the same time, so stream and offline extraction see them in one order.
    """

    user: Ints
    product: Ints
    opened_ms: Ints


@dataclass(frozen=True)
class WorldActions:
    """Actions of one chunk, sorted by time; `interest` is a number in its `Interests`.

    `probability` is the truth about the request that the action would be.
    """

    interest: Ints
    time_ms: Ints
    event: Ints
    intent_class: Ints
    probability: Floats


def generate_world(out: Path, users: int, seed: int, days: int = 70, *, force: Say | None = None) -> World:
    """Writes a world to `out` and returns what it made.

    Args:
        out: a folder that is new or empty, or holds an older world.
        users: at least 1. seed: 0 or more; the same seed gives the same bytes. days: length, more than the horizon.
        force: see `streaming.files.output_folder.replacing`.

    Raises:
        BadInput: an argument out of its range. OutputRefused: `out` holds something else.
    """
    if users < 1:
        raise BadInput(f"--users must be at least 1, not {users}")
    if seed < 0:
        raise BadInput(f"--seed must be 0 or more, not {seed}")
    if days <= HORIZON_DAYS:
        raise BadInput(f"--days must be more than the labels' horizon of {HORIZON_DAYS} days, not {days}")
    with replacing(out, "world", force=force) as folder:
        return _generate(folder, users, seed, days)


def _generate(out: Path, users: int, seed: int, days: int) -> World:
    for name in PARTS:
        (out / name).mkdir()
    catalogue_rng = np.random.default_rng([seed, 0])
    catalogue = Catalogue.make(max(200, users * 2 // 5), days, catalogue_rng)
    pq.write_table(catalogue.products(), out / "bo_product" / "part-00000.parquet")
    products = len(catalogue.launch_ms)
    for chunk, first in enumerate(range(0, products, CHUNK_PRODUCTS)):
        comments = catalogue.comments(first, min(first + CHUNK_PRODUCTS, products), days, catalogue_rng)
        pq.write_table(comments, out / "bo_comment" / f"part-{chunk:05d}.parquet")

    chain = IntentChain()
    requests_end_ms = WORLD_START_MS + (days - HORIZON_DAYS) * DAY_MS
    ranking = _Ranking()
    n_actions = 0
    truth_schema = pa.schema({"reqId": pa.string(), "probability": pa.float64()})
    with pq.ParquetWriter(out / "truth.parquet", truth_schema) as truth:
        for chunk, first in enumerate(range(0, users, CHUNK_USERS)):
            rng = np.random.default_rng([seed, 1 + chunk])
            some = Users.make(first, min(CHUNK_USERS, users - first), days, rng)
            pairs = _interests(some, catalogue, days, rng)
            intent = some.intent(pairs.user, pairs.product, catalogue, rng)
            actions = _act(chain, intent, pairs.opened_ms, days, rng)
            part = f"part-{chunk:05d}.parquet"
            pq.write_table(some.users(), out / "bo_user" / part)
            rows = _rows(actions, pairs, some, catalogue, rng)
            pq.write_table(rows.select(BO_ACTION), out / "bo_action" / part)
            request = actions.time_ms < requests_end_ms
            requests = _requests(rows.filter(pa.array(request)))
            pq.write_table(requests, out / "flattenRequest_clean" / part)
            truth.write_table(pa.table({"reqId": requests["reqId"], "probability": actions.probability[request]}))
            orders = actions.event == ORDER
            label = follows(
                actions.interest[request],
                actions.time_ms[request],
                actions.interest[orders],
                actions.time_ms[orders],
                HORIZON_DAYS * DAY_MS,
            )
            ranking.add(actions.probability[request], label)
            n_actions += rows.num_rows
    world = World(
        seed=seed,
        days=days,
        users=users,
        products=products,
        actions=n_actions,
        requests=ranking.size,
        positives=ranking.positives,
        true_auc=ranking.auc(),
        start_ms=WORLD_START_MS,
        requests_end_ms=requests_end_ms,
        end_ms=WORLD_START_MS + days * DAY_MS,
    )
    (out / "world.json").write_bytes(msgspec.json.format(msgspec.json.encode(world), indent=1) + b"\n")
    return world


def _interests(users: Users, catalogue: Catalogue, days: int, rng: np.random.Generator) -> Interests:
    """Sessions of the users, and what they look at there.

    In a session the user stays in one category and looks at a few products, one after the other; of two products that
    catch the eye the one to their taste is opened. A pair is one interest, however often it is met.
    """
    n = len(users.arrival_day)
    here = np.arange(days)[None, :] >= users.arrival_day[:, None]
    rate = users.sessions_per_day[:, None] * WEEK_RHYTHM[np.arange(days) % 7] * here
    user, day = np.nonzero(rng.random((n, days)) < -np.expm1(-rate))
    start_ms = WORLD_START_MS + day * DAY_MS + (time_of_day(rng.random(len(user))) * 1000).astype(np.int64)
    category = (rng.random(len(user))[:, None] > users.category_taste[user]).sum(axis=1)
    category = np.minimum(category, len(CATEGORIES) - 1)  # the last cumulative share may round below 1

    looks = rng.geometric(0.42, len(user))
    session = np.repeat(np.arange(len(user)), looks)
    place = np.arange(len(session)) - np.repeat(np.cumsum(looks) - looks, looks)
    user, category = user[session], category[session]
    opened_ms = start_ms[session] + place * rng.integers(60, 300, len(session)) * 1000
    seen = np.stack([catalogue.choose(category, rng) for _ in range(2)])
    fit = np.einsum("nt,knt->kn", users.taste[user], catalogue.taste[seen])
    product = np.where(fit[0] >= fit[1], seen[0], seen[1])

    exists = catalogue.launch_ms[product] <= opened_ms
    user, product, opened_ms = user[exists], product[exists], opened_ms[exists]
    order = np.lexsort([opened_ms, product, user])
    user, product, opened_ms = user[order], product[order], opened_ms[order]
    first = np.ones(len(user), bool)
    first[1:] = (user[1:] != user[:-1]) | (product[1:] != product[:-1])
    user, product, opened_ms = user[first], product[first], opened_ms[first]
    tick = (np.arange(len(user)) - np.searchsorted(user, user)) % 1000
    return Interests(user, product, opened_ms // 1000 * 1000 + tick)


def _act(chain: IntentChain, intent: Floats, opened_ms: Ints, days: int, rng: np.random.Generator) -> WorldActions:
    """Walks every interest through the chain, all of them a step at a time, until all are over or the world ends."""
    end_ms = WORLD_START_MS + days * DAY_MS
    step, first, gap = (np.cumsum(chain.step, -1), np.cumsum(chain.first, -1), chain.gap)
    constant, share = chain.order_within_horizon
    spacing = np.array(INTENT_GRID)
    intent_class = np.clip(np.rint((intent - spacing[0]) / (spacing[1] - spacing[0])), 0, len(spacing) - 1)

    interest = np.arange(len(intent))
    c = intent_class.astype(np.int64)
    s = np.zeros(len(interest), np.int64)
    day = (opened_ms - WORLD_START_MS) // DAY_MS
    now = opened_ms.copy()
    starting = np.ones(len(interest), bool)
    log: list[tuple[Ints, Ints, Ints, Ints, Floats]] = [(c[:0], c[:0], c[:0], c[:0], intent[:0])]
    while len(interest):
        odds = np.where(starting[:, None], first[c, s], step[c, s])
        event = np.minimum((rng.random(len(c))[:, None] * odds[:, -1:] >= odds).sum(axis=1), CLICK)
        acts = event != LEAVE
        now = now + np.where(starting | ~acts, 0, _pause_ms(event, rng))
        s = chain.after[s, event]
        alive = now < end_ms
        seen = acts & alive
        week = day % 7
        ordered = (event == ORDER).astype(np.int64)
        within_day = day_share((now - WORLD_START_MS - day * DAY_MS) / 1000)
        probability = constant[ordered, c, s, week] + share[ordered, c, s, week] * within_day
        log.append((interest[seen], now[seen], event[seen], c[seen], probability[seen]))

        # A visit ends by leaving or with an order; then the interest is over or waits for its next day.
        over = ~acts | (ordered == 1)
        lasts = np.where(ordered == 1, LASTS_AFTER_ORDER, chain.lasts[c, s])
        alive &= ~over | (rng.random(len(c)) < lasts)
        days_off = (rng.random(len(c))[:, None] >= gap[c, s, week]).sum(axis=1) + 1
        alive &= ~over | (days_off <= gap.shape[-1])
        day = np.where(over, day + days_off, day)
        morning = WORLD_START_MS + day * DAY_MS
        visit = morning + time_of_day(rng.random(len(c))).astype(np.int64) * 1000 + opened_ms[interest] % 1000
        now = np.where(over, np.maximum(visit, now + 60_000), now)
        alive &= now < end_ms
        interest, c, s, day, now, starting = (x[alive] for x in (interest, c, s, day, now, over))
    columns = [np.concatenate(part) for part in zip(*log, strict=True)]
    order = np.lexsort([columns[0], columns[1]])
    return WorldActions(*(column[order] for column in columns))


def _pause_ms(event: Ints, rng: np.random.Generator) -> Ints:
    """Time before an action, whole seconds, at least one: people take longer to order than to click."""
    mean_s = np.array([0.0, 35.0, 45.0, 30.0, 150.0, 25.0, 12.0])[event]
    return (1 + np.minimum(rng.exponential(mean_s), 1200.0).astype(np.int64)) * 1000


BO_ACTION = ["ingestionTime", "pair_id", "time", "model_id", "type", "cate", "br"]


def _rows(
    actions: WorldActions, pairs: Interests, users: Users, catalogue: Catalogue, rng: np.random.Generator
) -> pa.Table:
    """The columns of bo_action, and user_id and sku_id beside them."""
    user_id = users.user_id.take(pa.array(pairs.user))
    sku_id = catalogue.sku.take(pa.array(pairs.product))
    pair_id = pc.binary_join_element_wise(user_id, sku_id, "_")
    product = pairs.product[actions.interest]
    return pa.table(
        {
            "ingestionTime": timestamps(actions.time_ms),
            "pair_id": pair_id.take(pa.array(actions.interest)),
            "time": actions.time_ms,
            "model_id": np.where(actions.event == CLICK, _pages(actions.intent_class, rng), ""),
            "type": np.array(ACTION_TYPES)[actions.event],
            "cate": CATEGORIES[catalogue.category[product]],
            "br": catalogue.brand.take(pa.array(product)),
            "user_id": user_id.take(pa.array(actions.interest)),
            "sku_id": sku_id.take(pa.array(actions.interest)),
        }
    )


def _pages(intent_class: Ints, rng: np.random.Generator) -> NDArray[np.str_]:
    """The model_id of a click, per intent class."""
    weight = PAGE_SHARE * np.exp(PAGE_INTENT * np.array(INTENT_GRID)[:, None])
    odds = np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1)
    at = (rng.random(len(intent_class))[:, None] >= odds[intent_class]).sum(axis=1)
    pages: NDArray[np.str_] = np.array(PAGES)[np.minimum(at, len(PAGES) - 1)]
    return pages


def _requests(rows: pa.Table) -> pa.Table:
    """The flattenRequest rows of these actions. A pair acts at most once a second, so request ids are unique."""
    local = pc.cast(pa.array((rows["time"].to_numpy() + LOCAL_MS) // 1000, pa.timestamp("s")), pa.string())
    n = rows.num_rows
    return pa.table(
        {
            "reqId": pc.binary_join_element_wise(rows["pair_id"], local, "_"),
            "eventTime": rows["ingestionTime"],
            "main_id": pa.array([""]).take(pa.array(np.zeros(n, np.int64))),
            "pair_id": rows["pair_id"],
            "user_id": rows["user_id"],
            "sku_id": rows["sku_id"],
            "time": rows["time"],
            "split_id": np.zeros(n, np.int32),
            "time1": local,
        }
    )


class _Ranking:
    """AUC over a stream of (probability, label), from counts on a fine grid of log-odds: a few MB for any size."""

    def __init__(self, bins: int = 1 << 18) -> None:
        self._counts = np.zeros((2, bins), np.int64)

    def add(self, probability: Floats, label: NDArray[np.int8]) -> None:
        p = np.clip(probability, 1e-9, 1 - 1e-9)
        bins = self._counts.shape[1]
        at = np.clip((np.log(p / (1 - p)) + 21.0) / 42.0 * bins, 0, bins - 1).astype(np.int64)
        for value in (0, 1):
            self._counts[value] += np.bincount(at[label == value], minlength=bins)

    @property
    def size(self) -> int:
        return int(self._counts.sum())

    @property
    def positives(self) -> int:
        return int(self._counts[1].sum())

    def auc(self) -> float | None:
        negatives, positives = self._counts
        pairs = float(negatives.sum()) * float(positives.sum())
        if not pairs:
            return None
        below = np.concatenate([[0], np.cumsum(negatives)[:-1]])
        return float((positives * (below + 0.5 * negatives)).sum() / pairs)
