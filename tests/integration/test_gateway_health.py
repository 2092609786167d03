"""How fresh a stream is, from the gateway over a real broker to who listens."""

import asyncio
from pathlib import Path

from broker import messages
from broker.clock import NS_PER_S, SteppedClock
from broker.messages import Freshness
from gateway.mapping import model
from gateway.monitoring import health
from gateway.pipeline.pipeline import Feed
from gateway.uplink import Uplink
from tests.integration.test_gateway_uplink import opened

EXAMPLE = model.read(
    (Path(__file__).parents[2] / "examples/pump-rig/mapping.yaml").read_text(), "m"
)
SPEC = EXAMPLE.streams[0].spec
TOPIC = f"tb1/live/health/{SPEC.address}"


async def test_silence_and_alarms_are_told_when_they_come_and_when_they_go(tmp_path: Path) -> None:
    clock = SteppedClock(1_000 * NS_PER_S)
    async with asyncio.timeout(15), opened(tmp_path) as (bus, kept, listener):
        await bus.ready()
        feed = Feed(EXAMPLE, [SPEC], clock=clock, space="live", most_waiting=1_000)
        uplink = Uplink(bus, kept, clock, space="live", specs=[SPEC])
        async with (
            listener.subscribe([TOPIC], capacity=100, overflow="drop_oldest") as inbox,
            asyncio.TaskGroup() as tasks,
        ):

            async def told(state: Freshness, *alarms: str) -> None:
                async for message in inbox:
                    inbox.ack(message)
                    found = messages.decode_health(message.payload)
                    if (found.state, found.alarms) == (state, alarms):
                        return

            def heard() -> None:
                feed.heard_of[0].sample_ns = feed.heard_of[0].alive_ns = clock.now_ns()

            heard()
            telling = health.tell(EXAMPLE, feed, uplink, bus, clock, "live")
            running = tasks.create_task(telling, name="health")
            await told(Freshness.FRESH)
            await clock.advance(health.patience_s(SPEC) + 2 * health.LOOK_S)
            await told(Freshness.STALE)
            feed.alarm("server", "it is not read")
            await clock.advance(health.LOOK_S)
            await told(Freshness.STALE, "it is not read")
            feed.alarm("server", None)
            heard()
            await clock.advance(health.LOOK_S)
            await told(Freshness.FRESH)
            running.cancel()


def test_what_is_said_outlives_the_time_until_it_is_said_again() -> None:
    assert health.TOLD_EVERY_NS / NS_PER_S + health.LOOK_S < health.VALID_S
