"""Quarantine: settles messages apart whose samples the store refuses for now, or takes slowly.

Each organisation with such messages has a lane of its own, which runs beside the flushes of all
others and narrows down which of its streams or messages it is about.  A lane holds few messages:
what finds no room, or fails again, is acknowledged and not kept.  It is not lost: a broker's
acknowledgement frees no spool, and publishers send every numbered batch again until it is marked.
Messages that were set aside have no publisher any more: those that fail stay in the lane.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from broker.bus.inbox import Amount
from broker.clock import Clock
from testbed_api.recorder import narrowing
from testbed_api.recorder.flush import ReceivedMessage
from testbed_api.recorder.narrowing import MessageScope, Settle, scopes_of

FIRST_S = 1.0
LONGEST_S = 30.0
"""Longest pause before the messages of a lane are tried again; each pause doubles."""
FORGET_S = 600.0
"""A lane ends when none of its messages came for so long: they are not sent again."""
MOST_OF_LANE = Amount(1_000, 8 * 1024 * 1024)
"""Messages, and bytes of payloads, that one lane holds; the publishers have the others."""
MOST_OF_ALL = Amount(1_500, 32 * 1024 * 1024)
"""The same of all lanes together.  None of them is acknowledged, and a broker that waits for the
acknowledgement of 5,000 messages of one filter delivers no more of it, whosesoever they are.
"""

Withhold = Callable[[Sequence[tuple[ReceivedMessage, str]]], Awaitable[None]]

log = structlog.get_logger()


@dataclass(slots=True)
class _Load:
    """The messages that are held, with those that are being tried.  most: its limit."""

    most: Amount
    messages: int = 0
    bytes: int = 0

    def has_room(self, message: ReceivedMessage) -> bool:
        """Whether one more message may be held."""
        size = len(message.message.payload)
        return self.messages < self.most.messages and self.bytes + size <= self.most.bytes

    def add(self, message: ReceivedMessage) -> None:
        """Count a message that is held from now on."""
        self.messages += 1
        self.bytes += len(message.message.payload)

    def remove(self, messages: Sequence[ReceivedMessage]) -> None:
        """Count messages that were settled or given up."""
        self.messages -= len(messages)
        self.bytes -= sum(len(message.message.payload) for message in messages)


@dataclass(slots=True)
class _Lane:
    """The messages of one organisation that are apart.

    suspects: whose, with the reasons.  streams: of the messages that wait.  tried: streams of those
    that are being tried.  set_aside: ids of those of both that were set aside.
    """

    load: _Load = field(default_factory=lambda: _Load(MOST_OF_LANE))
    suspects: dict[MessageScope, str] = field(default_factory=dict)
    streams: set[MessageScope] = field(default_factory=set)
    tried: set[MessageScope] = field(default_factory=set)
    set_aside: set[int] = field(default_factory=set)
    waiting: list[ReceivedMessage] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    pause_s: float = FIRST_S

    def add(self, message: ReceivedMessage) -> None:
        """Let a message wait."""
        self.waiting.append(message)
        self.streams.add(scopes_of(message)[1])
        if message.set_aside is not None:
            self.set_aside.add(message.set_aside)
        self.arrived.set()

    def reason(self, message: ReceivedMessage) -> str | None:
        """Why a message belongs here: it is suspected, or others of its stream are here."""
        scopes = scopes_of(message)
        for scope in scopes:
            if scope in self.suspects:
                return self.suspects[scope]
        is_beside = scopes[1] in self.tried or scopes[1] in self.streams
        return "others of its stream are stored apart" if is_beside else None

    def take(self) -> list[ReceivedMessage]:
        """Remove and return the messages that wait, to be tried."""
        messages, self.waiting = self.waiting, []
        self.streams, self.tried = set(), self.streams
        self.arrived.clear()
        return messages


class Quarantine:
    """The lanes of all organisations."""

    def __init__(self, settle: Settle, withhold: Withhold, clock: Clock) -> None:
        """settle: settles some messages, all or none.  withhold: gives up those that fail."""
        self._settle = settle
        self._withhold = withhold
        self._clock = clock
        self._lanes: dict[str, _Lane] = {}
        self._load = _Load(MOST_OF_ALL)
        self._new: asyncio.Queue[str] = asyncio.Queue()

    def __len__(self) -> int:
        """Number of organisations with a lane."""
        return len(self._lanes)

    async def run(self) -> None:
        """Run the lanes until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                organisation = await self._new.get()
                tasks.create_task(self._run_lane(organisation), name=f"quarantine {organisation}")

    def begin(self, failed: Mapping[MessageScope, str]) -> None:
        """Take messages of these scopes apart from now on."""
        for scope, reason in failed.items():
            if scope.organisation not in self._lanes:
                self._lanes[scope.organisation] = _Lane()
                self._new.put_nowait(scope.organisation)
            self._lanes[scope.organisation].suspects[scope] = reason
            log.warning("samples are stored apart", whose=str(scope), reason=reason)

    def reason(self, message: ReceivedMessage) -> str | None:
        """The reason why a message is to be settled apart; None if it is not."""
        if not self._lanes or message.samples_of is None:  # asked for each message
            return None
        lane = self._lanes.get(message.samples_of)
        return None if lane is None else lane.reason(message)

    def take(self, message: ReceivedMessage) -> bool:
        """Settle a message apart, soon; False if too many are apart already."""
        assert message.samples_of is not None  # noqa: S101 - for the types: it has a reason
        lane = self._lanes[message.samples_of]
        if message.set_aside in lane.set_aside:  # as when a spec is sent again
            return True
        loads = (lane.load, self._load)
        if not all(load.has_room(message) for load in loads):
            return False
        lane.add(message)
        for load in loads:
            load.add(message)
        return True

    async def _run_lane(self, organisation: str) -> None:
        """Try the messages of a lane again and again, until nothing of it fails or is slow."""
        lane = self._lanes[organisation]
        while lane.suspects or lane.waiting:
            await self._clock.sleep(lane.pause_s if lane.suspects else 0)
            if not lane.waiting and not await _within(FORGET_S, lane.arrived):
                if lane.waiting:  # one came at the last moment
                    continue
                break
            await self._try(organisation, lane)
        del self._lanes[organisation]
        log.warning("samples are stored with the others again", organisation=organisation)

    async def _try(self, organisation: str, lane: _Lane) -> None:
        messages, before = lane.take(), frozenset(lane.suspects)
        narrowed = await narrowing.narrow(messages, self._settle)
        again = {id(each) for each, _ in narrowed.left if each.set_aside is not None}
        await self._withhold([left for left in narrowed.left if id(left[0]) not in again])
        gone = [message for message in messages if id(message) not in again]
        for load in (lane.load, self._load):
            load.remove(gone)
        lane.set_aside -= {each.set_aside for each in gone if each.set_aside is not None}
        suspects = dict(lane.suspects)  # with those that a flush has added meanwhile
        if narrowed.settled:
            tried = before & {scope for message in messages for scope in scopes_of(message)}
            suspects = {scope: why for scope, why in suspects.items() if scope not in tried}
            suspects |= narrowed.failed
        if narrowed.is_slow:
            suspects[MessageScope(organisation)] = "the store takes its samples slowly"
        for scope in suspects.keys() - lane.suspects.keys():
            log.warning("samples are stored apart", whose=str(scope), reason=suspects[scope])
        lane.suspects, lane.tried = suspects, set()
        for message in messages:
            if id(message) in again:
                lane.add(message)
        lane.pause_s = min(2 * lane.pause_s, LONGEST_S) if narrowed.failed else FIRST_S


async def _within(duration_s: float, event: asyncio.Event) -> bool:
    """Wait for an event; False if it does not come in time."""
    try:
        async with asyncio.timeout(duration_s):
            await event.wait()
    except TimeoutError:
        return False
    return True
