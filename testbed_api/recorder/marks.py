"""Sends marks to publishers: after a change, where one was lost, and regularly.

Never from the flush, which does not wait for the bus.
"""

import asyncio
from collections import defaultdict

import structlog

from broker import messages
from broker.bus import client
from broker.clock import Clock
from broker.errors import Unavailable
from broker.messages import Held, Mark
from broker.namespace import EquipmentAddress, MarkTopic
from testbed_api.recorder.ledger import StreamEpoch

LEAST_PAUSE_S = 0.1
"""Shortest pause between two marks after changes."""

Publisher = tuple[str, EquipmentAddress]
"""A space and the equipment that publishes in it."""

log = structlog.get_logger()


class MarkPublisher:
    """Sends marks of what the ledger has committed."""

    def __init__(self, bus: client.Bus, clock: Clock, *, every_s: float) -> None:
        """every_s: interval at which all ranges known since the start are sent again."""
        self.marks = 0
        self._bus = bus
        self._clock = clock
        self._every_s = every_s
        self._held: dict[Publisher, dict[StreamEpoch, Held]] = defaultdict(dict)
        self._changes: dict[Publisher, set[StreamEpoch]] = {}
        self._changed = asyncio.Event()

    def update(self, life: StreamEpoch, held: Held) -> None:
        """Send the held ranges of an epoch soon: they changed, or a held batch was sent again."""
        publisher = (life.space, life.stream.owner)
        self._held[publisher][life] = held
        self._changes.setdefault(publisher, set()).add(life)
        self._changed.set()

    def forget(self, life: StreamEpoch) -> None:
        """Send no more marks of an epoch, until it is updated again."""
        publisher = (life.space, life.stream.owner)
        self._held[publisher].pop(life, None)
        self._changes.get(publisher, set()).discard(life)

    def forget_all(self) -> None:
        """Forget all ranges: the ledger holds others than were sent."""
        self._held.clear()
        self._changes.clear()

    async def run(self) -> None:
        """Send marks until cancelled."""
        await self._bus.connection()  # marks of a start would be lost before
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_changes(), name="marks of changes")
            tasks.create_task(self._send_all(), name="marks of everything")

    async def _send_changes(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            changes, self._changes = self._changes, {}
            for publisher, lives in changes.items():
                held = self._held[publisher]  # some may have been forgotten meanwhile
                await self._send(publisher, {life: held[life] for life in lives & held.keys()})
            await self._clock.sleep(LEAST_PAUSE_S)

    async def _send_all(self) -> None:
        while True:
            await self._clock.sleep(self._every_s)
            for publisher, held in list(self._held.items()):
                await self._send(publisher, dict(held))

    async def _send(self, publisher: Publisher, held: dict[StreamEpoch, Held]) -> None:
        streams: dict[str, dict[str, Held]] = defaultdict(dict)
        for life, ranges in held.items():
            streams[life.stream.stream][life.epoch] = ranges
        try:
            payload = messages.encode_mark(Mark(streams))
            await self._bus.submit(str(MarkTopic(*publisher)), payload)
            self.marks += 1
        except Unavailable as exc:  # the next mark says it again
            log.info("mark was not sent", publisher=str(publisher[1]), reason=str(exc))
