"""Who lives in a generated world: products with quality and weekly comments, users with taste.

Products are one catalogue for the whole world; users are made in chunks, each from its own seed, so that a world of any
size is made in bounded memory and a chunk does not depend on the others. Values are spelled as in the tutorial's data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["DAY_MS", "LOCAL_MS", "WORLD_START_MS", "Catalogue", "Users", "spell"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY_MS = 86_400_000
LOCAL_MS = 8 * 3_600_000  # the shop's clock is UTC+8
WORLD_START_MS = 1_454_256_000_000  # 2016-02-01 00:00 in UTC+8, a Monday; the tutorial's data begins the day before

TASTES = 4  # dimensions of the latent taste space
CATEGORIES = np.array(["4", "5", "6", "7", "8", "9", "10", "11"])
CATEGORY_SHARE = np.array([0.21, 0.12, 0.14, 0.09, 0.31, 0.10, 0.02, 0.01])
AGES = np.array(["-1", "15岁以下", "16-25岁", "26-35岁", "36-45岁", "46-55岁", "56岁以上"])
AGE_SHARE = np.array([0.11, 0.01, 0.10, 0.45, 0.26, 0.04, 0.03])
SEXES = np.array(["0", "1", "2"])
SEX_SHARE = np.array([0.45, 0.07, 0.48])
LEVELS = np.array(["1", "2", "3", "4", "5"])
LEVEL_SHARE = np.array([0.03, 0.08, 0.21, 0.30, 0.38])
TIERS = np.array(["1", "2", "3"])  # a1: the price tier
USER_ID_FIRST = 200_001


def spell(numbers: Ints) -> pa.Array:
    """Integers as text."""
    return pc.cast(pa.array(numbers), pa.string())


def timestamps(ms: Ints) -> pa.Array:
    """Epoch ms as the data's own timestamp type: microseconds, UTC, no zone."""
    return pa.array(ms * 1000, pa.timestamp("us"))


@dataclass(frozen=True)
class Catalogue:
    """Products: P of them, the columns are parallel arrays; latent ones end up in no file.

    Attributes:
        sku: text ids. category: index into `CATEGORIES`. brand: text ids. tier: price tier 0..2.
        quality: latent, standard normal. taste: latent, [P, TASTES]. popularity: latent, relative share of views.
        launch_ms: when it appeared; nobody sees it earlier. listed: whether bo_product knows it.
        by_category: product numbers, sorted by category; `share` is the cumulative popularity along it, category
        by category: category c owns (c, c + 1].
    """

    sku: pa.Array
    category: Ints
    brand: pa.Array
    tier: Ints
    attributes: tuple[Ints, Ints]
    quality: Floats
    taste: Floats
    popularity: Floats
    launch_ms: Ints
    listed: NDArray[np.bool_]
    by_category: Ints
    share: Floats

    @classmethod
    def make(cls, size: int, days: int, rng: np.random.Generator) -> Catalogue:
        """A catalogue of `size` products, a tenth of which are launched while the world runs."""
        brands = max(len(CATEGORIES), size // 12)
        brand_category = np.concatenate(
            [np.arange(len(CATEGORIES)), rng.choice(len(CATEGORIES), brands - len(CATEGORIES), p=CATEGORY_SHARE)]
        )
        brand_size = (1.0 + np.arange(brands) // len(CATEGORIES)) ** -0.8
        brand_quality = rng.normal(0.0, 0.8, brands)
        brand_taste = rng.normal(0.0, 1.0, (brands, TASTES))
        brand = np.concatenate(
            [np.arange(len(CATEGORIES)), rng.choice(brands, size - len(CATEGORIES), p=brand_size / brand_size.sum())]
        )
        category = brand_category[brand]
        popularity = np.exp(rng.normal(0.0, 1.3, size))
        late = rng.random(size) < 0.1
        launched_days = np.where(late, rng.integers(1, max(days - 6, 2), size), -rng.integers(30, 900, size))
        order = np.argsort(category, kind="stable")
        share = np.empty(size)
        for c in range(len(CATEGORIES)):
            of_category = category[order] == c
            weights = popularity[order][of_category]
            share[of_category] = c + np.cumsum(weights) / weights.sum()
        return cls(
            sku=spell(np.sort(rng.choice(size * 64, size, replace=False)) + 1),  # so sparse that no permutation is made
            category=category,
            brand=spell(rng.permutation(max(1000, brands * 2))[:brands] + 1).take(pa.array(brand)),
            tier=rng.choice(3, size, p=[0.35, 0.35, 0.30]),
            attributes=(rng.choice(3, size, p=[0.08, 0.60, 0.32]), rng.choice(3, size, p=[0.08, 0.40, 0.52])),
            quality=brand_quality[brand] + rng.normal(0.0, 0.6, size),
            taste=0.7 * brand_taste[brand] + rng.normal(0.0, 0.7, (size, TASTES)),
            popularity=popularity,
            launch_ms=WORLD_START_MS + launched_days * DAY_MS,
            listed=rng.random(size) < 0.8,
            by_category=order,
            share=share,
        )

    def choose(self, category: Ints, rng: np.random.Generator) -> Ints:
        """A product number per entry of `category` (indices into `CATEGORIES`), by popularity."""
        at = np.searchsorted(self.share, category + rng.random(len(category)), side="right")
        chosen: Ints = self.by_category[np.minimum(at, len(self.share) - 1)]
        return chosen

    def products(self) -> pa.Table:
        """bo_product: the listed ones."""
        second, third = (np.array(["-1", "1", "2"])[values] for values in self.attributes)
        table = pa.table(
            {
                "ingestionTime": timestamps(self.launch_ms),
                "sku_id": self.sku,
                "a1": TIERS[self.tier],
                "a2": second,
                "a3": third,
                "cate": CATEGORIES[self.category],
                "br": self.brand,
            }
        )
        return table.filter(pa.array(self.listed))

    def comments(self, first: int, last: int, days: int, rng: np.random.Generator) -> pa.Table:
        """bo_comment of the products `first` … `last` - 1: a row per product and week since its launch.

        The bad ones' rate falls with quality. `comment_num` is the tutorial's level of all comments since launch: 0
        none, 1 one, 2 up to ten, 3 up to fifty, 4 more.
        """
        launch_ms, size = self.launch_ms[first:last], last - first
        weeks = np.arange(-1, (days + 6) // 7, dtype=np.int64)
        week_ms = WORLD_START_MS + weeks * 7 * DAY_MS
        age_weeks = np.maximum(0.0, (week_ms[None, :] - launch_ms[:, None]) / (7 * DAY_MS))
        total = rng.poisson(np.minimum(self.popularity[first:last, None] * age_weeks * 2.0, 1e6))
        total = np.maximum.accumulate(total, axis=1)
        rate = 1.0 / (1.0 + np.exp(3.4 + 0.9 * self.quality[first:last, None] + rng.normal(0.0, 0.1, total.shape)))
        bad = rng.binomial(total, rate)
        commented = (rng.random(size) < 0.9)[:, None] & (week_ms[None, :] >= launch_ms[:, None])
        product, week = np.nonzero(commented)
        total, bad = total[product, week], bad[product, week]
        order = np.argsort(week, kind="stable")  # by time
        product, week, total, bad = product[order], week[order], total[order], bad[order]
        return pa.table(
            {
                "ingestionTime": timestamps(week_ms[week]),
                "dt": week_ms[week],
                "sku_id": self.sku.slice(first, size).take(pa.array(product)),
                "comment_num": pa.array(np.searchsorted([1, 2, 11, 51], total, side="right"), pa.int32()),
                "has_bad_comment": np.array(["0", "1"])[(bad > 0).astype(np.int64)],
                "bad_comment_rate": pa.array(np.round(bad / np.maximum(total, 1), 4), pa.float32()),
            }
        )


@dataclass(frozen=True)
class Users:
    """One chunk of users, parallel arrays; latent ones end up in no file.

    Attributes:
        user_id: text ids. age, sex, level: indices into the spellings above. registered_ms: local midnight.
        arrival_day: first day in the world. sessions_per_day: latent. propensity: latent, adds to the intent.
        thrift: latent, the price tier (0..2, real) that suits the user. taste: latent, [n, TASTES].
        category_taste: latent, cumulative share of the categories, [n, categories].
        known: whether bo_user knows the user.
    """

    user_id: pa.Array
    age: Ints
    sex: Ints
    level: Ints
    registered_ms: Ints
    arrival_day: Ints
    sessions_per_day: Floats
    propensity: Floats
    thrift: Floats
    taste: Floats
    category_taste: Floats
    known: NDArray[np.bool_]

    @classmethod
    def make(cls, first: int, size: int, days: int, rng: np.random.Generator) -> Users:
        """Users number `first`, `first` + 1, …; a seventh of them arrive while the world runs."""
        age = rng.choice(len(AGES), size, p=AGE_SHARE)
        sex = rng.choice(len(SEXES), size, p=SEX_SHARE)
        level = rng.choice(len(LEVELS), size, p=LEVEL_SHARE)
        late = rng.random(size) < 0.15
        arrival = np.where(late, rng.integers(1, max(days, 2), size), 0)
        registered = np.where(late & (rng.random(size) < 0.7), arrival, -rng.integers(10, 3000, size))
        # Demographic groups lean to categories: an interaction that factorisation machines are made for.
        lean = np.sin(1.7 * age[:, None] + 2.3 * np.arange(len(CATEGORIES))) + 0.6 * np.cos(
            (sex[:, None] + 1) * 1.9 * np.arange(len(CATEGORIES))
        )
        weight = CATEGORY_SHARE * np.exp(0.5 * lean + rng.normal(0.0, 0.8, lean.shape))
        return cls(
            user_id=spell(USER_ID_FIRST + first + np.arange(size)),
            age=age,
            sex=sex,
            level=level,
            registered_ms=WORLD_START_MS + registered * DAY_MS,
            arrival_day=arrival,
            sessions_per_day=np.exp(rng.normal(-2.9, 0.8, size)),
            propensity=0.5 * (level - 2.9) + rng.normal(0.0, 0.4, size),
            thrift=np.clip(0.35 * level - 0.3 + 0.3 * (age >= 4) + rng.normal(0.0, 0.5, size), -0.5, 2.5),
            taste=rng.normal(0.0, 1.0, (size, TASTES)),
            category_taste=np.cumsum(weight / weight.sum(axis=1, keepdims=True), axis=1),
            known=rng.random(size) < 0.92,
        )

    def users(self) -> pa.Table:
        """bo_user: the known ones."""
        table = pa.table(
            {
                "ingestionTime": timestamps(self.registered_ms),
                "user_id": self.user_id,
                "age": AGES[self.age],
                "sex": SEXES[self.sex],
                "user_lv_cd": LEVELS[self.level],
                "user_reg_tm": self.registered_ms,
            }
        )
        return table.filter(pa.array(self.known))

    def intent(self, user: Ints, product: Ints, catalogue: Catalogue, rng: np.random.Generator) -> Floats:
        """The latent intent (a logit) of each interest: who, what, how both fit, and a part nothing explains."""
        affinity = np.einsum("nt,nt->n", self.taste[user], catalogue.taste[product]) / np.sqrt(TASTES)
        price = np.abs(self.thrift[user] - catalogue.tier[product])
        intent: Floats = (
            -0.4
            + 1.0 * self.propensity[user]
            + 1.1 * catalogue.quality[product]
            + 0.4 * affinity
            - 0.6 * price
            + rng.normal(0.0, 0.3, len(user))
        )
        return intent
