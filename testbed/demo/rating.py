"""The rating of a prototype's labels against what is known of the rows, in sentences.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from testbed_scenarios.detection import Detection


@dataclass(frozen=True, slots=True, kw_only=True)
class Rating:
    """How well a prototype found the faults of a machine's rows.

    has_labels: whether the data say which rows have a fault.  rows_played, rows_answered: numbers
    of the machine's rows, and of those that the prototype labelled.  published: samples that it
    published.  learns_rows: number of first rows that it learns from and gives no answer for, 0 if
    that is not known.
    """

    detection: Detection
    has_labels: bool
    rows_played: int
    rows_answered: int
    published: int
    learns_rows: int = 0

    @property
    def is_scored(self) -> bool:
        """Whether there are labels to compare, of the data and of the prototype."""
        return self.has_labels and bool(self.published and self.rows_answered)

    @property
    def quality(self) -> str:
        """The answer to the question how good the prototype was, in a sentence or two."""
        rated = self.detection
        if not self.has_labels:
            return "Unknown: the data do not say which rows have a fault."
        if not self.published:
            return "Not scored: it published nothing."
        if not self.rows_answered:
            return "Not scored: it labelled no row."
        if rated.f1 is None:
            raised = f"it raised {rated.false:,} false alarms"
            return f"No F1: no row of the data has a fault, and {raised}."
        alarms = rated.hits + rated.false
        return (
            f"F1 {rated.f1:.3f}. Of {rated.faulty:,} rows with a fault it flagged {rated.hits:,}"
            f" and missed {rated.missed:,}; of its {alarms:,} alarm{'' if alarms == 1 else 's'}"
            f" {rated.false:,} {'was' if rated.false == 1 else 'were'} false."
        )

    @property
    def coverage(self) -> str:
        """A sentence or two about rows without an answer, empty if all rows or none have one."""
        without = self.rows_played - self.rows_answered
        if not without or not self.rows_answered:
            return ""
        answered = (
            f"{self.rows_answered:,} of {self.rows_played:,} rows"
            f" {'has' if self.rows_answered == 1 else 'have'} an answer"
        )
        if self.learns_rows:
            return (
                f"{answered}: the demo's detector learns what is normal from the first"
                f" {self.learns_rows:,} rows, and gives none for them. A row without an answer"
                " counts as no alarm."
            )
        return (
            f"{answered}; the other {without:,} {'counts' if without == 1 else 'count'} as no"
            " alarm."
        )

    @property
    def meaning(self) -> tuple[str, ...]:
        """Sentences that say what F1, false alarms and missed alarms are."""
        rated = self.detection
        if rated.f1 is None or not self.is_scored:
            return ()
        f1 = (
            "F1 weighs missed faults against false alarms (the harmonic mean of precision and"
            " recall): 1 is perfect, 0 has found nothing. An alarm that is always on has"
            f" {rated.always_f1 or 0:.2f} on these data."
        )
        missed = (
            f"Missed-alarm rate {rated.mar or 0:.3f}: of 100 rows with a fault it overlooked"
            f" {100 * (rated.mar or 0):.1f}."
        )
        false = (
            f"False-alarm rate {rated.far or 0:.3f}: of 100 rows without a fault it flagged"
            f" {100 * (rated.far or 0):.1f}."
        )
        return (f1, missed, false)

    def as_json(self) -> Mapping[str, float | None]:
        """The rates with the keys that scripts rely on; a row without a label is no alarm."""
        return {"f1": self.detection.f1, "far": self.detection.far, "mar": self.detection.mar}

    def reaches(self, min_f1: float) -> bool:
        """Whether the F1 is at least this; without one it is not."""
        return (self.detection.f1 or 0.0) >= min_f1

    def sentence_about(self, min_f1: float) -> str:
        """A sentence that says whether an F1 is reached."""
        return f"F1 of {min_f1:g} {'is reached' if self.reaches(min_f1) else 'is not reached'}."
