"""Findings of `testbed gateway check`."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """An error keeps samples from arriving, a warning does not; a note is of the check itself."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem of a mapping, with the way to solve it, or a note."""

    severity: Severity
    sentence: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.sentence}"


def error(sentence: str) -> Finding:
    """A finding that keeps samples from arriving."""
    return Finding(Severity.ERROR, sentence)


def warning(sentence: str) -> Finding:
    """A finding that the gateway can run with."""
    return Finding(Severity.WARNING, sentence)


def note(sentence: str) -> Finding:
    """A finding about what could not be checked."""
    return Finding(Severity.NOTE, sentence)
