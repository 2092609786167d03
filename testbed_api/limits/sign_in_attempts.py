"""Limits on guessing: failed attempts to sign in, counted over the last minute."""

import ipaddress
from collections import deque
from collections.abc import Collection

from broker.clock import NS_PER_S, Clock
from testbed_api.domain.errors import TooMany

MOST_FAILURES = 10
WITHIN_S = 60
MOST_KEYS = 100_000
"""People and addresses that are remembered; beyond them the longest silent is forgotten."""


def place_of(host: str) -> str:
    """The key of an address: IPv4 as it is, of IPv6 the /64 that belongs to one client."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


class SignInAttempts:
    """Counts attempts to sign in by person and by address; successful ones do not count.

    Each process counts for itself.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at_ns: dict[str, deque[int]] = {}

    def begin(self, keys: Collection[str]) -> None:
        """Count an attempt before the password is checked, so that concurrent attempts count.

        Raises TooMany, and counts nothing, if there were too many lately under one of the keys.
        """
        monotonic_ns = self._clock.monotonic_ns()
        for key in keys:
            times = self._at_ns.get(key, deque())
            while times and times[0] <= monotonic_ns - WITHIN_S * NS_PER_S:
                times.popleft()
            if len(times) >= MOST_FAILURES:
                wait_s = (times[0] - monotonic_ns) // NS_PER_S + WITHIN_S + 1
                raise TooMany("signing in failed too often lately", wait_s=wait_s)
        for key in keys:
            self._at_ns[key] = self._at_ns.pop(key, deque())
            self._at_ns[key].append(monotonic_ns)
        while len(self._at_ns) > MOST_KEYS:
            del self._at_ns[next(iter(self._at_ns))]

    def succeeded(self, keys: Collection[str]) -> None:
        """Take the last attempt out of the count, because it succeeded."""
        for key in keys:
            if times := self._at_ns.get(key):
                times.pop()
