"""Notifies the reconciler of changed rights, and waits until the broker holds them.

The reconciler would find them by itself a moment later; the notice tells the API when it is done.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from broker.bus.client import Bus
from broker.bus.inbox import Inbox
from broker.errors import Unavailable
from broker.namespace import LIVE, ROOT
from broker.settings import Address

CHANGED = f"{ROOT}/{LIVE}/changed"
APPLIED = f"{ROOT}/{LIVE}/applied"
"""Of the system's own parts alone; the payload of the first comes back on the second."""
ANSWER_S = 5.0
AGAIN_S = 0.5
"""One that is not answered is told again: the reconciler may just be coming back."""

log = structlog.get_logger()


class Notices:
    """A `broker.backends.port.RunningBroker` whose rights another process writes."""

    def __init__(self, bus: Bus, mqtt: Address) -> None:
        """Called by `noticing`."""
        self.mqtt = mqtt
        self._bus = bus
        self._waiting: dict[bytes, asyncio.Future[None]] = {}

    async def disconnect(self, principal: str) -> None:
        """End the connections of a principal whose rights changed; raises Unavailable.

        Which topics changed is the reconciler's to see: one whose topics and secret are the same
        stays.
        """
        await self._notice(principal)

    async def announce(self, principal: str) -> None:
        """Make a new token of a principal count; a failure is logged, not raised."""
        try:
            await self._notice(principal)
        except Unavailable as exc:
            log.warning("token is not yet known", principal=principal, reason=str(exc))

    async def follow(self, inbox: Inbox) -> None:
        """Receive the reconciler's confirmations until cancelled."""
        async for message in inbox:
            inbox.ack(message)
            waiting = self._waiting.get(message.payload)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    async def _notice(self, principal: str) -> None:
        mine = f"{principal} {secrets.token_hex(8)}".encode()
        done = self._waiting[mine] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(ANSWER_S):
                while not done.done():
                    await self._bus.publish(CHANGED, mine)
                    await asyncio.wait([done], timeout=AGAIN_S)
        except TimeoutError as exc:
            raise Unavailable(
                f"the rights of {principal} did not reach the broker in {ANSWER_S:g} s",
                hint="is `testbed reconcile` running?",
            ) from exc
        finally:
            del self._waiting[mine]


@asynccontextmanager
async def noticing(bus: Bus, mqtt: Address) -> AsyncIterator[Notices]:
    """Notify the reconciler over the API's own connection until left."""
    notices = Notices(bus, mqtt)
    async with (
        bus.subscribe([APPLIED], capacity=10_000, overflow="drop_oldest") as inbox,
        asyncio.TaskGroup() as tasks,
    ):
        following = tasks.create_task(notices.follow(inbox), name="notices")
        try:
            yield notices
        finally:
            following.cancel()
