"""On the bus nobody publishes, hears or is shown what the policy does not list."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from broker.clock import WallClock
from broker.namespace import Verb
from broker.policy import Topics
from broker.rights import Action
from tests.probes import topics, wire
from tests.probes.backends import Processes
from tests.probes.cast import RIG, WATCHER, Cast
from tests.probes.results import Found
from tests.probes.wire import Closed, Line

CLOCK = WallClock()
SHOWN_S = 5.0
FILTERS = 3
"""Filters of QoS 1 that NATS takes over a connection of somebody else."""
SETTLED_S = 0.5
KEEPING = (False, True)
KEPT = b"kept for a later reader"
EXACT = topics.exact()
REFUSED = (*topics.WIDE, *topics.ODD, *topics.TWISTED)


@dataclass
class Prober:
    """One who probes: what it may, a connection that is renewed, and all that it ever heard."""

    server: Processes
    who: str
    credential: str
    may: Topics
    heard: set[str] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        async with wire.opened(self.server.broker, self.credential) as line:
            try:
                yield line
            finally:
                self.heard |= {each.topic for each in line.heard}

    async def subscribe(self, wanted: Sequence[str]) -> list[bool]:
        """Of each whether it was taken, and what was kept has come then.

        A connection for each few: NATS takes only so many filters of QoS 1 over one.
        """
        taken: dict[str, bool] = {}
        for at in range(0, len(wanted), FILTERS):
            filters = list(wanted[at : at + FILTERS])
            async with self.line() as line:
                answers = await line.subscribe(filters)
                taken |= dict(zip(filters, answers, strict=True))
                greeted = {each for each in filters if taken[each]}
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(SHOWN_S):
                        while greeted - {each.topic for each in line.heard}:
                            await line.next()
        return [taken[each] for each in wanted]

    async def subscribe_each(self, wanted: Sequence[str]) -> list[bool]:
        """Of each whether it was taken; some brokers end the connection for one: it was not."""
        taken: list[bool] = []
        while len(taken) < len(wanted):
            with contextlib.suppress(Closed):
                async with self.line() as line:
                    while len(taken) < len(wanted):
                        taken.append(False)
                        (taken[-1],) = await line.subscribe([wanted[len(taken) - 1]])
        return taken

    async def publish_each(self, messages: Sequence[tuple[str, bytes, bool]]) -> None:
        """One after the other; some brokers end the connection for one that is forbidden."""
        waiting = list(messages)
        while waiting:
            with contextlib.suppress(Closed):
                async with self.line() as line:
                    while waiting:
                        await line.publish([waiting.pop(0)])

    async def publish(self, messages: Sequence[tuple[str, bytes, bool]]) -> None:
        """All at once."""
        async with self.line() as line:
            await line.publish(messages)

    def said(self, topic: str, *, retain: bool) -> tuple[str, bytes, bool]:
        return topic, f"{self.who}|{topic}|{retain}".encode(), retain


@contextlib.asynccontextmanager
async def watching(server: Processes, cast: Cast) -> AsyncIterator[Line]:
    """Who hears all of the tree, and has left a message on every topic of it."""
    async with wire.opened(server.broker, cast.credentials[WATCHER]) as line:
        await line.publish([(each, KEPT, True) for each in EXACT])
        assert await line.subscribe(["tb1/#"], 0) == [True]
        yield line


def test_every_verb_has_a_topic_to_be_probed():
    for verb in Verb:
        assert any(f"/{verb}/" in each for each in EXACT)


async def test_nobody_hears_what_the_policy_does_not_list(
    probed: Processes, cast: Cast, findings: Found
):
    async with watching(probed, cast):
        for who in topics.probes(cast):
            prober = _prober(probed, cast, who)
            if who not in cast.whose:
                came = await wire.comes_in(probed.broker, prober.credential)
                findings.hold(f"{who} connects", came, may=False)
                continue
            for topic, taken in zip(EXACT, await prober.subscribe(EXACT), strict=True):
                may = prober.may.cover(Action.SUBSCRIBE, topic)
                findings.hold(f"{who} subscribes {topic}", taken, may=may)
                findings.hold(
                    f"{who} is shown what is kept on {topic}", topic in prober.heard, may=may
                )
            for wide, taken in zip(REFUSED, await prober.subscribe_each(REFUSED), strict=True):
                findings.hold(f"{who} subscribes {wide}", taken, may=False)
    findings.judge()


async def test_nobody_publishes_what_the_policy_does_not_list(
    probed: Processes, cast: Cast, findings: Found
):
    odd = (*topics.INJECTED, *topics.TWISTED)
    probers = [_prober(probed, cast, who) for who in topics.probes(cast) if who in cast.whose]
    async with watching(probed, cast) as watcher:
        async with asyncio.TaskGroup() as tasks:
            hearing = tasks.create_task(watcher.listen(3_600), name="watcher")
            for prober in probers:
                await prober.publish(
                    [prober.said(each, retain=retain) for each in EXACT for retain in KEEPING]
                )
                await prober.publish_each([prober.said(each, retain=True) for each in odd])
            await CLOCK.sleep(SETTLED_S)
            hearing.cancel()
        heard = {packet.payload.decode(): packet.topic for packet in watcher.heard}
    for prober in probers:
        for topic in (*EXACT, *odd):
            may = prober.may.cover(Action.PUBLISH, topic)
            for retain in KEEPING if topic in EXACT else (True,):
                where = heard.get(prober.said(topic, retain=retain)[1].decode())
                findings.hold(
                    f"{prober.who} publishes {topic} ({retain=})", where is not None, may=may
                )
                if where not in {None, topic}:
                    findings.fault(f"{prober.who} publishes {topic}", f"came on {where}")
    findings.judge()


async def test_nobody_comes_in_under_the_client_id_of_another(
    probed: Processes, cast: Cast, findings: Found
):
    victim = "company-reader"
    names = [victim, f"{victim}--", f"{victim}--1", f"{victim}--x-y", victim.upper(), f" {victim}"]
    async with wire.opened(probed.broker, cast.credentials[victim]) as held:
        for who in topics.probes(cast):
            if who != victim:
                prober = _prober(probed, cast, who)
                for name in names:
                    came = await wire.comes_in(probed.broker, prober.credential, name)
                    may = probed.renames and who in cast.whose  # in its own name
                    findings.hold(f"{who} connects as {name}", came, may=may)
                    taken = await held.subscribe([f"tb1/live/data/{RIG}"])
                    findings.hold(f"{who} takes the place of {name}", taken != [True], may=False)
    assert findings.probes > 100
    findings.judge()


def _prober(server: Processes, cast: Cast, who: str) -> Prober:
    may = topics.allowed(cast, who, CLOCK.now_ns())
    return Prober(server, who, cast.credentials[who], may)
