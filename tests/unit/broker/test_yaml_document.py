"""YAML documents: plain values with the place of each field, and every mistake in them."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from broker import yaml_document
from broker.errors import Invalid
from broker.yaml_document import FilePosition


class Pump(BaseModel):
    """A document of two fields."""

    model_config = ConfigDict(extra="forbid")

    name: str
    speed: float


def parsed(text: str) -> yaml_document.YamlDocument:
    return yaml_document.parse(text, "f.yaml", holds="pump file", example="name: p1")


def mistakes(text: str) -> list[yaml_document.Mistake]:
    document = parsed(text)
    with pytest.raises(ValidationError) as caught:
        Pump.model_validate(document.value)
    return document.mistakes_of(caught.value, lambda _: ["name", "speed"], {"speed": "in 1/min"})


def test_scalars_stay_the_text_that_was_written() -> None:
    assert parsed("a: on\nb: 1e3\nc: ~\nd: [1, x]").value == {
        "a": "on",
        "b": "1e3",
        "c": None,
        "d": ["1", "x"],
    }


def test_the_place_of_a_missing_field_is_that_of_the_field_around_it() -> None:
    document = parsed("a:\n  b:\n    c: 1")
    paths = ((), ("a", "b"), ("a", "b", "x"))
    assert [document.key_position(path) for path in paths] == [(1, 1), (2, 3), (2, 3)]


def test_a_plain_value_has_a_place_of_its_own() -> None:
    document = parsed("a:\n  b: 1\n  c: [x, y]")
    paths = (("a", "b"), ("a", "c"), ("a", "c", "1"), ("a", "d"))
    assert [document.position(path) for path in paths] == [(2, 6), (3, 3), (3, 10), (1, 1)]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "name: p\nspeed: fast",
            ((2, 8), "speed: it is no number; write one such as 2.5 (not 'fast')"),
        ),
        ("name: p", ((1, 1), "speed: this field is missing; in 1/min")),
        (
            "name: p\nspeed: 1\nsped: 2",
            ((3, 1), "sped: there is no such field; did you mean 'speed'?"),
        ),
        ("name: p\nspeed: 1\nx: 2", ((3, 1), "x: there is no such field; known are name, speed")),
    ],
)
def test_a_mistake_has_the_place_of_its_field(text: str, mistake: yaml_document.Mistake) -> None:
    ((position, sentence),) = mistakes(text)
    assert position == mistake[0]
    assert sentence.startswith(mistake[1])


def test_aliases_and_fields_that_stand_twice_are_mistakes() -> None:
    document = parsed("a: &x 1\nb: *x\na: 2")
    assert document.mistakes == [
        ((2, 1), "b: an alias is not allowed here; write it out"),
        ((3, 1), "a: it stands twice; the first is on line 1"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", "f.yaml:1:1: this is not YAML"), ("- a", "f.yaml:1:1: a pump file holds fields")],
)
def test_a_document_without_fields_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        parsed(text)


def test_all_mistakes_are_listed_once_in_the_order_of_their_lines() -> None:
    first, second = FilePosition(2, 7), FilePosition(9, 1)
    listed = [(second, "b"), (first, "a"), (second, "b")]
    error = yaml_document.listed("f", listed, document="pump")
    assert error.message == "2 mistakes in the pump:\n  f:2:7: a\n  f:9:1: b"
