"""PublishRequests: several in flight, so that a server never has to wait for the next one.

A server answers each with at most so many notifications as it likes (1,000 is usual), and drops
what it cannot send.  Source: OPC UA Part 4, 5.14.1 and 5.14.5.
"""

import asyncio
import math
from collections import deque
from typing import Any

import structlog
from asyncua import Client, ua
from asyncua.ua import uaerrors

from gateway.links.opcua import notification_message
from gateway.links.opcua.notification_message import Message, Publish

LEAST_IN_FLIGHT = 2
MOST_IN_FLIGHT = 20
VALUES_A_PUBLISH = 1_000
"""What servers put into one answer at most, whatever they are asked for."""
ANSWERED_WITHIN_S = 0.1
"""How long an answer, and the next request after it, may be on their way."""

log = structlog.get_logger()


def in_flight(subscriptions: int, values_per_s: float) -> int:
    """How many requests keep a server busy: one a subscription, and what comes meanwhile."""
    meanwhile = math.ceil(values_per_s * ANSWERED_WITHIN_S / VALUES_A_PUBLISH)
    return min(max(subscriptions + meanwhile, LEAST_IN_FLIGHT), MOST_IN_FLIGHT)


class Publishing:
    """The requests of one session, and their answers in the order they came.

    Nothing is asked for but in `answer`: who does not come for answers gets no more of them, and
    the server keeps what it has in its queues.
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
        """Let the server forget a message; it is told so with the next request."""
        self._acknowledged.append(ua.SubscriptionAcknowledgement(subscription, sequence))

    async def answer(self) -> Publish:
        """The next publish.

        Raises UaError with the server's refusal, ConnectionError when the connection is gone,
        Corrupt if the bytes lie.
        """
        while True:
            self._ask()
            while not self._answers:
                self._came.clear()
                await self._came.wait()
            self._in_flight -= 1
            answer = self._answers.popleft()
            if answer.cancelled():
                raise ConnectionError("the connection was given up")
            try:
                found = notification_message.publish(answer.result())
            except uaerrors.BadTooManyPublishRequests:
                self._most = self.wanted = max(self._in_flight, 1)
                log.info("server takes fewer publish requests", in_flight=self.wanted)
            except uaerrors.BadTimeout:
                continue  # it had nothing to say in the time that it allows itself
            else:
                if found.more:
                    self.wanted = min(self.wanted + 1, self._most)
                return found

    def _ask(self) -> None:
        """Send as many requests as are missing; the first takes the acknowledgements along."""
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
            answer.exception()  # seen, so that asyncio need not say it when the connection ends
        self._answers.append(answer)
        self._came.set()


async def republish(client: Client, subscription: int, sequence: int) -> Message | None:
    """A message once more; None if the server no longer has it."""
    request = ua.RepublishRequest()
    request.Parameters.SubscriptionId = subscription
    request.Parameters.RetransmitSequenceNumber = sequence
    try:
        answer = await client.uaclient._send_request(request)  # noqa: SLF001 - asyncua's own cuts the time stamps
        found = notification_message.republished(answer)
    except (uaerrors.BadMessageNotAvailable, uaerrors.BadServiceUnsupported):
        return None
    return found if found.sequence == sequence else None  # asyncua's server sends an empty one
