"""The documents as a site: it builds without a warning, and needs no other host."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import sources
from tests.services import chromium

pytest.importorskip("sphinx", reason="sphinx is not installed; `make site` installs it")
pytestmark = pytest.mark.timeout(180)

LOADED = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']((?:https?:)?//[^\"']+)"
)
IMPORTED = re.compile(r"@import|url\([\"']?(?:https?:)?//")
WORDS = {"spool": "A full spool drops what makes room", "quality": "Topics and messages"}


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make site` does."""
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    where = ["--conf-dir", str(root / "docs/site"), "--doctree-dir", str(folder / "doctrees")]
    return subprocess.run(
        [*command, *where, str(root), str(folder / "site")],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    completed = build(sources.ROOT, folder)
    assert (completed.returncode, completed.stderr) == (0, "")
    return folder / "site"


def test_every_document_is_a_page_of_the_contents(site):
    index = (site / "docs/index.html").read_text()
    for document in (sources.ROOT / "docs").rglob("*.md"):
        page = document.relative_to(sources.ROOT / "docs").with_suffix(".html")
        assert (site / "docs" / page).is_file()
        linked = {"index.html": "#"}.get(page.as_posix(), page.as_posix())
        assert f'href="{linked}"' in index, page


def test_no_page_loads_anything_from_another_host(site):
    assert not [
        (page.name, LOADED.findall(page.read_text()))
        for page in site.rglob("*.html")
        if LOADED.search(page.read_text())
    ]
    assert not [style.name for style in site.rglob("*.css") if IMPORTED.search(style.read_text())]


@pytest.mark.parametrize("broken", ["nowhere.md", "glossary.md#nowhere", "https.md#stream"])
def test_a_broken_link_or_anchor_fails_the_build(tmp_path, broken):
    root = tmp_path / "project"
    (root / "docs").mkdir(parents=True)
    (root / "docs/site").symlink_to(sources.ROOT / "docs/site")
    (root / "docs/glossary.md").write_text("# Glossary\n")
    (root / "docs/index.md").write_text(
        f"# Documents\n\n## First\n\n[words](glossary.md) [broken]({broken})\n"
    )
    completed = build(root, tmp_path)
    assert completed.returncode != 0
    assert broken.partition("#")[2] or broken in completed.stderr


def test_pages_open_from_the_disk_and_search_finds_words(site, tmp_path):
    index = chromium.show((site / "index.html").as_uri(), tmp_path / "profile")
    assert "Where your program runs" in index.dom
    assert index.console == ()
    search = (site / "search.html").as_uri()
    for word, title in WORDS.items():
        page = chromium.show(f"{search}?q={word}", tmp_path / "profile")
        results = page.dom.partition('id="search-results"')[2]
        assert title in results
        assert page.console == ()
