"""What is not YAML is said in a sentence of ours, at the line of its cause."""

import pytest

from broker import yaml_document
from broker.errors import Invalid

ALIKE = "; indent the fields of one block alike"
NO_COLON = "there is no colon behind the field's name; write `name: value`"
OPEN_QUOTE = "the quote that is opened here is not closed"
TAB = "a tab stands here; use spaces, not tabs"
MISTAKES = [
    # indentation
    (
        "a: 1\nb: 2\n  c: 3\n",
        3,
        f"this line is indented by 2 spaces and line 2 by no spaces{ALIKE}",
    ),
    (
        "a:\n    b: 1\n  c: 2\n",
        3,
        f"this line is indented by 2 spaces and line 2 by 4 spaces{ALIKE}",
    ),
    (
        "a:\n    b: 1\n  c: 2\n  d: 3\n",
        2,
        f"this line is indented by 4 spaces and line 3 by 2 spaces{ALIKE}",
    ),
    (" a: 1\nb: 2\nc: 3\n", 1, f"this line is indented by 1 space and line 2 by no spaces{ALIKE}"),
    (
        "s:\n  A:\n    n: x\n    u: y\n\n   # a remark\n   low: 0\n  B:\n    n: z\n",
        7,
        f"this line is indented by 3 spaces and line 4 by 4 spaces{ALIKE}",
    ),
    ("a:\n  - x\n - y\n", 3, f"this line is indented by 1 space and line 2 by 2 spaces{ALIKE}"),
    # tabs
    ("a:\n\tb: 1\n", 2, TAB),
    ("a:\n  b: 1\n\tc: 2\n", 3, TAB),
    ("a:\n  b: 1\n  \tc: 2\n", 3, TAB),
    # colons
    ("a x\nb: 1\n", 1, NO_COLON),
    ("a: 1\nb x\nc: 2\n", 2, NO_COLON),
    ("a: 1\nb x\n", 2, NO_COLON),
    ("a: 1\nb\n  c: 2\n", 2, NO_COLON),
    ("a:\n  b x\n  c: 2\n", 2, NO_COLON),
    ("a: 1\nb:2\nc: 3\n", 2, "there is no space behind the colon; write `name: value`"),
    ("a: 1\nb: note: this\n", 2, "two colons stand in this line; put the value in quotes"),
    # quotes and brackets
    ('a: 1\nb: "x\nc: y\nd: z\n', 2, OPEN_QUOTE),
    ("a: 1\nb: 'x\nc: y\n", 2, OPEN_QUOTE),
    ('a: 1\nb: "x\nc: "y"\n', 2, OPEN_QUOTE),
    ("a: 1\nb: 'it's'\n", 2, "something stands behind the closing quote; put all of it in quotes"),
    ('a: 1\nb: "C:\\q"\n', 2, r"\ has a meaning of its own in double quotes; use single quotes"),
    ("a: 1\nb: [1, 2\nc: 3\n", 2, "the [ that is opened here is not closed, or a comma is missing"),
    ("b: {c: 1\nd: 3\n", 1, "the { that is opened here is not closed, or a comma is missing"),
    # signs
    ("a: 1\nb: @x\n", 2, "a value cannot begin with @; put it in quotes"),
    ("a: 1\nb: *x\n", 2, "a value cannot begin with * or &; put it in quotes"),
    ("a: 1\n---\nb: 2\n", 2, "a second document begins here, and a file holds one; take --- out"),
    ("a: 1\nb: \x07\n", 2, "the character U+0007 stands here; take it out"),
    ("[" * 3000, 1, "it is nested too deeply"),
]


@pytest.mark.parametrize(("text", "line", "sentence"), MISTAKES)
def test_a_usual_mistake_is_said_in_our_words(text: str, line: int, sentence: str) -> None:
    with pytest.raises(Invalid) as refused:
        yaml_document.parse(text, "f.yaml", holds="pump file", example="name: p1")
    refused_line = text.splitlines()[line - 1]
    column = len(refused_line) - len(refused_line.lstrip()) + 1
    if (strange := refused_line.find("\x07")) >= 0:
        column = strange + 1
    assert refused.value.message == f"f.yaml:{line}:{column}: this is not YAML: {sentence}"
