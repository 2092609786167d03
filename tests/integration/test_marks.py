"""Marks of the recorder through a real broker."""

import asyncio
from pathlib import Path

from pydantic import SecretStr

from broker import messages
from broker.backends.nats import server
from broker.bus import client
from broker.clock import WallClock
from broker.credential import Credential
from broker.messages import Held
from broker.namespace import StreamAddress, parse
from broker.settings import BusSettings
from testbed_api.recorder.ledger import StreamEpoch
from testbed_api.recorder.marks import MarkPublisher

CLOCK = WallClock()
MACHINES = ("a", "b", "c")


def life(machine: str, epoch: str) -> StreamEpoch:
    return StreamEpoch("live", StreamAddress("o", machine, "s"), epoch)


async def answer(*_: object) -> server.Permissions:
    return server.Permissions(publish=frozenset({"tb1/#"}), subscribe=frozenset({"tb1/#"}))


async def test_a_life_that_is_forgotten_while_marks_are_sent_is_left_out(tmp_path: Path) -> None:
    async with asyncio.timeout(15), server.embedded(tmp_path, clock=CLOCK).serve(answer) as broker:
        credential = SecretStr(Credential.make("ada").text)
        # of one unacknowledged message at a time: each mark but the first waits for the one before
        settings = BusSettings(broker=f"mqtt://{broker.mqtt}", credential=credential, window=1)
        async with (
            client.open(settings, CLOCK, client_id="ada--recorder") as bus,
            client.open(settings, CLOCK, client_id="ada--gateway") as reader,
            reader.subscribe(["tb1/live/mark/#"], capacity=9, overflow="drop_oldest") as inbox,
            asyncio.TaskGroup() as tasks,
        ):
            await bus.ready()
            await reader.ready()
            marks = MarkPublisher(bus, CLOCK, every_s=60.0)
            for machine in MACHINES:
                for epoch in ("former", "newest"):
                    marks.update(life(machine, epoch), Held(7))
            running = tasks.create_task(marks.run(), name="marks")
            while not marks.marks:
                await CLOCK.sleep(0)
            for machine in MACHINES:
                marks.forget(life(machine, "former"))
            received = []
            while len(received) < len(MACHINES):
                message = await anext(inbox)
                received.append((str(parse(message.topic)), messages.decode_mark(message.payload)))
            running.cancel()
    *_, (_, last) = received
    assert last.streams == {"s": {"newest": Held(7)}}
