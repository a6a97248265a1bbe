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
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_of_it_can_be_seen(
    browser: Browser, folders: dict[str, Path], which: str, width: int, theme: Literal["light", "dark"]
) -> None:
    with opened(browser, (folders[which] / "report.html").as_uri(), width=width, theme=theme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for folded in page.locator("summary").all():
            folded.click()
        assert cut_off(page) == []
        assert faults(page) == []
        # A hash is long, and yet what stands beside it is there.
        assert page.locator("table.words >> text=sha256:").first.is_visible()
        version = page.get_by_text("numpy", exact=True).locator("xpath=../td[2]").first.bounding_box()
        assert version is not None
        assert version["x"] + version["width"] <= width
