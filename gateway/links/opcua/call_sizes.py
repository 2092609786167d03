"""The number of nodes that a server takes in one request, found out by halving what it refuses.

Servers state such limits, or wrong ones, or none; a small controller may also be too slow for a
request that it takes.  Limits are remembered over the connections of a process.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Any

import structlog
from asyncua.ua.uaerrors import UaStatusCodeError

from gateway.links.opcua import refusal_codes

MOST_SPLITS = 64
"""Requests that are halved in one call to find the nodes for which a server refuses all others."""

log = structlog.get_logger()


class Service(StrEnum):
    """A service of OPC UA that takes several nodes in one request."""

    READ = "Read"
    MONITOR = "CreateMonitoredItems"
    TRANSLATE = "TranslateBrowsePaths"


class ServerLimits:
    """The most nodes that one server takes in a request of each service.

    refused: services of which the server refused a larger request.  publishes: False once the
    server took a subscription and refused to publish it.
    """

    def __init__(self, most: int) -> None:
        """most: nodes in one request, as the mapping limits them."""
        self.most = most
        self.publishes = True
        self.refused: set[Service] = set()
        self._taken = dict.fromkeys(Service, most)
        self._in_time = dict.fromkeys(Service, most)
        self._said = ""

    def size(self, service: Service) -> int:
        """Nodes in the next request of a service."""
        return min(self._taken[service], self._in_time[service])

    def state(self, service: Service, most: int) -> None:
        """Take over a limit that the server states."""
        self._taken[service] = min(self._taken[service], most)

    def is_new(self, sentence: str) -> bool:
        """Whether a sentence about the server differs from the last one, which is remembered."""
        before, self._said = self._said, sentence
        return sentence != before

    def note_refusal(self, service: Service, size: int) -> None:
        """Halve a service's requests: one of so many nodes was too large for the server."""
        self._taken[service] = min(self._taken[service], max(size // 2, 1))
        self.refused.add(service)
        log.info("server takes smaller requests", service=service, nodes=self._taken[service])

    def note_timeout(self, service: Service, size: int) -> None:
        """Halve a service's requests for now: one of so many nodes was not answered in time."""
        self._in_time[service] = max(size // 2, 1)
        log.info("server was too slow", service=service, nodes=self._in_time[service])

    def note_answer(self, service: Service, size: int) -> None:
        """Double what a time-out halved: a request of so many nodes was answered."""
        if size >= self._in_time[service]:
            self._in_time[service] = min(2 * size, self.most)


async def call(
    limits: ServerLimits,
    service: Service,
    rows: Sequence[Any],
    request: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]],
) -> list[Any]:
    """Send rows in requests that the server takes; returns an answer for each, in order.

    request: sends some rows, and returns the answer of each.  A row for which the server refuses
    the whole request has the UaStatusCodeError as its answer; others in that request are sent
    again without it.  Raises the error of a request that ended the connection.
    """
    answers: list[Any] = []
    waiting = list(rows)
    parts: list[int] = []  # sizes of the next requests, where one was halved
    splits = 0
    while waiting:
        size = min(parts.pop() if parts else len(waiting), limits.size(service), len(waiting))
        chunk = waiting[:size]
        try:
            part = list(await request(chunk) or ())
        except TimeoutError:
            limits.note_timeout(service, size)
            raise
        except UaStatusCodeError as exc:
            if refusal_codes.ends_connection(exc):
                raise
            if exc.code in refusal_codes.TOO_LARGE and size > 1:
                limits.note_refusal(service, size)
                continue
            if size > 1 and splits < MOST_SPLITS and exc.code not in refusal_codes.UNSUPPORTED:
                splits += 1
                parts += [size - size // 2, size // 2]
                continue
            part = [exc] * size
        else:
            limits.note_answer(service, size)
        answers += part + [None] * (size - len(part))
        waiting = waiting[size:]
    return answers
