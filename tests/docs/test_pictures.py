"""The pictures in the documents are what their scripts draw."""

import importlib.util
from pathlib import Path
from xml.etree import ElementTree as ET

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


def drawn() -> str:
    """The picture as its script draws it now."""
    spec = importlib.util.spec_from_file_location("overview", PICTURES / "overview.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.picture()


def test_the_overview_is_what_its_script_draws():
    assert (PICTURES / "overview.svg").read_text() == drawn()


def test_the_overview_is_a_small_picture_with_a_title():
    root = ET.fromstring(drawn())  # noqa: S314 - our own text
    assert root.tag.endswith("svg")
    assert root.find("{http://www.w3.org/2000/svg}title").text
    assert len(drawn()) <= 60 * 1024
