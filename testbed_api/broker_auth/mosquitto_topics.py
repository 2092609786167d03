"""Topics that a client may have read on Mosquitto, which reports connections only afterwards.

From the begin of a write of rights until the lines logged meanwhile are processed, the topics of
before count as well: of a right that ends, the access log shows too much rather than too little.
"""

from collections.abc import Mapping

from broker.backends.mosquitto.dynamic_security import ClientAccess


class Reach:
    """The topics that a new connection may read, asked in the order of the log."""

    def __init__(self) -> None:
        self._now: Mapping[str, ClientAccess] = {}
        self._before: dict[str, frozenset[str]] = {}

    def change(self, held: Mapping[str, ClientAccess], wanted: Mapping[str, ClientAccess]) -> None:
        """Note that rights change: clients that connect meanwhile may have the former ones."""
        for name, access in held.items():
            if wanted.get(name) != access:
                self._before[name] = access.topics.subscribe | self._before.get(name, frozenset())
        self._now = wanted

    def begin(self, held: Mapping[str, ClientAccess]) -> None:
        """Start from the rights that the broker holds."""
        self.change(self._now, held)

    def settle(self) -> None:
        """Forget all former topics: the lines logged during the change are processed."""
        self._before.clear()

    def went(self, principal: str) -> None:
        """Forget the former topics of a principal that was disconnected."""
        self._before.pop(principal, None)

    def of(self, principal: str) -> frozenset[str]:
        """The topic filters that a principal may have when it connects now."""
        access = self._now.get(principal)
        now = frozenset() if access is None else access.topics.subscribe
        return now | self._before.get(principal, frozenset())
