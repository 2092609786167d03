"""A model that publishes over MQTT: its mapping fits, and its rows arrive, over a break as well."""

import asyncio
import contextlib

import numpy as np
import pytest

from broker.bus.mqtt_connection import Login
from broker.clock import WallClock
from broker.errors import Forbidden, Unavailable
from gateway.links.mqtt.link import MqttLink
from gateway.mapping import file as mapping_file
from simulators.catalogue import MODELS
from simulators.faces import mqtt
from simulators.world import Playback
from testbed.simulator import first_mapping, machine, serving
from tests.integration.machines import RecordingSink
from tests.services import free_port, mosquitto

CLOCK = WallClock()
PRESS = MODELS["press"]
NAMES = [signal.name for signal in PRESS.signals]
LOGIN = Login("bert", mosquitto.PASSWORDS["bert"])


def options(port, folder, user="bert"):
    return machine.SimulatorOptions(
        object_name=PRESS.object_name,
        stream=PRESS.stream,
        port=0,
        playback=Playback(speed=50),
        broker=machine.broker_of(f"{user}@127.0.0.1:{port}", "shop/press"),
        mapping=folder / "press.yaml",
    )


@contextlib.asynccontextmanager
async def read(path):
    """A gateway's link that reads a written mapping, and what it gives."""
    mapping = mapping_file.read(path.read_text().replace("user: bert", "user: ada"), "m")
    sink = RecordingSink(names=mapping.streams[0].spec.names)
    link = MqttLink(mapping, mapping.source, mosquitto.PASSWORDS["ada"], sink, CLOCK)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run(), name="link")
        yield link, sink
        running.cancel()


async def test_a_gateway_reads_what_a_press_publishes_by_the_mapping_that_was_written(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TESTBED_SOURCE_PASSWORD", mosquitto.PASSWORDS["bert"])
    source = PRESS.make(seed=3, count=40)
    events: asyncio.Queue = asyncio.Queue()
    with mosquitto.serve(tmp_path) as server:
        chosen = options(server.port, tmp_path)
        first_mapping.write(chosen, source, chosen.broker.url)
        async with read(chosen.mapping) as (link, sink), asyncio.TaskGroup() as tasks:
            await sink.until(lambda: link.counts.connects == 1)
            chosen.mapping.unlink()
            simulated = serving.simulate(source, chosen, CLOCK, events.put_nowait)
            running = tasks.create_task(simulated, name="press")
            ready = await events.get()
            assert (ready["topic"], ready["url"]) == ("shop/press", chosen.broker.url)
            await sink.until(lambda: len(sink.samples) == 40 * len(NAMES))
            running.cancel()
    streams = mapping_file.read(chosen.mapping.read_text(), "m").streams
    assert [signal.unit for signal in streams[0].spec.signals] == [
        signal.unit for signal in PRESS.signals
    ]
    assert streams[0].spec.period_s == pytest.approx(0.01)
    read_values = {name: [] for name in NAMES}
    for name, _, value, _ in sink.samples:
        read_values[name].append(value)
    columns = np.array([row.values for row in source.rows()]).T
    assert read_values == {name: list(column) for name, column in zip(NAMES, columns, strict=True)}


async def test_rows_of_a_broken_connection_are_published_on_the_next(tmp_path):
    rows = PRESS.make().advance(6, {})
    port = free_port()
    with mosquitto.serve(tmp_path, port=port):
        publishing = mqtt.publish(f"mqtt://127.0.0.1:{port}", LOGIN, "t", NAMES, CLOCK)
        face = await publishing.__aenter__()
        await face.offer(rows[:2])
    async with asyncio.TaskGroup() as tasks:
        offering = tasks.create_task(face.offer(rows[2:]), name="offer")
        await CLOCK.sleep(0.3)
        assert not offering.done()
        with mosquitto.serve(tmp_path, port=port):
            await offering
            await publishing.__aexit__(None, None, None)


async def test_a_broker_that_is_away_or_refuses_is_said(tmp_path):
    with mosquitto.serve(tmp_path) as server:
        login = Login("bert", "wrong")
        with pytest.raises(Forbidden):
            async with mqtt.publish(f"mqtt://127.0.0.1:{server.port}", login, "t", NAMES, CLOCK):
                pass
    with pytest.raises(Unavailable) as refused:
        async with mqtt.publish(f"mqtt://127.0.0.1:{free_port()}", LOGIN, "t", NAMES, CLOCK):
            pass
    assert "--mqtt" in refused.value.hint
