"""The MQTT link against Mosquitto: what sensors publish becomes samples, breaks become gaps."""

import asyncio
import contextlib

import pytest
from rich.console import Console

from broker.batch import BAD, GOOD
from broker.bus.mqtt_connection import Connection, Login
from broker.clock import NS_PER_S, WallClock
from broker.errors import Forbidden
from broker.settings import BusSettings
from gateway.links.mqtt.link import MqttLink
from gateway.mapping import file as mapping_file
from gateway.mapping.model import MqttBroker
from testbed.commissioning import check_browse
from tests.integration.machines import RecordingSink
from tests.services import free_port, mosquitto

CLOCK = WallClock()
TEXT = """\
organisation: factory
equipment: press
kind: real
mqtt: {url: "mqtt://127.0.0.1:PORT", user: ada, keepalive_s: 2, timeout_s: 5}
streams:
  s:
    period_s: 0.1
    signals:
      warm: {topic: press/warm}
      bar: {topic: press/state, value: /bar, time: /ts, time_format: ns}
      ok: {topic: press/state, value: /ok, time: /ts, time_format: ns, dtype: bool}
"""


@contextlib.asynccontextmanager
async def reading(port, password=mosquitto.PASSWORDS["ada"], sink=None):
    """A link and what it gives.  sink: of a former link, None for a new one."""
    mapping = mapping_file.read(TEXT.replace("PORT", str(port)), "m")
    assert isinstance(mapping.source, MqttBroker)
    sink = sink or RecordingSink(names=mapping.streams[0].spec.names)
    link = MqttLink(mapping, mapping.source, password, sink, CLOCK)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run(), name="link")
        yield link, sink
        running.cancel()


@contextlib.asynccontextmanager
async def sensor(port):
    """A way to publish: await put(topic, payload, retain=...)."""
    settings = BusSettings(broker=f"mqtt://127.0.0.1:{port}")
    login = Login("bert", mosquitto.PASSWORDS["bert"])
    connection = Connection("sensor", login, settings, [], durable=False)
    await connection.open()

    async def put(topic, payload, *, retain=False):
        await connection.publish(topic, payload, retain=retain)

    try:
        yield put
    finally:
        await connection.close()


def document(bar, ok, ts):
    return b'{"bar": %b, "ok": %b, "ts": %d}' % (bar, ok, ts)


async def test_values_come_with_the_time_of_their_payload_or_of_their_arrival(tmp_path):
    before_ns = CLOCK.now_ns()
    with mosquitto.serve(tmp_path) as server:
        async with reading(server.port) as (link, sink), sensor(server.port) as put:
            await sink.until(lambda: link.counts.connects == 1)
            await put("press/warm", b"71.25")
            await put("press/state", document(b"3.5", b"true", 5))
            await put("press/state", document(b'"high"', b"false", 6))
            await put("press/warm", b"hot")
            await sink.until(lambda: len(sink.samples) == 6)
    at = {(name, quality): (time, value) for name, time, value, quality in sink.samples}
    assert at["bar", GOOD] == (5, 3.5)
    assert [sample[1:3] for sample in sink.samples if sample[0] == "ok"] == [(5, True), (6, False)]
    assert at["bar", BAD][0] == 6  # its neighbour in the document is kept
    assert at["warm", GOOD][1] == 71.25
    assert before_ns < at["warm", GOOD][0] <= at["warm", BAD][0] < CLOCK.now_ns()
    assert link.counts.unfit == 2
    assert sink.alarms["0/warm"].endswith("press/warm: its text is no float64")


async def test_a_retained_message_is_news_only_with_a_time_of_its_own(tmp_path):
    with mosquitto.serve(tmp_path) as server:
        async with sensor(server.port) as put:
            await put("press/warm", b"1", retain=True)
            await put("press/state", document(b"2", b"true", 7), retain=True)
        async with reading(server.port) as (_, sink):
            await sink.until(lambda: len(sink.samples) == 2)
            await CLOCK.sleep(0.2)
            alarm = "'warm': only a retained message without a time: no sample"
            assert sink.alarms["0/warm"] == alarm
            assert sorted(sink.samples) == [("bar", 7, 2.0, GOOD), ("ok", 7, True, GOOD)]
            async with sensor(server.port) as put:
                await put("press/warm", b"2", retain=True)
                await sink.until(lambda: "0/warm" not in sink.alarms)
                await sink.until(lambda: len(sink.samples) == 3)


async def test_retained_garbage_is_an_alarm_and_at_no_connection_a_sample(tmp_path):
    with mosquitto.serve(tmp_path) as server:
        async with sensor(server.port) as put:
            await put("press/state", b"garbage", retain=True)
        for _ in range(2):
            async with reading(server.port) as (link, sink), sensor(server.port) as put:
                await sink.until(lambda link=link: link.counts.unfit == 2)
                await put("press/warm", b"1")
                await sink.until(lambda sink=sink: len(sink.samples) == 1)
            assert sink.samples[0][0] == "warm"
            assert "a retained message is no sample: press/state#/bar" in sink.alarms["0/bar"]


async def test_what_a_break_took_is_a_gap_between_two_samples(tmp_path):
    port = free_port()
    ts = CLOCK.now_ns()
    with contextlib.ExitStack() as first:
        first.enter_context(mosquitto.serve(tmp_path, port=port))
        async with reading(port) as (link, sink):
            async with sensor(port) as put:
                await sink.until(lambda: link.counts.connects == 1)
                await put("press/state", document(b"1", b"true", ts))
                await sink.until(lambda: len(sink.samples) == 2)
            first.close()
            await sink.until(lambda: "server" in sink.alarms)
            with mosquitto.serve(tmp_path, port=port):
                await sink.until(lambda: link.counts.connects == 2)
                assert "server" not in sink.alarms
                async with sensor(port) as put:
                    await put("press/state", document(b"2", b"true", ts + 3 * NS_PER_S))
                    await sink.until(lambda: len(sink.samples) == 4)
    ends = {(gap.signals, gap.from_ns - ts, gap.to_ns - ts, gap.cause) for gap in sink.gaps}
    assert ends == {
        (("bar",), 1, 3 * NS_PER_S - 1, "source-unreachable"),
        (("ok",), 1, 3 * NS_PER_S - 1, "source-unreachable"),
    }


async def test_a_retained_message_hides_nothing_that_was_missed_after_it(tmp_path):
    ts = CLOCK.now_ns()
    with mosquitto.serve(tmp_path) as server:
        async with sensor(server.port) as put:
            await put("press/state", document(b"1", b"true", ts), retain=True)
            async with reading(server.port) as (_, sink):
                await sink.until(lambda: len(sink.samples) == 2)
            await put("press/state", document(b"2", b"true", ts + NS_PER_S))  # nobody reads it
            async with reading(server.port, sink=sink):
                await sink.until(lambda: len(sink.samples) == 4)  # what is retained, again
                await put("press/state", document(b"3", b"true", ts + 3 * NS_PER_S))
                await sink.until(lambda: len(sink.samples) == 6)
                await put("press/state", document(b"4", b"true", ts + 6 * NS_PER_S))
                await sink.until(lambda: len(sink.samples) == 8)
    ends = {(gap.signals, gap.from_ns - ts, gap.to_ns - ts) for gap in sink.gaps}
    assert ends == {((name,), 1, 3 * NS_PER_S - 1) for name in ("bar", "ok")}


@pytest.mark.parametrize("password", ["wrong", ""])
async def test_a_refused_password_is_an_alarm(tmp_path, password):
    with mosquitto.serve(tmp_path) as server:
        async with reading(server.port, password) as (_, sink):
            await sink.until(lambda: "server" in sink.alarms)
            assert "did not let user 'ada' in" in sink.alarms["server"]


async def test_a_broker_that_never_lets_us_in_ends_the_link(tmp_path):
    with mosquitto.serve(tmp_path) as server:
        mapping = mapping_file.read(TEXT.replace("PORT", str(server.port)), "m")
        sink = RecordingSink(names=mapping.streams[0].spec.names)
        link = MqttLink(mapping, mapping.source, "wrong", sink, CLOCK)
        with pytest.raises(Forbidden, match="did not let user 'ada' in") as raised:
            await link.run()
    assert "TESTBED_SOURCE_PASSWORD" in raised.value.hint


async def test_browse_writes_a_mapping_that_check_finds_right(tmp_path, monkeypatch):
    monkeypatch.setenv("TESTBED_SOURCE_PASSWORD", mosquitto.PASSWORDS["ada"])
    file, said = tmp_path / "m.yaml", []
    (tmp_path / "broker").mkdir()
    with mosquitto.serve(tmp_path / "broker") as server:
        async with sensor(server.port) as put, asyncio.TaskGroup() as tasks:

            async def publish():
                while True:
                    await put("press/1/warm", b"71.2")
                    await put("press/1/state", b'{"bar": 3, "motor": {"on": true}, "list": [1]}')
                    await put("press/1/Wear [\N{MICRO SIGN}m]", b"12.5")
                    await put("press/1/mode", b"RUN")
                    await put("press/1/raw", b"\x00\x01\xff")
                    await put("press/1/text", b'{"level": "71.5"}')
                    await CLOCK.sleep(0.1)

            publishing = tasks.create_task(publish(), name="sensors")
            url = f"mqtt://ada@127.0.0.1:{server.port}"
            endpoint = check_browse.Endpoint(url, listen_s=2.0)
            await check_browse.browse(endpoint, file, "factory/press", Console(), Console())
            text = file.read_text()
            good = await check_browse.check(file, said.append, as_json=False)
            broken = file.read_text().replace("press/1/warm", "press/1/cold")
            file.write_text(broken.replace("dtype: bool", "dtype: int64"))
            bad = await check_browse.check(file, said.append, as_json=False)
            publishing.cancel()
    assert good
    assert not bad
    streams = mapping_file.read(text, "m").streams
    units = {spec.name: spec.unit for stream in streams for spec in stream.spec.signals}
    assert units["Wear"] == "um"
    assert all(0.05 <= stream.spec.period_s <= 0.5 for stream in streams)
    assert "# - press/1/raw: a binary payload of 3 bytes (00 01 ff …)" in text
    shapes = {signal.name: signal.shape for stream in streams for signal in stream.spec.signals}
    assert (shapes["list"], shapes["Wear"]) == ((1,), ())
    assert "# mode: states as text, so far: RUN" in text
    assert "# level: a number as text" in text
    notes = [line for line in said if line.startswith("note: ")]
    assert len(notes) == 2
    document = '{"bar": 3, "motor": {"on": true}, "list": [1]}'
    assert "nobody is signed in here" in notes[0]
    assert [line for line in said if line not in notes] == [
        f"{file}: nothing is wrong",
        f"error: press-1-state.motor.on: press/1/state#/motor/on: a bool is no int64: {document}",
        "warning: press/1/cold: it said nothing in 5 s; is it the right topic?",
    ]


@pytest.mark.parametrize(
    ("url", "password", "message", "hint"),
    [
        ("mqtt://", "", "lets nobody in without a user", "mqtt://USER@host:port"),
        ("mqtt://ada@", "", "no password is set for it", "TESTBED_SOURCE_PASSWORD"),
        ("mqtt://ada@", "wrong", "did not let user 'ada' in", "TESTBED_SOURCE_PASSWORD_FILE"),
    ],
)
async def test_browse_of_a_broker_with_a_password_says_which_setting_is_missing(
    tmp_path, monkeypatch, url, password, message, hint
):
    monkeypatch.setenv("TESTBED_SOURCE_PASSWORD", password)
    with mosquitto.serve(tmp_path) as server:
        endpoint = check_browse.Endpoint(f"{url}127.0.0.1:{server.port}", listen_s=1.0)
        with pytest.raises(Forbidden, match=message) as raised:
            await check_browse.browse(endpoint, None, "factory/press", Console(), Console())
    assert hint in raised.value.hint
    assert "TESTBED_CREDENTIAL" not in str(raised.value)


async def test_a_broker_that_is_not_there_is_told(tmp_path):
    file = tmp_path / "m.yaml"
    file.write_text(TEXT.replace("PORT", str(free_port())))
    said = []
    assert not await check_browse.check(file, said.append, as_json=False)
    assert "did not answer" in said[0]
