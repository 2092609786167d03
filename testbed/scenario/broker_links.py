"""The connections of a run's programs to its broker: one that is lost is no prototype's fault."""

from collections.abc import Mapping

import psutil

from testbed.processes.program import PrototypeProcess

OPEN = frozenset({psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT})
"""States of a connection that its program has not closed: one that hangs keeps it so."""


class BrokerLinks:
    """Knows which programs had a connection to the broker, and whether they have one still."""

    def __init__(self, programs: Mapping[str, PrototypeProcess], port: int) -> None:
        """Look at all programs; port: of the broker."""
        self._programs = programs
        self._port = port
        self._connected = {name for name in programs if self._is_connected(name)}

    def is_lost(self, name: str) -> bool:
        """Whether a program had a connection, and it or a library of it has given it up since.

        A program whose connection was never seen, as in a container, counts as connected.
        """
        return name in self._connected and not self._is_connected(name)

    def _is_connected(self, name: str) -> bool:
        try:
            first = psutil.Process(self._programs[name].pid)
            return any(
                each.status in OPEN and each.raddr[1:2] == (self._port,)
                for process in (first, *first.children(recursive=True))
                for each in process.net_connections("tcp")
            )
        except psutil.Error:  # it has ended, or is another user's
            return False
