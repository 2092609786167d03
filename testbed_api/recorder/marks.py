"""Telling publishers what is held: on change, on request, and regularly, never from the flush."""

import asyncio
from collections import defaultdict

import structlog

from broker import messages
from broker.bus import client
from broker.clock import Clock
from broker.errors import Unavailable
from broker.messages import Held, Mark
from broker.namespace import EquipmentAddress, MarkTopic
from testbed_api.recorder.ledger import Life

LEAST_PAUSE_S = 0.1
"""Between two marks for what has changed."""

Publisher = tuple[str, EquipmentAddress]
"""A space, and who publishes there."""

log = structlog.get_logger()


class Marker:
    """Sends marks.  What is told was committed to the ledger before."""

    def __init__(self, bus: client.Bus, clock: Clock, *, every_s: float) -> None:
        """every_s: so often everything is told that was told since the start."""
        self.marks = 0
        self._bus = bus
        self._clock = clock
        self._every_s = every_s
        self._held: dict[Publisher, dict[Life, Held]] = defaultdict(dict)
        self._news: dict[Publisher, set[Life]] = {}
        self._changed = asyncio.Event()

    def tell(self, life: Life, held: Held) -> None:
        """Say soon that this is held."""
        publisher = (life.space, life.stream.owner)
        self._held[publisher][life] = held
        self._news.setdefault(publisher, set()).add(life)
        self._changed.set()

    def asked(self, publisher: Publisher) -> None:
        """It sent something again: tell it everything soon."""
        self._news.setdefault(publisher, set()).update(self._held[publisher])
        self._changed.set()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_news(), name="marks of what changed")
            tasks.create_task(self._send_all(), name="marks of everything")

    async def _send_news(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            news, self._news = self._news, {}
            for publisher, lives in news.items():
                await self._send(publisher, {one: self._held[publisher][one] for one in lives})
            await self._clock.sleep(LEAST_PAUSE_S)

    async def _send_all(self) -> None:
        while True:
            await self._clock.sleep(self._every_s)
            for publisher, held in list(self._held.items()):
                await self._send(publisher, dict(held))

    async def _send(self, publisher: Publisher, held: dict[Life, Held]) -> None:
        streams: dict[str, dict[str, Held]] = defaultdict(dict)
        for life, one in held.items():
            streams[life.stream.stream][life.epoch] = one
        try:
            payload = messages.encode_mark(Mark(streams))
            await self._bus.submit(str(MarkTopic(*publisher)), payload)
            self.marks += 1
        except Unavailable as exc:  # the next mark says it again
            log.info("mark was not sent", publisher=str(publisher[1]), reason=str(exc))
