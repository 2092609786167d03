"""Topics that a client may have read on Mosquitto, which reports connections only afterwards.

While rights are being written, and until all is taken in that was said meanwhile, that may be what
it had before as well: of a right that ends, the book rather tells too much than too little.
"""

from collections.abc import Mapping

from broker.backends.mosquitto.dynamic_security import ClientAccess


class Reach:
    """The topics that a new connection may read, asked in the order of the log."""

    def __init__(self) -> None:
        self._now: Mapping[str, ClientAccess] = {}
        self._before: dict[str, frozenset[str]] = {}

    def change(self, held: Mapping[str, ClientAccess], wanted: Mapping[str, ClientAccess]) -> None:
        """Rights are being written: somebody may have come in with what it had before."""
        for name, access in held.items():
            if wanted.get(name) != access:
                self._before[name] = access.topics.subscribe | self._before.get(name, frozenset())
        self._now = wanted

    def begin(self, held: Mapping[str, ClientAccess]) -> None:
        """The broker was found to hold these."""
        self.change(self._now, held)

    def settle(self) -> None:
        """All that was said while they were written has been taken in."""
        self._before.clear()

    def went(self, principal: str) -> None:
        """Forget the former topics of a principal that was disconnected."""
        self._before.pop(principal, None)

    def of(self, principal: str) -> frozenset[str]:
        """The filters of somebody who comes in."""
        access = self._now.get(principal)
        now = frozenset() if access is None else access.topics.subscribe
        return now | self._before.get(principal, frozenset())
