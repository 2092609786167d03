"""The outcome of a prototype in a demo: its end, what it published, and sentences about both.

A problem keeps the prototype from being judged as it was meant; a note is worth knowing.  Pure.
"""

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from broker.streams import Dtype, ValueType
from testbed.demo.plan import ANOMALY, SCORE

COMPARABLE = frozenset({Dtype.BOOL, Dtype.INT64})
"""Dtypes of `anomaly` that are compared with the truth: an integer but 0 is an alarm."""

_MISSING_MODULE = re.compile(r"No module named '?(\w+)")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """The samples that a prototype published on its output, as numbers.

    samples: all of them.  dtypes: of the output's signals, empty if it registered none.  labels:
    samples of `anomaly`.  matching: stored ones with the time stamp of a row.  ends: whether the
    last row has a label.
    """

    samples: int
    dtypes: Mapping[str, ValueType]
    labels: int
    matching: int
    ends: bool


def problems(
    outcome: PrototypeOutcome, published: Publication, refused: Sequence[str]
) -> tuple[str, ...]:
    """Sentences about what kept the prototype from being judged as it was meant, none if nothing
    did.

    refused: requests that the API refused it, such as `POST /streams/…/specs`.
    """
    sentences = []
    if outcome.exit_code is not None:
        sentences.append(
            f"It {ending(outcome.exit_code)} before the machine had played to its end; a row"
            f" without a label counts as no alarm. {last_lines(outcome.last_lines)}"
        )
    if refused:
        sentences.append(f"It may publish {SCORE} alone, and was refused: {', '.join(refused)}.")
    if sentence := _unlabelled(published):
        sentences.append(sentence)
    return tuple(sentences)


def _unlabelled(published: Publication) -> str:
    """A sentence about an output without labels that can be compared, empty if it has some."""
    dtype = published.dtypes.get(ANOMALY)
    if not published.samples:
        how = "" if published.dtypes else ", and did not register that stream"
        return (
            f"It published nothing on {SCORE}{how}: publish a bool `{ANOMALY}` on the output"
            " `score`. If it only needs longer, choose a smaller --speed."
        )
    if dtype is None:
        names = ", ".join(published.dtypes) or "samples without a spec"
        return (
            f"It published {names} on {SCORE}, and no signal `{ANOMALY}`, which is compared with"
            " the truth."
        )
    if dtype not in COMPARABLE:
        return f"Its signal `{ANOMALY}` is {dtype}: publish a bool, true where it alarms."
    if not published.matching:
        return (
            f"None of its {published.labels:,} labels has the time stamp of a row: publish them"
            " with the time stamps of the batch that they are about."
        )
    return ""


def notes(outcome: PrototypeOutcome, published: Publication) -> tuple[str, ...]:
    """Sentences that are worth knowing about a prototype, most often none."""
    sentences = []
    if published.matching and not published.ends and outcome.exit_code is None:
        sentences.append(
            "It had not labelled the last row some seconds after it: a row without a label counts"
            " as no alarm. If it is slower than the machine, choose a smaller --speed."
        )
    if 0 < published.matching < published.labels:
        others = published.labels - published.matching
        sentences.append(f"{others:,} of its labels have time stamps of no row, and do not count.")
    if outcome.was_killed:
        sentences.append("It did not end within 5 s of SIGTERM, and was killed.")
    if outcome.is_cut:
        sentences.append(
            f"It printed {outcome.printed:,} lines, of which the first were shown. Printing that"
            " much slows it down."
        )
    return tuple(sentences)


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


def hint(lines: Sequence[str], python: str) -> str:
    """A hint for a prototype that ended at once; python: a Python that has the SDK."""
    text = "\n".join(lines)
    if missing := _MISSING_MODULE.search(text):
        if missing[1] == "testbed_sdk":
            return f"this Python does not have the SDK; {python} has it"
        return (
            f"this Python does not have {missing[1]}; {python} has the SDK and numpy, and what"
            " else the program needs is installed there"
        )
    if "broker.errors." in text:
        return f"it may read the input `rig` and publish the output `score`, which is {SCORE}"
    return "docs/how-to/where-your-program-runs.md lists its environment"
