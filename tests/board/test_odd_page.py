"""The page in Chromium over what no shop has: names and numbers that a page may stumble on, times that are none."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from fixtures.applications import PAYMENTS
from fixtures.board import ROWS, Parts, Served, serve
from fixtures.browser import faults, opened
from fixtures.records import Fake
from playwright.sync_api import Browser, Page, expect

from streaming.app.folder import App, load_app
from streaming.board.decoding import Raw

BIG = 2**53 + 1
"""A card that JavaScript's numbers have not."""

NOTES = ["<img src=x onerror=alert(1)>", "a'b\"c\\", "\u202eRTL", "nul\x00", "🛒", "a]b, [c", "x" * 3000, "", "%2F#&=?"]


@pytest.fixture
def app(tmp_path: Path) -> App:
    """Cards are users, notes items, which may be NULL; of a card is known what all objects of JavaScript have."""
    fields = 'payment = "id"\ncard = "card"\nnote = "note"\nat = "at"'
    for name, text in PAYMENTS.items():
        changed = text.replace("country", "`toString`").replace(", partitioned = true", "")
        (tmp_path / name).write_text(changed.replace('payment = "id"', fields))
    return load_app(tmp_path)


class Cards(Parts):
    """The board of that application."""

    def pay(self, card: int, note: str | None, risk: float, at: int = 1_459_419_080_000) -> None:
        self.offset += 1
        score = {"payment": f"p{self.offset}", "card": card, "note": note, "at": at, "risk": risk}
        self.pairs.add([Raw(json.dumps(score).encode(), int(time.time() * 1000), 0, self.offset)])


@pytest.fixture
def odd(app: App) -> Iterator[Served]:
    """Cards beyond what a page's numbers tell apart, each with a note."""
    parts = Cards(shop=app)
    for n, note in enumerate([*NOTES, None]):
        parts.pay(BIG + n, note, 0.9 - n / 100)
    values = {"toString": ["", f"<b>{'y' * 300}"] * 5, "card": [BIG + n for n in range(10)]}
    parts.attributes.take("cards", pa.table(values))
    parts.attributes.declare(parts.pairs)
    yield from serve(parts)


def names(page: Page) -> list[str]:
    return page.locator("#rows .open").all_inner_texts()


def test_names_and_numbers_are_shown_as_they_are_and_lead_to_their_pair(browser: Browser, odd: Served) -> None:
    assert odd.parts.pairs.unreadable == 0
    with opened(browser, odd.url) as page:
        expect(page.locator(ROWS)).to_have_count(10)
        assert faults(page) == []
        for n, note in enumerate([*NOTES, "NULL"]):
            shown = f"\u2068{note}\u2069" if "\u202e" in note else note or "(empty)"
            page.locator("#rows .open").nth(n).click()
            expect(page.locator("#pair-title")).to_have_text(f"{BIG + n} · {shown}")
            expect(page.locator("#pair-p")).to_have_text(f"{90 - n}.0 %")
            page.locator("#pair-body .summary .link").nth(1).click()
            expect(page.locator("#history-title")).to_have_text(f"note {shown}")
            expect(page.locator("#history-body")).to_contain_text("1 score of 1 pair is kept")
            page.keyboard.press("Escape")
        page.get_by_role("searchbox").fill(str(BIG + 1))
        page.locator("#found").get_by_role("button", name=f"card {BIG + 1}").click()
        expect(page.locator("#history-title")).to_have_text(f"card {BIG + 1}")
        expect(page.locator("#history-body tbody tr")).to_have_count(2)


def test_what_is_long_leaves_room_for_the_rest(browser: Browser, odd: Served) -> None:
    """A table hides what goes beyond its edge: names and values are cut, no column is."""
    cut = """() => {
      const edge = document.querySelector('.sheet').getBoundingClientRect().right;
      const parts = [...document.querySelectorAll('#rows td, #rows .open, #rows .known b')];
      return parts.filter((part) => part.getBoundingClientRect().right > edge).length;
    }"""
    with opened(browser, odd.url, 1600) as page:
        for width in (1600, 1101, 1024, 761, 390, 320):
            page.set_viewport_size({"width": width, "height": 800})
            expect(page.locator(ROWS)).to_have_count(10)
            assert page.evaluate(cut) == 0, width
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            highest = "Math.max(...[...document.querySelectorAll('#rows tr')].map((row) => row.offsetHeight))"
            assert page.evaluate(highest) < 200, width


def test_the_system_s_own_colours_tell_as_much(browser: Browser, odd: Served) -> None:
    odd.parts.letters.take([Fake(b"k", b"v", [("__connect.errors.topic", b"t"), ("__connect.errors.stage", b"json")])])
    back = "(button) => getComputedStyle(button).backgroundColor"
    with opened(browser, f"{odd.url}/#dead") as page:
        page.emulate_media(forced_colors="active")
        expect(page.locator("#dead .chips button")).to_have_count(2)
        chosen, other = page.locator("#dead .chips button").all()
        assert chosen.get_attribute("aria-pressed") == "true"
        assert chosen.evaluate(back) != other.evaluate(back)
        assert page.evaluate("getComputedStyle(document.querySelector('.tiles li')).borderTopWidth") == "1px"
        assert faults(page) == []


def test_a_filter_may_be_called_as_what_all_objects_have_and_its_value_be_empty(browser: Browser, odd: Served) -> None:
    with opened(browser, odd.url) as page:
        choice = page.get_by_label("toString", exact=True)
        expect(choice.locator("option")).to_have_text(["any", "(empty)", re.compile("^<b>y+$")])
        expect(choice).to_have_value("")
        expect(page.locator("#filters-title")).to_have_text("Filters")
        choice.select_option(label="(empty)")
        expect(page.locator(ROWS)).to_have_count(5)
        assert names(page)[0].startswith(str(BIG))
        choice.select_option(label="any")
        expect(page.locator(ROWS)).to_have_count(10)


def test_a_time_that_is_none_is_told_as_it_came(browser: Browser, app: App) -> None:
    parts = Cards(shop=app)
    parts.pay(7, "ns", 0.5, at=1_459_419_080_000_000_000)
    parts.pay(8, "none", 0.4, at=-(2**61))
    for served in serve(parts):
        with opened(browser, f"{served.url}/#pair=[7,%22ns%22]") as page:
            expect(page.locator("#pair-body .summary")).to_contain_text("1,459,419,080,000,000,000 ms")
        with opened(browser, f"{served.url}/#pair=[8,%22none%22]") as page:
            expect(page.locator("#pair-p")).to_have_text("40.0 %")


def test_the_hour_that_the_clocks_repeat_is_told_with_its_offset(browser: Browser, app: App) -> None:
    parts = Cards(shop=app)
    first = 1_477_785_600_000  # 30 Oct 2016, 00:00 UTC: in Berlin 02:00, and an hour later 02:00 again
    for hour, card in enumerate((1, 2, 3)):
        parts.pay(card, "n", 0.5, at=first + hour * 3_600_000)
    told = ("30 Oct 2016, 02:00:00 GMT+2", "30 Oct 2016, 02:00:00 GMT+1", "30 Oct 2016, 03:00:00")
    for served in serve(parts):
        for card, moment in zip((1, 2, 3), told, strict=True):
            with opened(browser, f"{served.url}/#pair=[{card},%22n%22]") as page:
                event = page.locator("#pair-body .summary div").filter(has_text="event").locator("dd")
                expect(event).to_have_text(moment)
