"""The end of a program that was started, and sentences about it.  Pure."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

SHOWN_LINES = 12
"""The last lines of a program's output that its end is told with."""
_ERROR = re.compile(r"Error( \[\w+\])?:")
"""In a line that says what went wrong: of Python, and of Node, which has its code in brackets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrototypeOutcome:
    """The end of a prototype's process, and its output.

    exit_code: of one that ended by itself, None for one that ran until it was stopped.  was_killed:
    whether it had not ended some seconds after SIGTERM.  printed: number of lines.  is_cut: whether
    not all of them were shown.  last_lines: its last lines.
    """

    exit_code: int | None
    was_killed: bool
    printed: int
    is_cut: bool
    last_lines: tuple[str, ...]


def ending(exit_code: int) -> str:
    """The end of a process in words, such as `ended with exit code 1` or `was ended by SIGKILL`."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was ended by {signal.Signals(-exit_code).name}"
    except ValueError:  # a real-time signal, which has no name
        return f"was ended by signal {-exit_code}"


def telling_lines(lines: Sequence[str]) -> tuple[str, ...]:
    """The last SHOWN_LINES of a program's output, with the line above them that says its error.

    Node ends with a stack that is longer than they are, and has its error before that.
    """
    last = tuple(lines[-SHOWN_LINES:])
    if any(_ERROR.search(line) for line in last):
        return last
    errors = [line for line in lines[:-SHOWN_LINES] if _ERROR.search(line)]
    return (errors[0], "…", *last) if errors else last


def last_lines(lines: Sequence[str]) -> str:
    """The last lines of a process's output in a sentence, each on a line of its own."""
    if not lines:
        return "It printed nothing."
    return "Its last lines:\n" + "\n".join(f"  {line}" for line in lines)
