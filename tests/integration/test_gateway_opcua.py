"""Browse, check and the link against a real OPC UA server."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from asyncua import ua
from rich.console import Console

from broker.clock import WallClock
from broker.namespace import EquipmentAddress
from broker.streams import Trigger
from gateway.commissioning import browse
from gateway.commissioning.check import check
from gateway.links.opcua.link import OpcUaLink
from gateway.links.port import PossibleGap
from gateway.mapping import file as mapping_file
from gateway.mapping.model import Mapping
from gateway.samples import Lot, StreamSamples
from simulators import world
from simulators.faces import opcua
from simulators.models.pump_rig import SIGNALS, PumpRig
from simulators.world import Playback
from testbed.commissioning import check_browse
from tests.integration.machines import URI, linked, machine, second

WEAR = "Wear [\N{MICRO SIGN}m]"
EXAMPLE = (Path(__file__).parents[2] / "examples/pump-rig/mapping.yaml").read_text()


@pytest.fixture
async def face() -> AsyncIterator[opcua.OpcUaFace]:
    async with opcua.serve("PumpRig", SIGNALS) as running:
        yield running


def mapped(url: str, *changes: tuple[str, str]) -> Mapping:
    text = EXAMPLE.replace("opc.tcp://127.0.0.1:4840", url)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return mapping_file.read(text, "m")


class RowSink:
    """A sink that records rows and unread signals."""

    # ruff: noqa: ARG002 - the port names what this sink does not look at

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, object]] = []
        self.alarms: list[str] = []
        self.unread: set[int] = set()
        self.changed = asyncio.Event()

    async def take_lot(self, lot: Lot) -> None:
        await self.take(lot.parts())

    async def take(self, parts: Sequence[StreamSamples]) -> None:
        for part in parts:
            samples = part.samples
            self.rows += zip(samples.signal, samples.time_ns, samples.values, strict=True)
        self.changed.set()

    async def possible_gap(self, possible: PossibleGap, cause: str) -> None:
        if possible.is_unread:
            self.unread.add(possible.signal)

    def alive(self, streams: Sequence[int]) -> None:
        pass

    def alarm(self, subject: str, sentence: str | None) -> None:
        if sentence:
            self.alarms.append(sentence)

    def was_read(self) -> bool:
        return False


@contextlib.asynccontextmanager
async def playing(face: opcua.OpcUaFace) -> AsyncIterator[None]:
    """The pump rig plays its rows meanwhile."""
    async with asyncio.TaskGroup() as tasks:
        played = world.play(PumpRig(), face, WallClock(), pace=Playback())
        task = tasks.create_task(played, name="simulator")
        yield
        task.cancel()


async def test_the_example_and_the_starting_mapping_are_right(face: opcua.OpcUaFace) -> None:
    server = browse.server(face.url, None)
    text = await browse.starting_mapping(server, EquipmentAddress("factory", "pump-rig"))
    async with playing(face):
        for mapping in (mapping_file.read(text, "m"), mapped(face.url)):
            report = await check(mapping)
            assert report.findings == []
            assert {signal.way for signal in report.signals} == {"subscribed"}
            assert all(signal.value is not None for signal in report.signals)


async def test_a_first_mapping_has_the_period_and_trigger_that_were_measured() -> None:
    names = ["fast", WEAR, "still"]
    async with machine(names) as server, asyncio.TaskGroup() as tasks:

        async def play() -> None:
            for number in range(1_000):
                at_ns = WallClock().now_ns()
                await server.write(at_ns, **{"fast": float(number), WEAR: 3.0})
                await WallClock().sleep(0.1)

        playing = tasks.create_task(play())
        source = browse.server(server.url, None)
        index = await server.server.get_namespace_index("urn:test:machine")
        await server.server.nodes.objects.add_variable(
            ua.NodeId("list", index), ua.QualifiedName("list", index), [1.0, 2.0]
        )
        seen: list[int] = []
        text = await browse.starting_mapping(
            source,
            EquipmentAddress("factory", "rig"),
            measure_s=3.0,
            on_progress=lambda _passed_s, signals: seen.append(signals),
        )
        mapping = mapping_file.read(text, "m")
        report = await check(mapping)
        playing.cancel()
    still = [finding.sentence for finding in report.findings]
    assert [sentence.split(": ")[0] for sentence in still] == ["objects.still"], still
    rates = {signal.name: signal.per_s for signal in report.signals}
    assert rates["objects.fast"] == pytest.approx(10, rel=0.3)
    (stream,) = mapping.streams
    assert (stream.spec.trigger, stream.spec.period_s) == (Trigger.TIMESTAMP, 0.1)
    assert stream.spec.signal("Wear").unit == "um"
    assert "# measured in 3 s: 0.1 s between samples (0.1 to 0.1 s); values repeat" in text
    assert mapping.streams[0].spec.signal("list").shape == (2,)
    assert len(seen) >= 3


async def test_browse_writes_the_measured_period_and_trigger_of_the_simulator(
    face: opcua.OpcUaFace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "rig.yaml"
    endpoint = check_browse.Endpoint(url=face.url, security="none", listen_s=3.0)
    screen = Console(file=io.StringIO())
    async with asyncio.TaskGroup() as tasks:
        played = world.play(PumpRig(), face, WallClock(), pace=Playback(speed=10))
        playing = tasks.create_task(played, name="simulator")
        await check_browse.browse(endpoint, file, "factory/pump-rig", screen, screen)
        findings: list[object] = []
        assert await check_browse.check(file, findings.append, as_json=False), findings
        playing.cancel()
    text = file.read_text()
    (stream,) = mapping_file.load(file).streams
    assert (stream.spec.address.stream, stream.spec.period_s) == ("pumprig", 0.1)
    repeats = "; values repeat" in text
    assert stream.spec.trigger is (Trigger.TIMESTAMP if repeats else Trigger.VALUE)
    assert f"    trigger: {stream.spec.trigger}\n    period_s: 0.1\n" in text
    assert "# measured in 3 s: 0.1 s between samples (0.1 to 0.1 s)" in text


async def test_the_tree_shows_each_variable_as_a_mapping_writes_it(face: opcua.OpcUaFace) -> None:
    lines = [browse.line(node) for node in await browse.nodes(browse.server(face.url, None))]
    node = "nsu=urn:connected-testbed:simulators;s=PumpRig.Pressure"
    assert f"  Pressure  Double  {node}" in lines
    assert not any("ServerStatus" in line for line in lines)


PRESSURE = "nsu=urn:connected-testbed:simulators;s=PumpRig.Pressure"
CURRENT_NODE = PRESSURE.replace("Pressure", "Current")
CURRENT = "unit: A\n        low: 0\n        high: 4\n        resolution: 1e-05"
DISAGREEING = (
    (PRESSURE, PRESSURE.replace("Pressure", "Presure"), f"near it are {PRESSURE}"),
    (PRESSURE, "nsu=urn:x;s=P", "it has http"),
    (PRESSURE, CURRENT_NODE, "warning: rig.Pressure: it has the same node as rig.Current"),
    (PRESSURE, "i=2255", "it is an array: write shape: ["),
    ("unit: A", "shape: [3]\n        unit: A", "rig.Current: it is a single value on the server"),
    (PRESSURE, PRESSURE.removesuffix(".Pressure"), "it is an object, not a variable (`testbed"),
    (PRESSURE, "i=11492", "it is a method, not a variable"),
    ("unit: A", "unit: mA", "warning: rig.Current: its unit is A on the server and mA"),
    ("high: 280", "high: 281", "its range is 180 to 280 on the server"),
    (CURRENT, "dtype: bool", "write dtype: float64"),
    ("security: none", "security: none\n  items_per_s: 5", "8 samples/s are asked for"),
)


async def test_what_does_not_agree_with_the_server_is_told(face: opcua.OpcUaFace) -> None:
    for old, new, said in DISAGREEING:
        report = await check(mapped(face.url, (old, new)), listen_s=0.1)
        findings = [str(finding) for finding in report.findings]
        assert any(said in text for text in findings), findings


ARRAYS = """
organisation: factory
equipment: machine
kind: simulated
opcua: {{url: "{url}", security: none}}
streams:
  s:
    trigger: timestamp
    publishing_interval_s: 0.05
    signals:
      spectrum: {{node: "nsu={uri};s=spectrum", shape: [3]}}
      last: {{node: "nsu={uri};s=spectrum", element: 2}}
      scalar: {{node: "nsu={uri};s=spectrum"}}
      array: {{node: "nsu={uri};s=speed", shape: [2]}}
      short: {{node: "nsu={uri};s=spectrum", shape: [2]}}
"""


async def test_an_array_and_one_of_its_elements_are_read_from_one_node() -> None:
    async with machine(["speed"]) as server:
        index = await server.server.get_namespace_index(URI)
        place = ua.NodeId("spectrum", index), ua.QualifiedName("spectrum", index)
        objects = server.server.nodes.objects
        server.nodes["spectrum"] = await objects.add_variable(*place, [0.5, 1.0, 1.5])
        mapping = mapping_file.read(ARRAYS.format(url=server.url, uri=URI), "m")
        report = await check(mapping, listen_s=0.5)
        errors = [str(each) for each in report.findings if str(each).startswith("error")]
        async with linked(mapping) as (_, sink):
            await sink.until(lambda: len(sink.samples) == 3)
            await server.write(second(1), spectrum=[2.0, 3.0, 4.0])
            await sink.until(lambda: len(sink.samples) == 6)
    assert errors == [
        "error: s.scalar: it is an array: write shape: [LENGTH], or element: 0 for one value of it",
        "error: s.array: it is a single value on the server: leave out shape",
        (
            "error: s.short: a value of 'short' of s is stored as bad: its array has 3 elements,"
            " the mapping says 2"
        ),
    ]
    assert sink.values_of("spectrum") == [(0.5, 1.0, 1.5), (2.0, 3.0, 4.0)]
    assert sink.values_of("last") == [1.5, 4.0]
    assert {name for name, _, _, quality in sink.samples if quality} == {"short"}
    assert {subject: text.split(": ", 1)[1] for subject, text in sink.alarms.items()} == {
        "0/scalar": errors[0].removeprefix("error: s.scalar: "),
        "0/array": errors[1].removeprefix("error: s.array: "),
        "0/short": "its array has 3 elements, the mapping says 2",
    }


async def test_a_server_that_is_not_there_is_one_finding() -> None:
    (finding,) = (await check(mapped("opc.tcp://127.0.0.1:1"))).findings
    assert "did not answer" in finding.sentence


async def test_every_value_arrives_with_its_time_while_one_node_is_missing(
    face: opcua.OpcUaFace,
) -> None:
    sink, clock = RowSink(), WallClock()
    rows = [row for _, row in zip(range(20), PumpRig().rows(), strict=False)]
    link = OpcUaLink(mapped(face.url, ("PumpRig.Pressure", "PumpRig.Presure")), sink, clock)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run(), name="link")
        while face._monitored() < 7:
            await clock.sleep(0.02)
        for row in rows:
            await face.offer([row])
        while len(sink.rows) < 7 * 20:
            sink.changed.clear()
            await sink.changed.wait()
        running.cancel()
    wanted = {
        (at, row.time_ns // 1000 * 1000, value)
        for row in rows
        for at, value in enumerate(row.values)
        if at != 3
    }
    assert set(sink.rows) == wanted
    assert len(sink.rows) == len(wanted)
    assert any("Pressure" in text for text in sink.alarms)
    assert sink.unread == {3}
