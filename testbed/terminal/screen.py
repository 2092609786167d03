"""Output of commands on standard output: text in which control characters are escaped, or JSON."""

import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import orjson
from rich.console import Console, ConsoleDimensions
from rich.segment import Segment

PIPED_COLUMNS = 1_000_000
"""Width of output that no terminal shows: a program that reads it needs no line broken or cut."""
_CONTROL_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories without a glyph: controls, formats, surrogates, line and paragraph ends."""


def plain(text: str, *, keep: str = "") -> str:
    """The text with every character escaped that could move the cursor, set colours or end a line.

    Names, topics and values come from other parties: printed as they are, they could forge or hide
    a line.  keep: characters that are not escaped.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or unicodedata.category(character) not in _CONTROL_CATEGORIES
        else character.encode("unicode_escape").decode()
        for character in text
    )


class Screen(Console):
    """A rich console that prints text from other parties unchanged but for control characters.

    Markup and emoji codes are off: brackets are text, and a certificate's `:AB:` is no emoji.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)
        self._has_fixed_width = "width" in options

    @property
    def is_piped(self) -> bool:
        """Whether a file or another program takes the output; false where a width was given."""
        return not (self._has_fixed_width or self.file.isatty())

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines: of the terminal, or as many columns as a line needs."""
        columns, lines = super().size
        return ConsoleDimensions(PIPED_COLUMNS if self.is_piped else columns, lines)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size

    def render(self, *args: Any, **options: Any) -> Iterator[Segment]:
        """The segments of rich's own rendering, with control characters in their text escaped."""
        for text, style, control in super().render(*args, **options):
            yield Segment(text if control else plain(text, keep="\n"), style, control)


out = Screen()
notes = Screen(stderr=True)
"""Sentences beside the data, so that `$(…)` around a command catches the data alone."""


def print_json(value: object) -> None:
    """Print a value as one line of JSON, and flush; an answer of the API as the API sent it."""
    from broker.responses.base import ApiResponse

    value = value.as_json() if isinstance(value, ApiResponse) else value
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    sys.stdout.buffer.flush()


def announce(text: str) -> None:
    """Print on standard error what takes a while, where a person looks at a terminal."""
    if notes.is_terminal:
        notes.print(f"{text} …", style="dim")
