"""The model's report in Chromium, opened from a disk: nothing is cut off, light and dark, on a desk and on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from fixtures.browser import faults, opened
from fixtures.reports import write_sample_report
from playwright.sync_api import Browser, Page

from batch.report.comparison import compare_reports

# Texts of a plot that stick out of it, and tables of words that do not show all of them.
CUT_OFF = """() => [
  ...[...document.querySelectorAll('figure > svg')].flatMap((plot) => {
    const box = plot.getBoundingClientRect();
    const sticksOut = ({ left, right }) => left < box.left - 1 || right > box.right + 1;
    return [...plot.querySelectorAll('text')]
      .filter((text) => sticksOut(text.getBoundingClientRect()))
      .map((text) => text.textContent);
  }),
  ...[...document.querySelectorAll('table.words')]
    .filter((table) => table.parentElement.scrollWidth > table.parentElement.clientWidth)
    .map((table) => table.textContent),
]"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    one, other = write_sample_report(folder / "one", 1), write_sample_report(folder / "other", 5)
    compare_reports(one, other, folder / "both")
    return {"one": one, "both": folder / "both"}


def cut_off(page: Page) -> list[str]:
    found: list[str] = page.evaluate(CUT_OFF)
    return found


@pytest.mark.parametrize("which", ["one", "both"])
@pytest.mark.parametrize("width", [1280, 820, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_of_it_can_be_seen(
    browser: Browser, folders: dict[str, Path], which: str, width: int, theme: Literal["light", "dark"]
) -> None:
    with opened(browser, (folders[which] / "report.html").as_uri(), width=width, theme=theme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        if which == "one" and width > 390:  # where there is room, no part of a table waits to be scrolled to
            wide = "part => [...part.querySelectorAll('.wide')].some(box => box.scrollWidth > box.clientWidth)"
            assert not page.locator("section").nth(0).evaluate(wide)
        for folded in page.locator("summary").all():
            folded.click()
        assert cut_off(page) == []
        assert faults(page) == []
        # A hash is long, and yet what stands beside it is there.
        assert page.locator("table.words >> text=sha256:").first.is_visible()
        version = page.get_by_text("numpy", exact=True).locator("xpath=../td[2]").first.bounding_box()
        assert version is not None
        assert version["x"] + version["width"] <= width


def test_on_paper_plots_stand_side_by_side(browser: Browser, folders: dict[str, Path]) -> None:
    """A4 at 96 dots an inch, less its margins; what is folded away has no line there."""
    with opened(browser, (folders["one"] / "report.html").as_uri(), width=688) as page:
        page.emulate_media(media="print")
        left, right = (page.locator(".beside > figure").nth(at).bounding_box() for at in (0, 1))
        assert left is not None
        assert right is not None
        assert left["y"] == right["y"]
        assert right["x"] >= left["x"] + left["width"]
        assert right["x"] + right["width"] <= 688
        assert not page.locator("summary").first.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 688
        assert cut_off(page) == []
