"""The settings of Sphinx, which builds the documents as a site: `make site`.

The site's contents, on the left of every page, are the links of docs/index.md under its headings.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
DECISIONS = "docs/decisions/README"

project = "connected-testbed"
html_title = "connected-testbed"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**"]
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "docs"]

html_theme = "furo"
html_extra_path = ["index.html"]
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # it is fetched, which a page in a folder on disk may not do

myst_heading_anchors = 6
myst_disable_syntax = ["html_inline"]  # `run-<id>` is text

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#:\s]+)\.md\)")
_CONTENTS = "```{{toctree}}\n:{how}:\n{caption}\n{pages}\n```\n"


def setup(app: "Sphinx") -> None:
    """Register with Sphinx."""
    app.connect("source-read", _add_contents)


def _add_contents(_app: "Sphinx", name: str, source: list[str]) -> None:
    """Add to the page `name` the contents that its links or its folder stand for."""
    if name == root_doc:
        _, *parts = _HEADING.split(source[0])
        for caption, text in zip(parts[::2], parts[1::2], strict=True):
            pages = "\n".join(_LINK.findall(text))
            source[0] += "\n" + _CONTENTS.format(
                how="hidden", caption=f":caption: {caption}\n", pages=pages
            )
    elif name == DECISIONS:
        source[0] += "\n" + _CONTENTS.format(how="glob", caption="", pages="0*")
