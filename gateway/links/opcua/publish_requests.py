"""PublishRequests: keeps several in flight, so that the server can always answer.

A server puts a limited number of notifications into each response (1,000 is usual), and drops
those that it cannot send.  Source: OPC UA Part 4, 5.14.1 and 5.14.5.
"""

import asyncio
import math
from collections import deque
from typing import Any

import structlog
from asyncua import Client, ua
from asyncua.ua import uaerrors

from gateway.links.opcua import notification_message
from gateway.links.opcua.notification_message import NotificationMessage, PublishResponse

LEAST_IN_FLIGHT = 2
MOST_IN_FLIGHT = 20
VALUES_A_PUBLISH = 1_000
"""Notifications that servers put into one response at most, whatever limit the client sets."""
ANSWERED_WITHIN_S = 0.1
"""Time for a response and the next request to travel."""

log = structlog.get_logger()


def in_flight(subscriptions: int, values_per_s: float) -> int:
    """Requests to keep in flight: one a subscription, and one for each response meanwhile."""
    meanwhile = math.ceil(values_per_s * ANSWERED_WITHIN_S / VALUES_A_PUBLISH)
    return min(max(subscriptions + meanwhile, LEAST_IN_FLIGHT), MOST_IN_FLIGHT)


class PublishRequests:
    """The publish requests of one session, and their responses in the order they came.

    Requests are sent only in `next_response`: while it is not called, the server keeps its
    notifications in its queues.
    """

    def __init__(self, client: Client, wanted: int) -> None:
        """wanted: requests in flight to begin with."""
        self.wanted = wanted
        self._client = client
        self._most = MOST_IN_FLIGHT
        self._in_flight = 0
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._came = asyncio.Event()
        self._acknowledged: list[ua.SubscriptionAcknowledgement] = []

    def acknowledge(self, subscription: int, sequence: int) -> None:
        """Acknowledge a message with the next request, so that the server can discard it."""
        self._acknowledged.append(ua.SubscriptionAcknowledgement(subscription, sequence))

    def discard_answers(self) -> None:
        """Forget the answers that came while the server had no subscription: they say so."""
        self._in_flight -= len(self._answers)
        self._answers.clear()

    async def next_response(self) -> PublishResponse:
        """Wait for the next publish response.

        Raises UaError with the server's refusal, ConnectionError when the connection is gone,
        Corrupt if the bytes lie.
        """
        while True:
            self._send_requests()
            while not self._answers:
                self._came.clear()
                await self._came.wait()
            self._in_flight -= 1
            answer = self._answers.popleft()
            if answer.cancelled():
                raise ConnectionError("the connection was given up")
            try:
                response = notification_message.publish(answer.result())
            except uaerrors.BadTooManyPublishRequests:
                self._most = self.wanted = max(self._in_flight, 1)
                log.info("server takes fewer publish requests", in_flight=self.wanted)
            except uaerrors.BadTimeout:
                continue  # the server had no notification within the time of a request
            else:
                if response.more:
                    self.wanted = min(self.wanted + 1, self._most)
                return response

    def _send_requests(self) -> None:
        """Send the requests that are missing in flight; the first carries the acknowledgements."""
        protocol = self._client.uaclient.protocol
        if protocol is None:
            raise ConnectionError("the connection is not open")
        while self._in_flight < self.wanted:
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = self._acknowledged
            self._acknowledged = []
            sent = protocol._send_request(request, timeout=0)  # noqa: SLF001 - asyncua's own waits for each answer
            sent.add_done_callback(self._take)
            self._in_flight += 1

    def _take(self, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled():
            answer.exception()  # retrieved, so that asyncio does not log it
        self._answers.append(answer)
        self._came.set()


async def republish(client: Client, subscription: int, sequence: int) -> NotificationMessage | None:
    """Request a message again; None if the server no longer has it."""
    request = ua.RepublishRequest()
    request.Parameters.SubscriptionId = subscription
    request.Parameters.RetransmitSequenceNumber = sequence
    try:
        answer = await client.uaclient._send_request(request)  # noqa: SLF001 - asyncua's own cuts the time stamps
        message = notification_message.republished(answer)
    except (uaerrors.BadMessageNotAvailable, uaerrors.BadServiceUnsupported):
        return None
    return message if message.sequence == sequence else None  # asyncua's server sends an empty one
