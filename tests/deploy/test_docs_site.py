"""The site of docs/ builds without a warning and needs no network; every place that is named elsewhere exists."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from places import REPOSITORY

from deploy import environments

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
OUTSIDE = [REPOSITORY / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
SOURCES = ("*.py", "*.md", "*.toml", "*.yml", "*.cfg", "*.sql", "*.java", "*.Dockerfile", "Makefile", ".env.example")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    mkdocs = [str(environments.interpreter("docs")), "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    told = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(mkdocs, cwd=REPOSITORY, env=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    return out


def test_every_page_is_in_the_site(site: Path) -> None:
    missing = [page for page in PAGES if not (site / page.relative_to(DOCS)).with_suffix(".html").is_file()]
    assert not missing


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loads = r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>"""
    found = [load for page in site.rglob("*.html") for load in re.findall(loads, page.read_text(encoding="utf-8"))]
    assert not found
    styles = [
        style
        for file in site.rglob("*.css")
        for style in re.findall(r"url\([\"']?(?:https?:)?//[^)]*", file.read_text())
    ]
    assert not styles


def test_the_four_kinds_of_pages_are_apart() -> None:
    """Tutorial, how-to, reference, explanation, and the page that leads to them."""
    kinds = {page.relative_to(DOCS).parts[0] for page in PAGES}
    assert kinds == {"index.md", "tutorial", "how-to", "reference", "explanation"}


@pytest.mark.parametrize("page", OUTSIDE, ids=lambda page: page.name)
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for place in re.findall(r"(?:src|srcset)=\"([^\"]*)\"", text):
        assert (page.parent / place).is_file(), place
    for place, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        target = page.parent / place if place else page
        assert target.exists(), place
        assert not anchor or anchor in anchors(target), f"{place}#{anchor}"


def test_pages_that_code_and_configuration_name_exist() -> None:
    files = [file for pattern in SOURCES for file in REPOSITORY.rglob(pattern)]
    ours = [file for file in files if not {".envs", "build", ".git"} & set(file.relative_to(REPOSITORY).parts)]
    assert len(ours) > 300
    for file in ours:
        for place, anchor in re.findall(r"\bdocs/([\w./-]+\.md)(?:#([\w-]+))?", file.read_text(encoding="utf-8")):
            assert (DOCS / place).is_file(), f"{file}: docs/{place}"
            assert not anchor or anchor in anchors(DOCS / place), f"{file}: docs/{place}#{anchor}"
