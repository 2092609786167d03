"""docs/architecture.md names the rooms that there are, and all of them."""

import re
from pathlib import Path

import pytest

from tests import sources

PAGE = sources.ROOT / "docs" / "architecture.md"
ROOMS = {
    "broker": "broker",
    "gateway": "gateway",
    "testbed_api": "testbed_api",
    "testbed": "testbed",
    "testbed_scenarios": "testbed_scenarios",
}
UNSHOWN = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}


def section(package: str) -> str:
    """The part of the page under a package's heading."""
    text = PAGE.read_text()
    (body,) = re.findall(rf"^### {package}$\n(.*?)(?=^##)", text, flags=re.MULTILINE | re.DOTALL)
    return body


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_of_a_package_is_on_the_page(package: str):
    named = {name.split("/")[0] for name in re.findall(r"`([\w/]+(?:\.py|/))`", section(package))}
    rooms = {path.name for path in (sources.ROOT / package).iterdir()} - UNSHOWN
    assert named == rooms


def test_every_path_on_the_page_exists():
    text = PAGE.read_text()
    paths = set(
        re.findall(r"`((?:broker|gateway|testbed_api|testbed|tests)/[\w/]*(?:\.py)?)`", text)
    )
    assert len(paths) > 10
    assert not [path for path in paths if not (sources.ROOT / path).exists()]


def test_every_type_on_the_page_exists():
    code = "\n".join(Path(path).read_text() for path in sources.modules())
    types = set(re.findall(r"`([A-Z][A-Za-z]+)`", PAGE.read_text()))
    assert len(types) > 15
    assert not [name for name in types if not re.search(rf"^class {name}\b", code, re.MULTILINE)]
