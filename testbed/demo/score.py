"""Score the labels that a program published against the ledger of a simulated machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.clock import text_of
from broker.errors import Invalid, Unknown
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from simulators import ledger
from simulators.faults import FaultKind
from testbed.client import api
from testbed.client.history import TIMEOUT_S
from testbed.demo import labels, verdict
from testbed.demo.outcome import COMPARABLE
from testbed.demo.plan import ANOMALY
from testbed.demo.rating import Rating
from testbed.terminal.run import Exit
from testbed.terminal.screen import Screen
from testbed_sdk import history
from testbed_sdk.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The rating of a stream's labels, for the machine's rows from the first label to the last.

    from_ns, to_ns: instants of these two labels.  kinds: kind of fault -> number of its rows that
    were flagged, and of all of them; empty where the ledger names no kind.
    """

    stream: StreamAddress
    space: str
    from_ns: int
    to_ns: int
    rating: Rating
    kinds: Mapping[str, tuple[int, int]]

    @property
    def by_kind(self) -> str:
        """A sentence with the rows of each kind of fault, empty where no kind is known."""
        if not self.kinds:
            return ""
        counts = [f"{kind} {flagged:,} of {rows:,}" for kind, (flagged, rows) in self.kinds.items()]
        sentence = f"Rows flagged by kind of fault: {', '.join(counts)}."
        others = sorted(set(FaultKind) - self.kinds.keys())
        return f"{sentence} None so far: {', '.join(others)}." if others else sentence

    def as_json(self) -> dict[str, Any]:
        """The keys that scripts rely on."""
        return {
            "stream": str(self.stream),
            "space": self.space,
            "from": text_of(self.from_ns),
            "to": text_of(self.to_ns),
            "rows": self.rating.rows_played,
            "answered": self.rating.rows_answered,
            **self.rating.as_json(),
            "kinds": {
                kind: {"flagged": flagged, "rows": rows}
                for kind, (flagged, rows) in self.kinds.items()
            },
        }

    def exit_code(self, min_f1: float | None) -> Exit:
        """Whether the F1 is at least this, as the exit code of the command; None takes any."""
        is_enough = min_f1 is None or self.rating.reaches(min_f1)
        return Exit.DONE if is_enough else Exit.NEGATIVE


async def score(stream: str, wanted: HistoryQuery, file: Path) -> Score:
    """Compare the labels of a span with the rows of a ledger.

    A row before the first label or after the last does not count: the program was not there.
    Raises Unknown without a label, Invalid for labels that cannot be compared or that are about
    other rows, and what `ledger.read` raises.
    """
    address = StreamAddress.parse(stream)
    async with api.connect(TIMEOUT_S) as connection:
        output = await history.fetch(connection, address, wanted)
    labelled = _labelled(output, wanted)
    from_ns, to_ns = min(labelled), max(labelled)
    offered = ledger.read(file, from_ns, to_ns + 1)
    truth = labels.of_rows(offered)
    answered = len(labelled.keys() & {row.time_ns for row in offered.rows})
    if not answered:
        raise Invalid(
            f"none of the {len(labelled):,} labels of {address} has the time stamp of a row in"
            f" {file}",
            hint="publish them with the time stamps of the batch that they are about; or name the"
            " ledger of that machine",
        )
    rating = Rating(
        detection=verdict.detection(truth, labelled),
        has_labels=bool(truth),
        rows_played=len(offered.rows),
        rows_answered=answered,
        published=len(labelled),
    )
    return Score(
        stream=address,
        space=wanted.space,
        from_ns=from_ns,
        to_ns=to_ns,
        rating=rating,
        kinds=verdict.flagged_by_kind(labels.kinds_of_rows(offered), labelled),
    )


def _labelled(output: History, wanted: HistoryQuery) -> dict[int, bool]:
    """The labels of an output by time stamp; raises Invalid or Unknown if there are none."""
    address, dtype = output.spec.address, output.spec.signal(ANOMALY).type
    if dtype not in COMPARABLE:
        raise Invalid(
            f"the signal {ANOMALY!r} of {address} is {dtype}",
            hint="publish a bool, true where it alarms",
        )
    labelled = labels.of_output(output)
    if not labelled:
        raise Unknown(
            f"{address} has no label in space {wanted.space} from {text_of(wanted.from_ns)} to"
            f" {text_of(wanted.to_ns)}",
            hint="let the program publish, or name the span and the space in which it did",
        )
    return labelled


def print_score(score: Score, min_f1: float | None, out: Screen) -> None:
    """Print the span, the rating in sentences, and whether an F1 is reached."""
    span = f"from {text_of(score.from_ns)} to {text_of(score.to_ns)}"
    out.print(f"How good was {score.stream} in {score.space}, {span}?", style="bold")
    rating = score.rating
    for sentence in filter(None, (rating.quality, score.by_kind, rating.coverage, *rating.meaning)):
        out.print(sentence)
    if min_f1 is not None:
        out.print(rating.sentence_about(min_f1))
