"""A link in a document leads somewhere: to a file of this project, and to a heading in it."""

import re
from pathlib import Path

import pytest

from tests import sources

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


@pytest.mark.parametrize("document", sources.documents(), ids=sources.named)
def test_every_link_between_our_files_leads_somewhere(document: Path):
    broken = [link for link in links(document) if not leads_somewhere(document, link)]
    assert not broken


def links(document: Path) -> list[str]:
    """The targets that are files of ours, not addresses on the web."""
    targets = LINK.findall(INLINE.sub("", FENCED.sub("", document.read_text())))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def leads_somewhere(document: Path, link: str) -> bool:
    name, _, heading = link.partition("#")
    target = document.parent / name if name else document
    if not target.exists() or not target.resolve().is_relative_to(sources.ROOT):
        return False
    return not heading or heading in anchors(target)


def anchors(document: Path) -> set[str]:
    """The names under which a document's headings can be linked to, as GitHub makes them."""
    headings = HEADING.findall(FENCED.sub("", document.read_text()))
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def test_every_decision_has_a_number_of_its_own() -> None:
    names = [path.name for path in (sources.ROOT / "docs/decisions").glob("0*.md")]
    assert len({name[:4] for name in names}) == len(names) > 40
