"""The time stamp up to which the recorder lacks no batch of a publisher's life.  Pure.

A publisher that lost its spool states a gap from there.  The stamp is that of the last sample of a
batch, as it came, and never beyond its arrival: one sample from the future does not hide what is
missing.  A stamp that is too early costs nothing, see `lost_gaps`.
"""

from collections.abc import Mapping

from broker.messages import Held
from testbed_api.recorder.ledger import StreamEpoch

MOST_BEYOND = 10_000
"""Batches of a life behind a missing one, whose stamps are remembered."""


class LifeEnds:
    """The ends of the lives that this process has received batches of."""

    def __init__(self) -> None:
        self._until_ns: dict[StreamEpoch, int] = {}
        self._beyond: dict[StreamEpoch, Mapping[int, int]] = {}
        """Stamps of batches behind a missing one, by sequence number."""

    def load(self, life: StreamEpoch, until_ns: int | None) -> None:
        """Take up a life as the ledger has it."""
        if until_ns is not None:
            self._until_ns[life] = until_ns

    def settle(self, life: StreamEpoch, held: Held, ends: Mapping[int, int]) -> int | None:
        """The end of a life with its new batches; None before one is known.

        held: with the new batches.  ends: their stamps, by sequence number.
        """
        known = {**self._beyond.pop(life, {}), **ends}
        complete = [seq for seq in known if seq <= held.upto]
        if complete:
            self._until_ns[life] = known[max(complete)]
        beyond = {seq: end_ns for seq, end_ns in known.items() if seq > held.upto}
        if beyond and len(beyond) <= MOST_BEYOND:
            self._beyond[life] = beyond
        return self._until_ns.get(life)

    def forget(self, life: StreamEpoch) -> None:
        """Forget a life; it is loaded again if another batch of it comes."""
        self._until_ns.pop(life, None)
        self._beyond.pop(life, None)
