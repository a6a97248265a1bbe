"""What a column means, in a line for people: its expression, and the rows that it is computed of."""

from __future__ import annotations

import pytest

from streaming.engine import Engine

TABLES = """
CREATE TABLE pays (id string, card int, shop string, amount double, at timestamp);
CREATE TABLE logins (card int, device string, failed int, at timestamp, INDEX(KEY=card, TS=at));
CREATE TABLE cards (card int, tier string, at timestamp, INDEX(KEY=card, TS=at));
"""

WINDOWS = """
WINDOW
    h AS (PARTITION BY card ORDER BY at ROWS_RANGE BETWEEN 90m PRECEDING AND CURRENT ROW),
    d AS (PARTITION BY card, shop ORDER BY at ROWS_RANGE BETWEEN 7d PRECEDING AND 1d PRECEDING MAXSIZE 50),
    r AS (PARTITION BY card ORDER BY at ROWS BETWEEN 3 PRECEDING AND CURRENT ROW),
    b AS (PARTITION BY card ORDER BY at ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING),
    a AS (PARTITION BY card ORDER BY at ROWS_RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
"""


def meanings(engine: Engine, query: str) -> dict[str, str]:
    engine.execute(f"DEPLOY asked {query}")
    return {origin.name: origin.meaning for origin in engine.contract("asked").origins}


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    engine.execute(f"CREATE DATABASE shop; USE shop; {TABLES}")
    return engine


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("amount", "amount of the request"),
        ("amount * 2", "amount * 2"),
        ("(amount + 1) * 2", "(amount + 1) * 2"),
        ("- amount", "-amount"),
        ("amount IN (1, 2.5)", "amount IN (1, 2.5)"),
        ("NOT amount BETWEEN 1 AND 2", "NOT (amount BETWEEN 1 AND 2)"),
        ("shop LIKE 'a%'", "shop LIKE 'a%'"),
        ("concat(shop, '\\n', \"it's\")", "concat(shop, '\\n', \"it's\")"),
        ("shop IS NOT NULL", "shop IS NOT NULL"),
        ("CASE WHEN amount > 1 THEN 'a' ELSE NULL END", "CASE WHEN amount > 1 THEN 'a' ELSE NULL END"),
        ("bigint(amount)", "cast(amount as bigint)"),
        ("sum(amount) OVER h", "sum(amount) of pays by card, last 90m"),
        ("sum(amount) OVER d", "sum(amount) of pays by card, shop, last 7d up to 1d ago, newest 50"),
        ("avg(amount) OVER r", "avg(amount) of pays by card, last 4 rows"),
        ("avg(amount) OVER b", "avg(amount) of pays by card, last 3 rows before the last 1"),
        ("count(shop) OVER a", "count(shop) of pays by card, all times"),
        ("count_where(shop, shop = 'x') OVER h", "count_where(shop, shop = 'x') of pays by card, last 90m"),
    ],
)
def test_an_expression_and_its_rows(engine: Engine, item: str, told: str) -> None:
    assert meanings(engine, f"SELECT {item} AS asked FROM pays {WINDOWS}") == {"asked": told}


def test_a_column_keeps_its_meaning_through_sub_queries_and_stars(engine: Engine) -> None:
    query = """
    SELECT * FROM
        (SELECT id, sum(amount) OVER w AS spent FROM pays
         WINDOW w AS (PARTITION BY card ORDER BY at ROWS_RANGE BETWEEN 1h PRECEDING AND CURRENT ROW)) AS one
    LAST JOIN
        (SELECT pays.id AS same, cards.tier, upper(cards.tier) AS loud FROM pays
         LAST JOIN cards ORDER BY cards.at ON pays.card = cards.card) AS two
    ON one.id = two.same
    """
    assert meanings(engine, query) == {
        "id": "id of the request",
        "spent": "sum(amount) of pays by card, last 1h",
        "same": "id of the request",
        "tier": "tier of cards by card",
        "loud": "upper(tier) of cards by card",
    }


def test_an_expression_over_two_windows_names_both(engine: Engine) -> None:
    query = f"""
    SELECT spent_h / spent_r AS share FROM
        (SELECT id, sum(amount) OVER h AS spent_h, sum(amount) OVER r AS spent_r FROM pays {WINDOWS})
    """
    told = meanings(engine, query)["share"]
    assert told == "spent_h / spent_r of pays by card, last 90m; pays by card, last 4 rows"


def test_a_union_names_the_tables_whose_rows_are_in_it(engine: Engine) -> None:
    query = """
    SELECT id, sum(failed) OVER w AS failures FROM
        (SELECT id, card, '' AS device, 0 AS failed, at FROM pays)
    WINDOW w AS (
        UNION (SELECT '' AS id, card, device, failed, at FROM logins)
        PARTITION BY card ORDER BY at ROWS_RANGE BETWEEN 1d PRECEDING AND CURRENT ROW {}
    )
    """
    apart = meanings(engine, query.format("INSTANCE_NOT_IN_WINDOW"))
    assert apart["failures"] == "sum(failed) of logins by card, last 1d"
    engine.execute("DROP DEPLOYMENT asked")
    assert meanings(engine, query.format(""))["failures"] == "sum(failed) of pays and logins by card, last 1d"
