"""What the recorder holds, as ranges of sequence numbers, and since when.  Pure.

The spool keeps no note beside a batch that it is marked: its stream's `Held` says so.
"""

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from broker.clock import NS_PER_S
from broker.messages import Held

NOTHING = Held(0)
AGES = 15
"""How finely it is remembered since when something is marked: in this many parts of the time."""


def within(one: Held, other: Held) -> bool:
    """Whether all that one holds the other holds too."""
    if one.upto <= other.upto and not one.beyond:
        return True
    return all(
        any(low <= first and last <= high for low, high in other.ranges)
        for first, last in one.ranges
    )


def together(one: Held, other: Held) -> Held:
    """What either holds."""
    if within(other, one):
        return one
    return Held.from_ranges([*one.ranges, *other.ranges])


def number(held: Held) -> int:
    """How many it holds."""
    return held.upto + sum(last - first + 1 for first, last in held.beyond)


def clipped(held: Held, seq: int) -> Held:
    """The same as far as this number: nothing is held that was never sent."""
    if max(held.upto, held.beyond[-1][1] if held.beyond else 0) <= seq:
        return held
    return Held.from_ranges((first, min(last, seq)) for first, last in held.ranges if first <= seq)


def including(held: Held, seqs: list[int]) -> Held:
    """The same with these too, which ascend: mostly the next ones in a row."""
    if not held.beyond and (seqs[0], seqs[-1]) == (held.upto + 1, held.upto + len(seqs)):
        return Held(seqs[-1])
    return held.including(seqs)


def text_of(held: Held) -> str:
    """As it stands in a file: pairs of first and last."""
    return orjson.dumps(held.ranges).decode()


def parsed(text: str) -> Held:
    """What `text_of` wrote."""
    return Held.from_ranges((first, last) for first, last in orjson.loads(text))


class Age(NamedTuple):
    """The marks of one instant, stream -> held, and the last batch there was."""

    since_ns: int
    last: int
    held: Mapping[int, Held]


class Ages:
    """Since when what is marked is marked: copies of the marks, at most `AGES` + 2 of them.

    A mark counts from the next copy on, so rather longer than asked for, never shorter.
    """

    def __init__(self, keep_s: float) -> None:
        """keep_s: how long after its mark a batch stays."""
        self._keep_ns = round(keep_s * NS_PER_S)
        self._noted: deque[Age] = deque(maxlen=AGES + 2)

    def note(self, now_ns: int, last: int, held: Mapping[int, Held]) -> None:
        """These are the marks now; copied if the last copy is old enough."""
        if self._noted and self._noted[-1].since_ns > now_ns:
            self._noted.clear()  # the clock was set back: it counts anew
        if not self._noted or now_ns - self._noted[-1].since_ns >= self._keep_ns // AGES:
            self._noted.append(Age(now_ns, last, dict(held)))

    def aged(self, now_ns: int) -> Age | None:
        """The newest marks that are old enough to let go of what they say; each is given once."""
        found = None
        while self._noted and self._noted[0].since_ns <= now_ns - self._keep_ns:
            found = self._noted.popleft()
        return found

    def forget(self) -> None:
        """Marks were taken back: what is marked counts from now on."""
        self._noted.clear()
