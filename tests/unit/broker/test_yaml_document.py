"""YAML documents: plain values with the line of each field, and every mistake in them."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from broker import yaml_document
from broker.errors import Invalid


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


def test_the_line_of_a_missing_field_is_that_of_the_field_around_it() -> None:
    document = parsed("a:\n  b:\n    c: 1")
    assert [document.line_of(path) for path in ((), ("a", "b"), ("a", "b", "x"))] == [1, 2, 2]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("name: p\nspeed: fast", (2, "speed: it is no number; write one such as 2.5 (not 'fast')")),
        ("name: p", (1, "speed: this field is missing; in 1/min")),
        ("name: p\nspeed: 1\nsped: 2", (3, "sped: there is no such field; did you mean 'speed'?")),
        ("name: p\nspeed: 1\nx: 2", (3, "x: there is no such field; known are name, speed")),
    ],
)
def test_a_mistake_has_the_line_of_its_field(text: str, mistake: tuple[int, str]) -> None:
    ((line, sentence),) = mistakes(text)
    assert line == mistake[0]
    assert sentence.startswith(mistake[1])


def test_aliases_and_fields_that_stand_twice_are_mistakes() -> None:
    document = parsed("a: &x 1\nb: *x\na: 2")
    assert document.mistakes == [
        (2, "b: an alias is not allowed here; write it out"),
        (3, "a: it stands twice; the first is on line 1"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", "f.yaml:1: this is not YAML"), ("- a", "f.yaml:1: a pump file holds fields")],
)
def test_a_document_without_fields_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(Invalid, match=sentence):
        parsed(text)


def test_all_mistakes_are_listed_once_in_the_order_of_their_lines() -> None:
    error = yaml_document.listed("f", [(9, "b"), (2, "a"), (9, "b")], document="pump")
    assert error.message == "2 mistakes in the pump:\n  f:2: a\n  f:9: b"
