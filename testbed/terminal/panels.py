"""Framed lists of names and what they do, as the help of `testbed` shows its commands.

They look like those that typer draws with rich for the help of one command.  rich is not used: to
load it takes longer than everything else that the list of commands needs.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import typer

TEXT_COLUMNS = 20
"""Columns of a text at least, however long the names are."""


class PanelFrame(NamedTuple):
    """The characters of a frame: its four corners, and the lines between them."""

    corners: tuple[str, str, str, str]
    across: str
    down: str


ROUNDED = PanelFrame(("╭", "╮", "╰", "╯"), "─", "│")
PLAIN = PanelFrame(("+", "+", "+", "+"), "-", "|")


def frame_for(encoding: str | None) -> PanelFrame:
    """The frame that an output of this encoding can show."""
    try:
        "".join((*ROUNDED.corners, ROUNDED.across, ROUNDED.down)).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return ROUNDED


def panel(
    title: str,
    rows: Sequence[tuple[str, str]],
    *,
    columns: int,
    name_columns: int = 0,
    frame: PanelFrame = ROUNDED,
) -> str:
    """A frame with its title, and a line or more for each (name, text).

    columns: of the whole frame.  name_columns: of the names at least, so that the texts of several
    panels stand below one another.
    """
    name_columns = max(name_columns, *(len(name) for name, _ in rows))
    left, right, lower_left, lower_right = frame.corners
    text_columns = max(columns - name_columns - 6, TEXT_COLUMNS)
    inner = name_columns + text_columns + 4
    lines = [f"{left}{frame.across} {title} ".ljust(inner + 1, frame.across) + right]
    for name, text in rows:
        label = typer.style(name.ljust(name_columns), fg=typer.colors.CYAN, bold=True)
        for part in textwrap.wrap(text, text_columns) or [""]:
            lines.append(f"{frame.down} {label}  {part:{text_columns}} {frame.down}")
            label = " " * name_columns
    lines.append(lower_left + frame.across * inner + lower_right)
    return "\n".join(lines)
