"""Refusals by a source: which of them end the gateway, and which are waited for.

A source that was read before refuses for reasons that pass or that its owner mends: it is starting,
a password was changed, a certificate renewed.  The gateway goes on asking, with an alarm.  A source
that was never read and refuses again is a mistake of the commissioning, which waiting cannot mend.
"""

from broker.errors import Invalid, Refused
from gateway.links.port import Sink

AGAIN_S = 5.0
"""The pause before a source that was never read is asked again."""
LAST = 2
"""The refusal in a row that ends the gateway; few, as servers count wrong passwords."""


class SourceUnconfigured(Invalid):
    """A setting of the gateway itself is missing, so that no source could ever let it in."""


class SourceRefusals:
    """Counts the refusals of a source in a row, and raises the one that ends the gateway."""

    def __init__(self, sink: Sink) -> None:
        """sink: knows whether the source was read before."""
        self._sink = sink
        self._in_a_row = 0

    def check(self, error: Refused, *, pause_s: float) -> float:
        """Count a refusal; returns the seconds to pause, `pause_s` for a source read before.

        Raises `error` if it ends the gateway.
        """
        if isinstance(error, SourceUnconfigured):
            raise error
        if self._sink.was_read():
            return pause_s
        self._in_a_row += 1
        if self._in_a_row >= LAST:
            raise error
        return AGAIN_S

    def reset(self) -> None:
        """Begin again: the source did not refuse."""
        self._in_a_row = 0
