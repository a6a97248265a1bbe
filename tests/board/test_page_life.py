"""What passes around a page that stays open: it is paused, nobody sees it, the board is another one, scores come."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fixtures.board import ROWS, Parts, Served, serve
from fixtures.browser import faults, opened
from fixtures.records import Fake
from fixtures.scorer import wait_until
from fixtures.web import Running
from playwright.sync_api import Browser, Error, Page, expect

from streaming.board.application import TICK_S
from streaming.board.followers import KafkaState
from streaming.board.rows import Key
from streaming.board.why import Explanation
from streaming.web.access import Rules
from streaming.web.connection import Limits

TOKEN = "0123456789abcdef-of-the-board"

STREAMS = 8
HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event('visibilitychange', { bubbles: true }));
}"""


@pytest.fixture
def filled() -> Iterator[Served]:
    """Nine pairs: user n wants product n with n %."""
    parts = Parts()
    parts.products()
    for n in range(9):
        parts.score(str(1000 + n), str(n), n / 100)
    yield from serve(parts)


def test_a_paused_page_can_be_filtered(browser: Browser, filled: Served) -> None:
    with opened(browser, filled.url) as page:
        expect(page.locator(ROWS)).to_have_count(9)
        page.get_by_role("button", name="Pause").click()
        page.get_by_label("brand", exact=True).select_option(label="2")
        expect(page.locator(ROWS)).to_have_count(3)
        filled.parts.score("1002", "2", 0.99)
        expect(page.locator("#footer")).to_contain_text("10 scores since")
        expect(page.locator("#rows .open").first).to_have_text("1008 · 8")  # it is paused still


def test_what_was_not_asked_yet_is_not_called_away(browser: Browser) -> None:
    parts = Parts()
    state = KafkaState()  # as the board starts
    parts.kafka.away, parts.kafka.loaded = state.away, state.loaded
    for served in serve(parts):
        with opened(browser, served.url) as page:
            expect(page.locator("#status-text")).to_have_text("Reading the last scores…")
            expect(page.locator("#trouble")).to_be_hidden()


def test_the_newest_letters_are_said_to_be_so(browser: Browser, filled: Served) -> None:
    why = [("__connect.errors.topic", b"user-actions"), ("__connect.errors.stage", b"json")]
    filled.parts.letters.take([Fake(b"\xff\x00", bytes(range(256)), [*why], ("dlq", 0, n)) for n in range(120)])
    with opened(browser, f"{filled.url}/#dead") as page:
        dialog = page.locator("#dead")
        expect(dialog).to_contain_text("The newest 100 are shown.")
        expect(dialog.locator("article")).to_have_count(100)
        dialog.get_by_text("Key and value").first.click()
        expect(dialog.locator("pre").first).to_contain_text("\\xfe\\xff")
        assert faults(page) == []


def test_the_question_for_a_token_stays(browser: Browser) -> None:
    for served in serve(Parts(Rules(token=TOKEN))):
        with opened(browser, served.url) as page:
            expect(page.locator("#login")).to_be_visible()
            for _ in range(3):  # the second one closes any dialog, whatever its page says
                page.keyboard.press("Escape")
            expect(page.locator("#login")).to_be_visible()
            page.locator("#token").fill(TOKEN)
            page.get_by_role("button", name="Open", exact=True).click()
            expect(page.locator("#status-text")).to_have_text("Live")
            expect(page.locator("#login")).to_be_hidden()


def test_what_fails_is_said_and_the_page_goes_on(
    browser: Browser, filled: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Explanation:
        raise ValueError("ids that are no numbers")

    monkeypatch.setattr(Parts, "explain", fails)
    with opened(browser, filled.url) as page:
        page.locator("#rows .open").first.click()
        expect(page.locator("#why")).to_have_text("the board has failed at this; its log says how")
        filled.parts.score("1008", "8", 0.5)
        expect(page.locator("#newer")).to_contain_text("Scored again: 50.0 %.")


def test_an_opened_pair_says_that_it_was_scored_again(browser: Browser, filled: Served) -> None:
    with opened(browser, filled.url) as page:
        page.locator("#rows .open").first.click()
        expect(page.locator("#pair-p")).to_have_text("8.00 %")
        filled.parts.score("1007", "7", 0.6)
        expect(page.locator("#footer")).to_contain_text("10 scores since")
        expect(page.locator("#newer")).to_be_empty()  # that was another pair
        filled.parts.score("1008", "8", 0.5)
        expect(page.locator("#newer")).to_contain_text("Scored again: 50.0 %.")
        expect(page.locator("#pair-p")).to_have_text("8.00 %")
        page.get_by_role("button", name="Show it").click()
        expect(page.locator("#pair-p")).to_have_text("50.0 %")
        expect(page.locator("#newer")).to_be_empty()


def test_a_page_that_nobody_sees_holds_no_connection(browser: Browser, filled: Served) -> None:
    """A browser has six to a server: the seventh tab would wait for ever."""
    for served in serve_slowly(filled.parts):
        with opened(browser, served.url) as page:
            expect(page.locator(ROWS)).to_have_count(9)
            assert served.connections() > 0
            page.evaluate(HIDE, True)
            page.wait_for_timeout(16_000)  # five seconds, and those after which an idle connection is closed
            assert served.connections() == 0
            filled.parts.score("best", "1", 0.9)
            page.evaluate(HIDE, False)
            expect(page.locator("#rows .open").first).to_have_text("best · 1")
            expect(page.locator("#status-text")).to_have_text("Live")


def serve_slowly(parts: Parts) -> Iterator[Running]:
    with Running(parts.app, Limits()) as server:
        yield server
        parts.ended = True


def is_loaded_anew(page: Page) -> bool:
    try:
        return not page.evaluate("Boolean(window.before)")
    except Error:  # just now
        return False


def test_a_page_of_another_board_is_loaded_anew_and_shows_what_it_did(browser: Browser, filled: Served) -> None:
    with opened(browser, filled.url) as page:
        page.get_by_label("brand", exact=True).select_option(label="2")
        page.get_by_role("searchbox").fill("100")
        expect(page.locator("#found")).to_contain_text("9 matches")
        expect(page.locator(ROWS)).to_have_count(3)
        page.evaluate("window.before = true")
        as_of_another_board(page)
        wait_until(lambda: is_loaded_anew(page), "the page is loaded anew")
        expect(page.locator("#filters-title")).to_have_text("Filters (1 chosen)")
        expect(page.locator("#within")).to_have_value("900")
        expect(page.locator(ROWS)).to_have_count(3)
        expect(page.locator("#found")).to_contain_text("9 matches")
        page.evaluate("window.before = true")  # where two boards answer by turns it is not loaded each time
        as_of_another_board(page)
        expect(page.locator(ROWS)).to_have_count(3)
        page.wait_for_timeout(2000)
        assert page.evaluate("window.before")


def as_of_another_board(page: Page) -> None:
    """From the next stream on the server says that its page is another one."""
    page.evaluate(
        """() => {
          const parse = JSON.parse;
          JSON.parse = (text, ...more) => {
            const value = parse(text, ...more);
            if (value?.page && value.now) value.page = 'another';
            return value;
          };
          const within = document.getElementById('within');
          within.value = '900';
          within.dispatchEvent(new Event('change'));
        }"""
    )


def test_many_pages_have_one_ranking_made_for_them(filled: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    known, of = 0, filled.parts.attributes.of

    def counted(key: Key) -> dict[str, str]:
        nonlocal known
        known += 1
        return of(key)

    monkeypatch.setattr(filled.parts.attributes, "of", counted)
    began, until = time.monotonic(), time.monotonic() + 3

    def read() -> int:
        with httpx.stream("GET", f"{filled.url}/api/live", timeout=60) as answer:
            lines = answer.iter_lines()
            assert len(json.loads(next(lines))["rows"]) == 9
            return sum(1 for _ in itertools.takewhile(lambda _: time.monotonic() < until, lines))

    with ThreadPoolExecutor(STREAMS) as pool:
        assert all(lines > 1 for lines in pool.map(lambda _: read(), range(STREAMS)))
    rankings = (time.monotonic() - began) / (TICK_S / 2) + 1
    assert known <= 2 * 9 * rankings  # of each row for its mark, and once more where it is told


def test_a_page_that_is_installed_meanwhile_is_not_served(filled: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    was = httpx.get(f"{filled.url}/board.js").content
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"another")
    assert httpx.get(f"{filled.url}/board.js").content == was
    assert len(httpx.get(f"{filled.url}/api/about").json()["page"]) == 16


def test_a_topic_that_is_gone_is_not_called_live(browser: Browser, filled: Served) -> None:
    filled.parts.kafka.gone = True
    with opened(browser, filled.url) as page:
        expect(page.locator("#status-text")).to_have_text("The topic is gone")
        expect(page.locator("#trouble")).to_contain_text("There is no topic purchase-scores any more.")
        expect(page.locator(ROWS)).to_have_count(9)
        answer = httpx.get(f"{filled.url}/readyz")
        assert (answer.status_code, list(answer.json()["missing"])) == (503, ["topic"])
        filled.parts.kafka.gone = False
        expect(page.locator("#status-text")).to_have_text("Live")
        expect(page.locator("#trouble")).to_be_hidden()
