"""The pictures in the documents are what their scripts draw."""

import importlib.util
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


def drawn(name: str) -> str:
    """The picture as its script draws it now."""
    spec = importlib.util.spec_from_file_location(name, PICTURES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.picture()


each_picture = pytest.mark.parametrize("name", ["machines", "overview"])


@each_picture
def test_a_picture_is_what_its_script_draws(name):
    assert (PICTURES / f"{name}.svg").read_text() == drawn(name)


@each_picture
def test_a_picture_is_small_and_has_a_title(name):
    root = ET.fromstring(drawn(name))  # noqa: S314 - our own text
    assert root.tag.endswith("svg")
    assert root.find("{http://www.w3.org/2000/svg}title").text
    assert len(drawn(name)) <= 60 * 1024
