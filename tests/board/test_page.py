"""The page in Chromium, over a state in this process: what it shows of it, of nothing, and when the server is gone."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from fixtures.board import ROWS, LabelledParts, Parts, Served, serve
from fixtures.browser import faults, opened
from places import SQL
from playwright.sync_api import Browser, Page, expect

from streaming.app.folder import load_app
from streaming.board.decoding import Raw
from streaming.board.scorers import ScorerFigures
from streaming.board.usual import Usual
from streaming.board.why import Explanation, Feature
from streaming.web.access import Rules

TOKEN = "0123456789abcdef-of-the-board"


@pytest.fixture
def empty() -> Iterator[Served]:
    """Nothing is there yet."""
    yield from serve(Parts())


@pytest.fixture
def filled() -> Iterator[Served]:
    """Thirty pairs: user n wants product n with n %."""
    parts = Parts()
    parts.products()
    for n in range(30):
        parts.score(str(1000 + n), str(n), 0.001)
        parts.score(str(1000 + n), str(n), n / 100)
    yield from serve(parts)


def names(page: Page) -> list[str]:
    """The pairs as they are ranked."""
    return page.locator("#rows .open").all_inner_texts()


def test_nothing_yet_is_said_until_the_first_score(browser: Browser, empty: Served) -> None:
    empty.parts.kafka.loaded = False
    with opened(browser, empty.url) as page:
        expect(page.locator("#status-text")).to_have_text("Reading the last scores…")
        expect(page.locator("#rows .skeleton").first).to_be_visible()
        empty.parts.kafka.loaded = True
        expect(page.locator("#empty")).to_contain_text("No score yet")
        expect(page.locator("#empty")).to_contain_text("purchase-scores")
        expect(page.locator("#status-text")).to_have_text("Live")
        assert faults(page) == []
        empty.parts.score("200001", "80005", 0.875)
        expect(page.locator(ROWS)).to_have_count(1)
        expect(page.locator("#empty")).to_be_hidden()
        expect(page.locator("#rows .chance")).to_have_text("87.5 %")


def test_the_figures_have_units(browser: Browser, filled: Served) -> None:
    with opened(browser, filled.url) as page:
        for place, told in {
            "latency": "4.2 ms median",
            "latency-note": "p99 61.3 ms, last 30 s",
            "lag": "17 records",
            "state": "29.2 MB",
            "state-note": "111,220 rows",
            "version": "3",
            "version-note": "2 of 2 scorers ready",
            "letters": "0",
        }.items():
            expect(page.locator(f"#{place}")).to_have_text(told)
        filled.parts.told = ScorerFigures(asked=1, away={"http://127.0.0.1:9/metrics": "connection refused"})
        expect(page.locator("#trouble")).to_contain_text("No figures of the scorer at http://127.0.0.1:9/metrics")
        expect(page.locator("#lag")).to_have_text("–")


def test_the_ranking_moves_as_scores_come(browser: Browser, filled: Served) -> None:
    with opened(browser, filled.url) as page:
        expect(page.locator(ROWS)).to_have_count(30)
        assert names(page)[:2] == ["1029 · 29", "1028 · 28"]
        filled.parts.score("1003", "3", 0.99)
        expect(page.locator("#rows .open").first).to_have_text("1003 · 3")
        first = page.locator(ROWS).first
        expect(first.locator(".rank")).to_have_text("1")
        expect(first.locator(".trend svg")).to_have_attribute("aria-label", "Trend of 3 scores: up by 98.9 points")
        expect(first.locator(".when")).to_have_text("now")
        expect(page.locator("#rows .rank").last).to_have_text("30")


def test_a_paused_or_visited_ranking_keeps_its_order(browser: Browser, filled: Served) -> None:
    with opened(browser, filled.url) as page:
        expect(page.locator(ROWS)).to_have_count(30)
        page.get_by_role("button", name="Pause").click()
        filled.parts.score("1003", "3", 0.99)
        expect(page.locator("#footer")).to_contain_text("61 scores since")  # the page knows of it
        assert names(page)[0] == "1029 · 29"
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#rows .open").first).to_have_text("1003 · 3")
        page.locator("#rows .open").nth(4).focus()
        page.keyboard.press("Tab")  # as somebody who uses the keyboard
        focused = page.evaluate("document.activeElement.textContent")
        filled.parts.score("1004", "4", 0.995)
        moved = page.locator(ROWS).filter(has_text="1004 · 4").locator(".chance")
        expect(moved).to_have_text("99.5 %")  # its number is that of now
        assert names(page)[0] == "1003 · 3"
        assert page.evaluate("document.activeElement.textContent") == focused
        page.locator("#query").focus()
        expect(page.locator("#rows .open").first).to_have_text("1004 · 4")


def test_filters_are_of_the_application_s_fields(browser: Browser, filled: Served) -> None:
    with opened(browser, filled.url) as page:
        page.get_by_label("brand", exact=True).select_option("2")
        expect(page.locator(ROWS)).to_have_count(10)
        assert names(page)[0] == "1029 · 29"
        assert all(int(name.split(" · ")[1]) % 3 == 2 for name in names(page))
        page.get_by_label("category", exact=True).select_option("0")
        expect(page.locator("#empty")).to_contain_text("No pair is like that")
        page.locator("#empty").get_by_role("button", name="Clear filters").click()
        expect(page.locator(ROWS)).to_have_count(30)
        expect(page.get_by_label("brand", exact=True)).to_have_value("")


def test_a_search_leads_to_the_history_of_a_user(browser: Browser, filled: Served) -> None:
    filled.parts.score("1007", "29", 0.5)
    with opened(browser, filled.url) as page:
        page.get_by_role("searchbox").fill("1007")
        page.locator("#found").get_by_role("button", name="user 1007").click()
        dialog = page.locator("#history")
        expect(dialog).to_contain_text("3 scores of 2 pairs are kept; the best has 50.0 %.")
        expect(dialog.get_by_role("region", name="Scores, the newest first").locator("tbody tr")).to_have_count(3)
        assert faults(page) == []
        dialog.get_by_role("button", name="1007 · 7", exact=True).first.click()
        expect(page.locator("#pair-title")).to_have_text("1007 · 7")
        page.go_back()
        expect(page.locator("#history-title")).to_have_text("user 1007")
        page.keyboard.press("Escape")
        page.get_by_role("searchbox").fill("nobody")
        expect(page.locator("#found")).to_contain_text("Nothing that is kept is called “nobody”.")


def test_a_pair_is_opened_and_left_by_keyboard(browser: Browser, filled: Served) -> None:
    usual = Usual("recent", 2.0, 3.0, unusual=True)
    features = [
        Feature("kinds_21", "kinds_21", "count(<i>) of cards by who, last 1h", 4, "number", usual, 0.294),
        Feature("sex", "sex", "sex of bo_user", None, "text", Usual("recent", value="<b>", share=0.5), -0.1),
    ]
    features += [Feature(f"more_{n}", f"more_{n}", "at", 1_459_419_080_000, "time", None, 0.0) for n in range(12)]
    filled.parts.explained = Explanation(
        0.29, "", 0.29, True, "commonest", features, {}, '{"user_id": "1029", "<i>": 1}', "user-actions[0]@4", "3", 160
    )
    with opened(browser, filled.url) as page:
        page.locator("#rows .open").first.focus()
        page.keyboard.press("Enter")
        table = page.locator("#features")
        expect(table.locator("tbody tr")).to_have_count(8)
        name = table.locator("tbody tr th")
        expect(name.first).to_have_text(
            "count(<i>) of cards by who, last 1hkinds_21"
        )  # the small line below is its own
        expect(name.nth(1)).to_have_text("sexsex: sex of bo_user")  # app.toml calls it sex
        expect(table.locator("tbody tr").first).to_contain_text("4")
        expect(table.locator("tbody tr").first).to_contain_text("2 to 3 unusual")
        expect(table.locator("tbody tr").first).to_contain_text("+29.4")
        expect(table.locator("tbody tr").nth(1)).to_contain_text("NULL")
        expect(table.locator("tbody tr").nth(1)).to_contain_text("<b> (50 %)")
        expect(table.locator("tbody tr").nth(2)).to_contain_text("31 Mar 2016, 18:11:20")  # in the application's zone
        expect(page.locator("#why .says")).to_contain_text("the probability that was published: 29.0 %")
        assert faults(page) == []
        page.get_by_role("button", name="Show all 14 inputs").click()
        expect(table.locator("tbody tr")).to_have_count(14)
        page.keyboard.press("Escape")
        expect(page.locator("#pair")).to_be_hidden()
        expect(page.locator("#rows .open").first).to_be_focused()
        expect(page).to_have_url(re.compile("^[^#]*$"))


def test_what_cannot_be_told_is_said(browser: Browser, filled: Served) -> None:
    with opened(browser, f"{filled.url}/#pair=%5B%221029%22%2C%2229%22%5D") as page:
        expect(page.locator("#why")).to_contain_text("Not to be told: the event is not in its topic any more.")
        expect(page.locator("#pair-p")).to_have_text("29.0 %")
    with opened(browser, f"{filled.url}/#pair=%5B%22nobody%22%2C%2229%22%5D") as page:
        expect(page.locator("#pair-body")).to_have_text("this pair is not kept any more")


def test_every_size_and_theme_is_for_everybody(browser: Browser, empty: Served) -> None:
    for n in range(5):  # of many rows axe says the same, and takes its time
        empty.parts.score(str(1000 + n), str(n), n / 100)
    empty.parts.products()
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    with opened(browser, empty.url, 390) as page:
        for width, theme in itertools.product((320, 390, 1024, 1600), themes):
            page.set_viewport_size({"width": width, "height": 844})
            page.emulate_media(color_scheme=theme)
            is_whole(page, width)


def test_no_row_of_tiles_is_left_ragged(browser: Browser, filled: Served) -> None:
    ends = """() => {
      const boxes = [...document.querySelectorAll('.tiles li')].map((tile) => tile.getBoundingClientRect());
      const rows = new Map();
      for (const { top, width } of boxes) rows.set(Math.round(top), [...(rows.get(Math.round(top)) ?? []), width]);
      return [...rows.values()];
    }"""
    with opened(browser, filled.url, 1280) as page:
        for width in (1010, 1280, 1400, 1510):
            page.set_viewport_size({"width": width, "height": 844})
            (first, second) = page.evaluate(ends)
            assert (len(first), len(second)) == (4, 3), width
            assert max(first) - min(first) < 2, width
            assert second[2] > 1.9 * second[0], width
        page.set_viewport_size({"width": 1600, "height": 844})
        assert len(page.evaluate(ends)) == 1


def is_whole(page: Page, width: int) -> None:
    """Nothing is cut off or hard to read."""
    expect(page.locator(ROWS)).to_have_count(5)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    assert faults(page) == []
    right = "Math.max(...[...document.querySelectorAll('#rows .when')].map((td) => td.getBoundingClientRect().right))"
    assert page.evaluate(right) <= width, "a column is cut off"


def test_dark_or_light_is_as_the_system_is_or_as_one_says(browser: Browser, filled: Served) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    dark, light = "rgb(13, 17, 23)", "rgb(255, 255, 255)"
    with opened(browser, filled.url, theme="dark") as page:
        assert page.evaluate(back) == dark
        page.get_by_role("button", name="Theme: system").click()
        expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
        assert page.evaluate(back) == light
        page.reload()
        assert page.evaluate(back) == light
        page.emulate_media(color_scheme="light")
        page.get_by_role("button", name="Theme: light").click()
        assert page.evaluate(back) == dark


def test_a_server_that_is_gone_is_said_and_found_again(browser: Browser, filled: Served) -> None:
    with opened(browser, filled.url) as page:
        expect(page.locator("#status-text")).to_have_text("Live")
        page.context.route("**/api/**", lambda route: route.abort())
        filled.parts.ended = True  # its streams end
        expect(page.locator("#status-text")).to_have_text("Not connected")
        expect(page.locator("#trouble")).to_contain_text("The board does not answer")
        expect(page.locator(ROWS)).to_have_count(30)  # what was so is still shown
        assert faults(page) == []
        filled.parts.ended = False
        filled.parts.score("1003", "3", 0.99)
        page.context.unroute("**/api/**")
        expect(page.locator("#status-text")).to_have_text("Live")
        expect(page.locator("#trouble")).to_be_hidden()
        expect(page.locator("#rows .open").first).to_have_text("1003 · 3")


def test_a_token_is_asked_for(browser: Browser) -> None:
    parts = Parts(Rules(token=TOKEN))
    parts.score("1", "2", 0.5)
    for served in serve(parts):
        with opened(browser, served.url) as page:
            assert faults(page) == []
            page.locator("#token").fill("wrong-wrong-wrong-wrong")
            page.get_by_role("button", name="Open", exact=True).click()
            expect(page.locator("#login-why")).to_have_text("That token is not the one, or not any more.")
            page.locator("#token").fill(TOKEN)
            page.get_by_role("button", name="Open", exact=True).click()
            expect(page.locator(ROWS)).to_have_count(1)
            page.reload()
            expect(page.locator(ROWS)).to_have_count(1)


def test_the_order_is_held_under_a_pointer_until_it_rests(browser: Browser, filled: Served) -> None:
    with opened(browser, filled.url) as page:
        first = page.locator("#rows .open").first
        expect(page.locator(ROWS)).to_have_count(30)
        was = first.text_content()
        first.hover()
        expect(page.locator("#held")).to_be_visible()
        filled.parts.score("best", "29", 0.999)
        expect(page.locator("#count")).to_have_text("31 pairs")
        assert first.text_content() == was
        expect(first).to_have_text("best · 29")  # the pointer still lies there, and nobody has moved it for seconds
        expect(page.locator("#held")).to_be_hidden()
        first.focus()
        page.keyboard.press("Shift")
        expect(page.locator("#held")).to_be_visible()
        filled.parts.score("better", "29", 0.9999)
        expect(first).to_have_text("better · 29")
        expect(page.get_by_text("best · 29", exact=True)).to_be_focused()


def test_a_burst_leaves_the_page_alive(browser: Browser, filled: Served) -> None:
    """As fast as this process can: the page answers while it lasts, and shows its last score afterwards."""
    parts, stop = filled.parts, threading.Event()
    burst = [parts.raw(str(n % 7000), str(n % 113), (n % 1000) / 2000) for n in range(40_000)]

    def flood() -> None:
        while not stop.is_set():
            for start in range(0, len(burst), 5000):
                parts.pairs.add(burst[start : start + 5000])

    thread = threading.Thread(target=flood)
    with opened(browser, filled.url) as page:
        expect(page.locator(ROWS)).to_have_count(30)
        thread.start()
        try:
            expect(page.locator("#rate")).to_have_text(re.compile(r"[\d,]{4,} /s"))
            page.locator("#rows .open").first.click()
            expect(page.locator("#pair-p")).to_be_visible()
            page.keyboard.press("Escape")
            page.get_by_role("searchbox").fill("6999")
            expect(page.locator("#found").get_by_role("button", name="user 6999")).to_be_visible()
        finally:
            stop.set()
            thread.join()
        parts.score("last", "29", 0.999)
        expect(page.locator("#rows .open").first).to_have_text("last · 29")
    assert parts.pairs.pairs_kept() <= 20_000 + 10_000 + 5_000


def test_an_application_without_items_is_ranked_by_its_users(browser: Browser) -> None:
    parts = Parts(shop=load_app(SQL / "talkingdata"))
    for ip, probability in ((77, 0.25), (78, 0.5)):
        score = {"click_id": f"c{ip}", "ip": ip, "click_time": 1_510_000_000_000, "download_probability": probability}
        parts.pairs.add([Raw(json.dumps({**score, "model_version": "1"}).encode(), int(time.time() * 1000), 0, ip)])
    for served in serve(parts):
        with opened(browser, served.url) as page:
            expect(page.locator(ROWS)).to_have_count(2)
            assert names(page) == ["78", "77"]
            expect(page.locator("#filters")).to_be_hidden()
            page.get_by_role("searchbox").fill("7")
            page.locator("#found").get_by_role("button", name="ip 77").click()
            expect(page.locator("#history")).to_contain_text("1 score of 1 pair is kept")


def test_the_stream_sends_what_has_changed(filled: Served) -> None:
    import httpx

    def lines() -> Iterator[dict[str, Any]]:
        with httpx.stream("GET", f"{filled.url}/api/live", params={"limit": 5}, timeout=60) as answer:
            yield from map(json.loads, answer.iter_lines())

    found = lines()
    first = next(found)
    assert len(first["rows"]) == len(first["order"]) == 5
    assert {"figures", "choices", "total"} <= first.keys()
    filled.parts.score("1029", "29", 0.95)
    changed = next(line for line in found if "rows" in line)
    assert list(changed["rows"]) == ['["1029","29"]']
    assert "order" not in changed
    filled.parts.score("1001", "1", 0.99)
    changed = next(line for line in found if "rows" in line)
    assert list(changed["rows"]) == ['["1001","1"]']
    assert changed["order"][:2] == ['["1001","1"]', '["1029","29"]']


def test_what_is_asked_wrongly_is_refused_in_words(filled: Served) -> None:
    import httpx

    for path in ("pair", "pair?key=1", "pair?key=[[1]]", "pair?key={", "history?field=user_id"):
        answer = httpx.get(f"{filled.url}/api/{path}")
        assert (answer.status_code, list(answer.json())) == (400, ["detail"]), path
    assert httpx.get(f"{filled.url}/api/pair?key=[1]").status_code == 404
    assert httpx.get(f"{filled.url}/nothing").status_code == 404
    assert httpx.get(f"{filled.url}/api/about", headers={"host": "evil.example"}).status_code == 403
    assert httpx.get(filled.url, headers={"host": "evil.example"}).status_code == 403
    policy = httpx.get(filled.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert httpx.get(f"{filled.url}/readyz").json() == {"ready": True, "missing": {}}
    metrics = httpx.get(f"{filled.url}/metrics").text
    assert "jd_intent_board_scores 60.0" in metrics
    assert "jd_intent_board_label_events 0.0" in metrics


def test_the_auc_is_told_with_what_it_is_of_or_why_there_is_none(browser: Browser) -> None:
    parts = LabelledParts()
    for n in range(20):
        parts.score(str(1000 + n), str(n), n / 100)
    for served in serve(parts):
        with opened(browser, served.url) as page:
            tile, note = page.locator("#auc"), page.locator("#auc-note")
            expect(note).to_have_text("reading labels…")
            parts.kafka.away = "no answer"
            expect(note).to_have_text("Kafka is away")
            parts.kafka.away = ""
            parts.reach(1)
            expect(note).to_have_text("labels are known 5d later")
            parts.order("1019", "19", 2)
            expect(tile).to_have_text("–")
            expect(note).to_have_text("1 matured score, 1 positive: too few, it takes 5 of each")
            for n in (5, 16, 17, 18):
                parts.order(str(1000 + n), str(n), 2.4)
            parts.reach(120)
            # Four of five are above all fifteen others, one is above five of them: 65 of 75.
            expect(tile).to_contain_text("0.867")
            expect(note).to_have_text("of 20 matured scores, 5 positive; labels known up to 5 Apr 2016, 18:11:20")
            assert faults(page) == []


def test_a_pair_says_what_became_of_it(browser: Browser) -> None:
    parts = LabelledParts()
    for user in ("bought", "not"):
        parts.score(user, "1", 0.5)
        parts.score(user, "1", 0.25)
    parts.order("bought", "1", 2)
    for served in serve(parts):
        with opened(browser, f"{served.url}/#pair=%5B%22bought%22%2C%221%22%5D") as page:
            summary = page.locator("#pair-body .summary")
            expect(summary).to_contain_text("purchaseyes, 2 h later")
            page.get_by_text("2 scores as a table").click()
            expect(page.locator("#pair-body td.outcome")).to_have_text(["yes, 2 h later"] * 2)
            assert faults(page) == []
        for hours, told in ((119, "not known yet"), (120, "no, not within 5d")):
            parts.reach(hours)
            with opened(browser, f"{served.url}/#pair=%5B%22not%22%2C%221%22%5D") as page:
                expect(page.locator("#pair-body .summary")).to_contain_text(f"purchase{told}")


def test_an_application_without_labels_says_so(browser: Browser) -> None:
    parts = LabelledParts(shop=load_app(SQL / "talkingdata"))
    score = {"click_id": "a", "ip": 77, "click_time": 9, "download_probability": 0.5, "model_version": "2"}
    parts.pairs.add([Raw(json.dumps(score).encode(), 1, 0, 0)])
    for served in serve(parts):
        with opened(browser, f"{served.url}/#pair=%5B77%5D") as page:
            expect(page.locator("#pair-p")).to_have_text("50.0 %")
            expect(page.locator("#pair-body .summary")).not_to_contain_text("download")
            page.keyboard.press("Escape")
            expect(page.locator("#auc")).to_have_text("–")
            expect(page.locator("#auc-note")).to_have_text("labels are not on Kafka")
