"""What a command prints on standard output."""

import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import orjson
from rich.console import Console
from rich.segment import Segment

_MOVING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what is no ink: controls, hidden formats, half characters, line ends."""


def plain(text: str, *, keep: str = "") -> str:
    """The text with all that could move a cursor, change colours or begin a line as an escape.

    Names, topics and values come from others: shown as they are they could forge a line, or hide
    one.  keep: what stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one
        if one in keep or unicodedata.category(one) not in _MOVING
        else one.encode("unicode_escape").decode()
        for one in text
    )


class Screen(Console):
    """A console on which whoever's words are shown as they are, and only our colours control it.

    What is in brackets is no markup, and a certificate's `:AB:` is no emoji.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **more)

    def render(self, *given: Any, **more: Any) -> Iterator[Segment]:
        """As rich does, then plain."""
        for text, style, control in super().render(*given, **more):
            yield Segment(text if control else plain(text, keep="\n"), style, control)


out = Screen()


def say_json(what: object) -> None:
    """One line of JSON, at once."""
    sys.stdout.buffer.write(orjson.dumps(what, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    sys.stdout.buffer.flush()
