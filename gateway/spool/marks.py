"""Marks: ranges of sequence numbers that the recorder holds of each stream, and their age.  Pure.

No row says whether its batch is marked; the `Held` of its stream does.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from broker.clock import NS_PER_S
from broker.messages import Held

NOTHING = Held(0)
AGES = 15
"""Copies of the marks that are kept over the time that marked batches stay in the file."""


def within(part: Held, whole: Held) -> bool:
    """Whether `whole` holds every number that `part` holds."""
    if part.upto <= whole.upto and not part.beyond:
        return True
    return all(
        any(low <= first and last <= high for low, high in whole.ranges)
        for first, last in part.ranges
    )


def together(left: Held, right: Held) -> Held:
    """The numbers that at least one of two holds."""
    if within(right, left):
        return left
    return Held.from_ranges([*left.ranges, *right.ranges])


def number(held: Held) -> int:
    """The number of sequence numbers held."""
    return held.upto + sum(last - first + 1 for first, last in held.beyond)


def clipped(held: Held, seq: int) -> Held:
    """The held numbers up to `seq`: a batch that was never sent cannot be held."""
    if held.greatest <= seq:
        return held
    return Held.from_ranges((first, min(last, seq)) for first, last in held.ranges if first <= seq)


def including(held: Held, seqs: list[int]) -> Held:
    """The held numbers and these, which ascend; fast where they continue a single range."""
    if not held.beyond and (seqs[0], seqs[-1]) == (held.upto + 1, held.upto + len(seqs)):
        return Held(seqs[-1])
    return held.including(seqs)


def text_of(held: Held) -> str:
    """Ranges as the spool's file stores them: JSON pairs of first and last."""
    return orjson.dumps(held.ranges).decode()


def parsed(text: str) -> Held:
    """Parse the text of `text_of`."""
    return Held.from_ranges((first, last) for first, last in orjson.loads(text))


class MarkSnapshot(NamedTuple):
    """The marks at one time, by stream, and the id of the newest batch then."""

    since_ns: int
    last: int
    held: Mapping[int, Held]


class MarkAges:
    """Copies of the marks over time, which tell the batches that were marked long enough ago.

    There are at most `AGES` + 2 copies.  A mark's age counts from the next copy on, so a batch
    stays longer than asked for, never shorter.
    """

    def __init__(self, keep_s: float) -> None:
        """keep_s: seconds that a batch stays after its mark."""
        self._keep_ns = round(keep_s * NS_PER_S)
        self._copies: deque[MarkSnapshot] = deque(maxlen=AGES + 2)

    def note(self, now_ns: int, last: int, held: Mapping[int, Held]) -> None:
        """Copy the present marks if the last copy is old enough."""
        if self._copies and self._copies[-1].since_ns > now_ns:
            self._copies.clear()  # the clock was set back: ages begin anew
        if not self._copies or now_ns - self._copies[-1].since_ns >= self._keep_ns // AGES:
            self._copies.append(MarkSnapshot(now_ns, last, dict(held)))

    def aged(self, now_ns: int) -> MarkSnapshot | None:
        """The newest copy that is old enough to delete its marked batches; returned once."""
        aged = None
        while self._copies and self._copies[0].since_ns <= now_ns - self._keep_ns:
            aged = self._copies.popleft()
        return aged

    def forget(self) -> None:
        """Forget all ages, because marks were taken back: they begin anew."""
        self._copies.clear()
