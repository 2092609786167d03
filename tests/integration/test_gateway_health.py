"""How fresh a stream is, from the gateway over a real broker to who listens."""

import asyncio
from pathlib import Path

from broker import messages
from broker.clock import NS_PER_S, SteppedClock
from broker.messages import Freshness
from gateway.mapping import file as mapping_file
from gateway.monitoring import health
from gateway.pipeline.pipeline import Pipeline
from gateway.uplink.uplink import Uplink
from tests.integration.test_gateway_uplink import opened

EXAMPLE = mapping_file.read(
    (Path(__file__).parents[2] / "examples/pump-rig/mapping.yaml").read_text(), "m"
)
SPEC = EXAMPLE.streams[0].spec
TOPIC = f"tb1/live/health/{SPEC.address}"


async def test_silence_and_alarms_are_told_when_they_come_and_when_they_go(tmp_path: Path) -> None:
    clock = SteppedClock(1_000 * NS_PER_S)
    async with asyncio.timeout(15), opened(tmp_path) as (bus, disk_spool, listener):
        await bus.ready()
        pipeline = Pipeline(EXAMPLE, [SPEC], clock=clock, space="live", most_waiting=1_000)
        uplink = Uplink(bus, disk_spool, clock, space="live", specs=[SPEC])
        async with (
            listener.subscribe([TOPIC], capacity=100, overflow="drop_oldest") as inbox,
            asyncio.TaskGroup() as tasks,
        ):

            async def told(state: Freshness, *alarms: str) -> None:
                async for message in inbox:
                    inbox.ack(message)
                    published = messages.decode_health(message.payload)
                    if (published.state, published.alarms) == (state, alarms):
                        return

            def heard() -> None:
                activity = pipeline.activity[0]
                activity.sample_ns = activity.alive_ns = clock.monotonic_ns()

            heard()
            telling = health.publish(EXAMPLE, pipeline, uplink, bus, clock, "live")
            running = tasks.create_task(telling, name="health")
            await told(Freshness.FRESH)
            await clock.advance(health.patience_s(SPEC) + 2 * health.LOOK_S)
            await told(Freshness.STALE)
            pipeline.alarm("server", "it is not read")
            await clock.advance(health.LOOK_S)
            await told(Freshness.STALE, "it is not read")
            pipeline.alarm("server", None)
            heard()
            await clock.advance(health.LOOK_S)
            await told(Freshness.FRESH)
            running.cancel()


def test_what_is_said_outlives_the_time_until_it_is_said_again() -> None:
    assert health.PUBLISH_EVERY_NS / NS_PER_S + health.LOOK_S < health.VALID_S
