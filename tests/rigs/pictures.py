"""The pictures of the board in docs/img, of one that runs: `python -m rigs.pictures http://127.0.0.1:PORT/`.

They are of `make demo KEEP=1`, some minutes after its last step, so that the shop's events come. Look at them before
they are committed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Literal

from fixtures.browser import ARGUMENTS, opened
from places import REPOSITORY
from playwright.sync_api import Browser, sync_playwright

from deploy.environments import chromium

Theme = Literal["light", "dark"]

SIZES: dict[str, tuple[int, int]] = {"ranking": (1600, 900), "tablet": (820, 1100), "phone": (390, 844)}
WHY = (1400, 1000)
SETTLED_MS = 4_000  # the throughput's line has begun


def take(browser: Browser, url: str, folder: Path) -> None:
    """Three sizes and an opened row, each in both themes."""
    themes: tuple[Theme, ...] = ("light", "dark")
    for theme in themes:
        for name, (width, height) in SIZES.items():
            with opened(browser, url, width, height, theme) as page:
                page.locator("#rows .open").first.wait_for()
                page.wait_for_timeout(SETTLED_MS)
                page.screenshot(path=folder / f"board-{name}-{theme}.png")
        with opened(browser, url, *WHY, theme) as page:
            page.locator("#rows .open").first.click()
            page.locator("#features").wait_for()
            page.wait_for_timeout(SETTLED_MS)
            page.locator("#pair").screenshot(path=folder / f"board-why-{theme}.png")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rigs.pictures")
    parser.add_argument("url", help="of the board")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs" / "img")
    words = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        take(browser, words.url, words.out)
        browser.close()


if __name__ == "__main__":
    main()
