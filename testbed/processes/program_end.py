"""The end of a program that was started, and sentences about it.  Pure."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass


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


def last_lines(lines: Sequence[str]) -> str:
    """The last lines of a process's output in a sentence, each on a line of its own."""
    if not lines:
        return "It printed nothing."
    return "Its last lines:\n" + "\n".join(f"  {line}" for line in lines)
