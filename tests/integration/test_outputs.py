"""An output over a real broker: it sends again what is not marked, and states what was lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr

from broker import codec, messages
from broker.backends.nats import server
from broker.batch import Gap, Source
from broker.bus import client
from broker.clock import HOUR_S, NS_PER_S, WallClock
from broker.credential import Credential
from broker.messages import Held, Mark
from broker.namespace import StreamAddress, parse
from broker.settings import BusSettings
from broker.streams import Signal, StreamSpec
from testbed_sdk.outputs import DOWN, RESEND_AFTER_S, Output
from testbed_sdk.program_time import WallTime

NOW_NS = 1_800_000_000 * NS_PER_S
SPEC = StreamSpec(StreamAddress("o", "e", "s"), (Signal("a"),))
SOON_S = RESEND_AFTER_S / 2
"""Before a batch goes again for its age alone."""


class SetClock(WallClock):
    """The machine's clock, with a wall time that a test sets."""

    ahead_ns = 0

    def now_ns(self) -> int:
        return super().now_ns() + self.ahead_ns


@dataclass(frozen=True, slots=True)
class Bed:
    """An output, and the recorder's end of its broker."""

    output: Output
    clock: SetClock
    broker: server.NatsBroker
    recorder: client.Bus
    inbox: client.Inbox

    async def received(self, within_s: float = SOON_S) -> tuple[str, dict[str, Any]]:
        """The verb and the document of the next batch."""
        async with asyncio.timeout(within_s):
            message = await anext(self.inbox)
        self.inbox.ack(message)
        return str(parse(message.topic).verb), orjson.loads(message.payload)

    async def mark(self, document: dict[str, Any], upto: int) -> None:
        """Mark the batches of a document's life."""
        mark = Mark({"s": {document["epoch"]: Held(upto)}})
        await self.recorder.publish("tb1/live/mark/o/e", messages.encode_mark(mark))


async def answer(_request: server.ConnectRequest) -> server.Permissions:
    everything = frozenset({"tb1/#"})
    return server.Permissions(everything, everything)


@asynccontextmanager
async def running(folder: Path, newest_ns: int | None = None) -> AsyncIterator[Bed]:
    """A bed.  newest_ns: time stamp of the newest sample that is stored of a former run."""
    clock = SetClock()

    async def newest_before(_before_ns: int) -> int | None:
        return newest_ns

    async with (
        server.embedded(folder, clock=WallClock()).serve(answer) as broker,
        connected(broker, "prototype", clock) as bus,
        connected(broker, "recorder", WallClock()) as recorder,
        recorder.subscribe(
            ["tb1/live/data/+/+/+", "tb1/live/late/+/+/+"], capacity=100, overflow="block"
        ) as inbox,
        asyncio.TaskGroup() as tasks,
    ):
        output = Output(
            "live",
            SPEC,
            bus=bus,
            clock=clock,
            source=Source.LIVE,
            ring_bytes=1_000_000,
            newest_before=newest_before,
            time=WallTime(clock),
        )
        task = tasks.create_task(output.run(), name="output")
        yield Bed(output, clock, broker, recorder, inbox)
        task.cancel()


@asynccontextmanager
async def connected(
    broker: server.NatsBroker, principal: str, clock: WallClock
) -> AsyncIterator[client.Bus]:
    credential = SecretStr(Credential.make(principal).text)
    settings = BusSettings(broker=f"mqtt://{broker.mqtt}", credential=credential)
    async with client.open(settings, clock, client_id=principal) as bus:
        await bus.ready()
        yield bus


async def test_what_is_not_marked_goes_again_over_a_new_connection(tmp_path: Path) -> None:
    async with running(tmp_path) as bed:
        await bed.output.publish(NOW_NS + 10, {"a": 1.0})
        verb, document = await bed.received()
        assert (verb, document["seq"]) == ("data", 1)
        await bed.broker.disconnect("prototype")
        verb, document = await bed.received()
        assert (verb, document["seq"]) == ("late", 1)


@pytest.mark.parametrize("step_s", [0, -HOUR_S])
async def test_what_is_not_marked_goes_again_soon_once_its_output_is_closed(
    tmp_path: Path, step_s: int
) -> None:
    """Also where the wall time was set back meanwhile."""
    async with running(tmp_path) as bed:
        await bed.output.publish(NOW_NS + 10, {"a": 1.0})
        assert (await bed.received())[0] == "data"
        bed.clock.ahead_ns = step_s * NS_PER_S
        bed.output.begin_closing()
        verb, document = await bed.received()
        assert (verb, document["seq"]) == ("late", 1)
        await bed.mark(document, 1)
        async with asyncio.timeout(SOON_S):
            await bed.output.wait_drained()


async def test_the_end_of_a_former_run_is_a_gap_once_a_batch_of_this_one_is_stored(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, newest_ns=NOW_NS + 4) as bed:
        for time_ns in (NOW_NS + 10, NOW_NS + 20):
            await bed.output.publish(time_ns, {"a": 1.0})
        documents = [(await bed.received())[1] for _ in range(2)]
        assert [document.get("gaps", []) for document in documents] == [[], []]
        with pytest.raises(TimeoutError):  # what was sent before may not be stored yet
            await bed.received(within_s=0.5)
        await bed.mark(documents[0], 1)
        _, stating = await bed.received()
        assert list(map(codec.gap_from_json, stating["gaps"])) == [
            Gap((), NOW_NS + 5, NOW_NS + 9, DOWN)
        ]
        await bed.mark(stating, 3)
        async with asyncio.timeout(SOON_S):
            await bed.output.wait_closed()
