"""Every relative link of every page leads somewhere, its heading included."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("*.md", "docs/**/*.md", "policies/**/*.md", "scripts/**/*.md", "tests/**/*.md", "vaultkeeper/**/*.md")
PAGES = sorted(str(page.relative_to(ROOT)) for pattern in FOLDERS for page in ROOT.glob(pattern))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_of_a_page_leads_somewhere(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        to = page.parent / path if path else page
        assert to.exists(), link
        assert not heading or heading in anchors(to), link


def test_the_pages_were_found() -> None:
    assert {"README.md", "docs/how-to/first-policy.md", "policies/README.md"} <= set(PAGES)
