"""Virtual time over a real broker: programs in threads of their own, whose clock a run sets."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from broker import api_client, messages, run_clock
from broker.batch import Batch, EquipmentKind, Source, Wide
from broker.bus import client
from broker.clock import NS_PER_S, WallClock
from broker.errors import Forbidden, Invalid, Unavailable
from broker.namespace import StreamAddress, StreamTopic, Verb
from broker.run_clock import JOIN, Tick
from broker.settings import BusSettings
from broker.streams import Signal, StreamSpec
from testbed.processes import program
from testbed.scenario import coordinator
from testbed.scenario.coordinator import Before, Coordinator, NoAnswer
from testbed.scenario.member_order import ClockMember
from testbed_sdk import PrototypeSettings, connect, connect_sync
from testbed_sdk.connection import Testbed
from testbed_sdk.program_time import ClockSetting
from tests.integration.test_server import serving
from tests.owners import Owners, founded

CLOCK = WallClock()
SPACE = "run-test"
START_NS = 1_767_225_600 * NS_PER_S
RIG = StreamAddress("factory", "rig", "measured")
SPEC = StreamSpec(RIG, (Signal("a"),))
WITHIN_S = 10.0
HANGS_WITHIN_S = 1.0
"""Real time for an answer, which a member that hangs needs."""

Program = Callable[[Testbed], Coroutine[Any, Any, None]]


def out(deployment: str) -> StreamAddress:
    return StreamAddress("factory", deployment, "out")


def seconds(time_ns: int) -> float:
    return (int(time_ns) - START_NS) / NS_PER_S


async def sources(quantum: int) -> list[tuple[StreamAddress, Batch]]:
    """Ten samples a quantum of 1 s."""
    times = START_NS + ((quantum - 1) * 10 + np.arange(10)) * (NS_PER_S // 10)
    frame = Wide(times, {"a": np.arange(10.0) + quantum})
    return [(RIG, Batch(1, (frame,), Source.SIMULATED, 0, "seed", quantum))]


async def nothing(_quantum: int) -> None:
    """Do nothing before a quantum."""


def members(reads: Mapping[str, Sequence[StreamAddress]], within_s: float) -> list[ClockMember]:
    return [
        ClockMember(
            name=name,
            address=out(name).owner,
            inputs=frozenset(inputs),
            answers_within_s=within_s,
        )
        for name, inputs in reads.items()
    ]


@dataclass
class Run:
    """A run over a server, with what its members published."""

    clock: Coordinator
    settings: Mapping[str, tuple[PrototypeSettings, BusSettings]]
    bus: client.Bus
    outputs: list[tuple[int, str, Any]] = field(default_factory=list)
    _is_over: bool = False
    _living: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = field(default_factory=list)

    @asynccontextmanager
    async def started(self, **programs: Program) -> AsyncIterator[None]:
        """Programs, each in a thread and an event loop of its own, until left."""
        async with asyncio.TaskGroup() as tasks:
            for name, program in programs.items():
                tasks.create_task(asyncio.to_thread(asyncio.run, self._live(name, program)))
            failure: Exception | None = None
            try:
                yield
            except Exception as exc:  # noqa: BLE001 - raised as it is, not in a group
                failure = exc
            finally:
                self._is_over = True
                for loop, task in self._living:
                    with contextlib.suppress(RuntimeError):
                        loop.call_soon_threadsafe(task.cancel)
        if failure is not None:
            raise failure

    async def play(self, quanta: int, joins_within_s: float = 10, **programs: Program) -> None:
        """Run programs for so many quanta."""
        async with self.started(**programs):
            await self.clock.join(joins_within_s)
            await self.clock.run(quanta)

    async def _live(self, name: str, program: Program) -> None:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._connected(name, program), name=f"main of {name}")
            self._living.append((asyncio.get_running_loop(), task))
            if self._is_over:
                task.cancel()

    async def _connected(self, name: str, program: Program) -> None:
        async with connect(*self.settings[name]) as testbed:
            await program(testbed)


@asynccontextmanager
async def running(
    folder: Path,
    *,
    within_s: float = WITHIN_S,
    before: Before = nothing,
    **reads: Sequence[StreamAddress],
) -> AsyncIterator[Run]:
    """A run whose members read these streams."""
    async with (
        serving(folder / "data") as server,
        founded(f"http://{server.api}", server.administrator, ["factory"]) as owners,
        on_server(server, owners, reads, within_s, before) as run,
    ):
        yield run


@asynccontextmanager
async def on_server(
    server: Any,
    owners: Owners,
    reads: Mapping[str, Sequence[StreamAddress]],
    within_s: float = WITHIN_S,
    before: Before = nothing,
) -> AsyncIterator[Run]:
    """A run over a server whose organisation `factory` has this owner."""
    outputs = [out(name) for name in reads]
    settings = {}
    for name, inputs in reads.items():
        key = await owners.credential(name, reads=inputs, writes=[out(name)], space=SPACE)
        settings[name] = (
            PrototypeSettings(
                api=f"http://{server.api}",
                space=SPACE,
                inputs={each.equipment: each for each in inputs},
                outputs={"out": out(name)},
                drain_s=5,
                clock=ClockSetting.RUN,
            ),
            BusSettings(broker=f"mqtt://{server.broker}", credential=SecretStr(key)),
        )
    key = await owners.credential(
        "clock", writes=[RIG, run_clock.clock_stream("factory")], reads=outputs, space=SPACE
    )
    bus_settings = BusSettings(broker=f"mqtt://{server.broker}", credential=SecretStr(key))
    async with (
        api_client.connect(f"http://{server.api}", key) as api,
        client.open(bus_settings, CLOCK, client_id="clock") as bus,
    ):
        await api.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)
        await api.register_spec(SPEC)
        await bus.ready()
        topic = str(StreamTopic(SPACE, Verb.SPEC, RIG))
        await bus.publish(topic, messages.encode_spec(SPEC), retain=True)
        observed: list[tuple[int, str, Any]] = []
        async with coordinator.open(
            SPACE,
            members(reads, within_s),
            bus=bus,
            clock=CLOCK,
            start_ns=START_NS,
            quantum_ns=NS_PER_S,
            sources=sources,
            outputs=outputs,
            before=before,
            observe=lambda quantum, batches: observed.extend(
                (quantum, address.equipment, document) for address, document in batches
            ),
        ) as clock:
            yield Run(clock, settings, bus, observed)


async def test_batches_sleepers_and_timeouts_come_in_the_order_of_time(tmp_path):
    lines = []

    async def reader(testbed: Testbed) -> None:
        async for batch in testbed.input("rig"):
            lines.append(("batch", seconds(testbed.now_ns()), batch.batch.seq))
            assert batch.latency_s == pytest.approx(-0.1)  # sent at the end of its quantum

    async def sleeper(testbed: Testbed) -> None:
        while True:
            await testbed.sleep(0.4)
            lines.append(("slept", seconds(testbed.now_ns())))
            await asyncio.to_thread(threading.Event().wait, 0.02)  # real time that nobody sees

    async def limited(testbed: Testbed) -> None:
        with pytest.raises(TimeoutError):
            async with testbed.timeout(1.25):
                await testbed.sleep(100)
        lines.append(("timeout", seconds(testbed.now_ns())))
        async with testbed.timeout(1):
            await testbed.sleep(0.1)
        lines.append(("in time", seconds(testbed.now_ns())))

    async def program(testbed: Testbed) -> None:
        assert testbed.now() == datetime(2026, 1, 1, tzinfo=UTC)
        async with asyncio.TaskGroup() as tasks:
            for task in (reader, sleeper, limited):
                tasks.create_task(task(testbed))

    async with running(tmp_path, detector=[RIG]) as run:
        await run.play(3, detector=program)
    assert lines == [
        ("slept", 0.4),
        ("slept", 0.8),
        ("batch", 0.9, 1),
        ("slept", 1.2),
        ("timeout", 1.25),
        ("in time", 1.35),
        ("slept", 1.6),
        ("batch", 1.9, 2),
        ("slept", 2.0),
        ("slept", 2.4),
        ("slept", 2.8),
        ("batch", 2.9, 3),
    ]


async def test_a_chain_is_read_in_the_same_quantum_and_a_circle_in_the_next(tmp_path):
    """first reads the rig and second; second reads first, through a queue of its own."""
    lines: dict[str, list[tuple[float, str]]] = {"first": [], "second": []}

    async def following(testbed: Testbed, name: str, owner: str, hand: asyncio.Queue[int]) -> None:
        async for batch in testbed.input(name):
            lines[owner].append((seconds(testbed.now_ns()), name))
            if (owner, name) != ("first", "second"):
                hand.put_nowait(int(batch.batch.frames[0].time_ns[-1]))

    async def answering(testbed: Testbed, hand: asyncio.Queue[int]) -> None:
        score = await testbed.output("out", [Signal("a")])
        while True:
            time_ns = await hand.get()
            await asyncio.to_thread(threading.Event().wait, 0.01)
            await score.publish(time_ns, {"a": 1.0}, input_ns=time_ns)

    def program(owner: str, *inputs: str) -> Program:
        async def main(testbed: Testbed) -> None:
            hand: asyncio.Queue[int] = asyncio.Queue()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(answering(testbed, hand))
                for name in inputs:
                    tasks.create_task(following(testbed, name, owner, hand))

        return main

    reads = {"first": [RIG, out("second")], "second": [out("first")]}
    async with running(tmp_path, **reads) as run:
        await run.play(
            4, first=program("first", "rig", "second"), second=program("second", "first")
        )
    assert lines["second"] == [(n + 0.9, "first") for n in range(4)]
    back = [(float(n), "second") for n in range(1, 4)]  # a quantum later: its samples are older
    assert lines["first"] == sorted([(n + 0.9, "rig") for n in range(4)] + back)
    assert [(quantum, who) for quantum, who, _ in run.outputs] == [
        (quantum, who) for quantum in range(1, 5) for who in ("first", "second")
    ]
    assert {document.pub_ns % NS_PER_S for _, _, document in run.outputs} == {900_000_000}


async def reading(testbed: Testbed) -> None:
    async for _ in testbed.input("rig"):
        pass


async def hanging(testbed: Testbed) -> None:
    async for batch in testbed.input("rig"):
        if batch.batch.seq == 2:
            await asyncio.to_thread(threading.Event().wait, 1.5 * HANGS_WITHIN_S)


async def never_waiting(_testbed: Testbed) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("program", "sentence", "quantum"),
    [
        (
            hanging,
            r"'detector' did not answer quantum 2 within 1 s: its task .* is at work, .* hanging",
            2,
        ),
        (never_waiting, r"'detector' did not come to its first batch or sleep within 3 s", JOIN),
        (None, r"'detector' did not join the run within 1 s", JOIN),
    ],
)
async def test_a_member_that_stops_is_named_with_the_quantum(tmp_path, program, sentence, quantum):
    programs = {} if program is None else {"detector": program}
    async with running(tmp_path, within_s=HANGS_WITHIN_S, detector=[RIG], other=[RIG]) as run:
        joins_within_s = {hanging: 10, never_waiting: 3, None: 1}[program]
        with pytest.raises(NoAnswer, match=sentence) as error:
            await run.play(5, joins_within_s, other=reading, **programs)
        assert (error.value.member, error.value.quantum) == ("detector", quantum)


READER = """
from testbed_sdk import connect, run

async def main():
    async with connect() as testbed:
        async for batch in testbed.input("rig"):
            pass

run(main())
"""
SHORT = 4
"""Quanta of a run whose member is stopped in each of them."""


@asynccontextmanager
async def reader_process(folder: Path, run: Run) -> AsyncIterator[int]:
    """A member in a process of its own, which is killed on leaving; yields its id."""
    settings, bus_settings = run.settings["detector"]
    environment = os.environ | {
        "TESTBED_API": settings.api,
        "TESTBED_BROKER": f"mqtt://{bus_settings.address}",
        "TESTBED_CREDENTIAL": bus_settings.credential.get_secret_value(),
        "TESTBED_SPACE": SPACE,
        "TESTBED_INPUTS": f"rig={RIG}",
        "TESTBED_OUTPUTS": f"out={out('detector')}",
        "TESTBED_CLOCK": "run",
    }
    command, log = (sys.executable, "-c", READER), folder / "reader.log"
    async with program.start_prototype(
        command, log=log, environment=environment, clock=CLOCK, show=lambda _: None
    ) as child:
        try:
            yield child.pid
        finally:
            os.killpg(child.pid, signal.SIGKILL)


async def whole_run(
    opened: contextlib.AbstractAsyncContextManager[Coordinator], joins_within_s: float
) -> None:
    async with opened as clock:
        await clock.join(joins_within_s)
        await clock.run(SHORT)


async def test_a_member_that_freezes_in_any_quantum_is_named_and_nothing_hangs(tmp_path):
    """One server; a new coordinator and a new process for each quantum, JOIN among them."""
    (member,) = members({"detector": [RIG]}, HANGS_WITHIN_S)
    async with running(tmp_path, detector=[RIG]) as run:
        for stopped in range(JOIN, SHORT + 1):
            async with reader_process(tmp_path, run) as number:

                async def freezing(quantum: int, stopped=stopped, number=number) -> Any:
                    if quantum == stopped:
                        os.kill(number, signal.SIGSTOP)
                    return await sources(quantum)

                if stopped == JOIN:
                    os.kill(number, signal.SIGSTOP)
                opened = coordinator.open(
                    SPACE,
                    [member],
                    bus=run.bus,
                    clock=CLOCK,
                    start_ns=START_NS,
                    quantum_ns=NS_PER_S,
                    sources=freezing,
                    is_ahead=False,
                )
                joins_within_s = HANGS_WITHIN_S if stopped == JOIN else 10
                with pytest.raises(NoAnswer, match="prototype 'detector' did not") as error:
                    await whole_run(opened, joins_within_s)
                assert error.value.quantum == stopped


async def test_a_member_whose_connection_breaks_is_asked_again(tmp_path):
    slept = []

    async def program_of_sleeper(testbed: Testbed) -> None:
        loops.append((asyncio.get_running_loop(), testbed._bus))
        while True:
            await testbed.sleep(1)
            slept.append(seconds(testbed.now_ns()))

    async def breaking(quantum: int) -> None:
        if quantum == 2:
            loop, bus = loops[0]
            asyncio.run_coroutine_threadsafe(bus.renew(), loop)
            while bus.is_connected:
                await CLOCK.sleep(0.001)

    loops: list[tuple[asyncio.AbstractEventLoop, client.Bus]] = []
    async with running(tmp_path, before=breaking, detector=[RIG]) as run:
        await run.play(4, detector=program_of_sleeper)
    assert slept == [1, 2, 3]


async def test_a_member_whose_process_ended_is_struck_off_and_the_run_goes_on(tmp_path):
    quanta = []

    async def counting(testbed: Testbed) -> None:
        async for batch in testbed.input("rig"):
            quanta.append(batch.batch.seq)  # noqa: PERF401 - others look at it meanwhile

    async def ending(testbed: Testbed) -> None:
        await testbed.sleep(2.5)

    async def watching() -> None:
        while len(quanta) < 2:
            await CLOCK.sleep(0.01)
        run.clock.ended(out("killed").owner)  # as its launcher says of a process

    reads = {name: [RIG] for name in ("killed", "ending", "never", "counting")}
    async with running(tmp_path, **reads) as run, asyncio.TaskGroup() as tasks:
        tasks.create_task(watching())
        run.clock.ended(out("never").owner)
        await run.play(6, killed=hanging, ending=ending, counting=counting)
    assert quanta == [1, 2, 3, 4, 5, 6]
    assert run.clock.present == ["counting"]
    statistics = run.clock.statistics
    assert {name: len(answers) for name, answers in statistics.answers_s.items()} == {
        "killed": 1,
        "ending": 3,
        "counting": 6,
    }
    assert statistics.virtual_ns == 6 * NS_PER_S


async def test_a_batch_that_does_not_arrive_is_named_in_the_answer(tmp_path):
    async with (
        running(tmp_path, detector=[RIG]) as run,
        run.bus.subscribe(
            [f"tb1/{SPACE}/ready/factory/detector"], capacity=10, overflow="drop_oldest"
        ) as answers,
        run.started(detector=reading),
    ):
        await run.clock.join(10)
        last = {RIG: {"seed": 1}}
        tick = Tick(quantum=1, until_ns=START_NS + NS_PER_S, within_s=0.4, last=last)
        await run.bus.publish(f"tb1/{SPACE}/clock/factory/detector", run_clock.encode_tick(tick))
        async for message in answers:
            ready = run_clock.decode_ready(message.payload)
            if ready.quantum == 1:
                break
        assert ready.missing == last


async def test_a_program_without_asyncio_follows_the_clock_of_the_run(tmp_path):
    lines = []

    def program() -> None:
        with connect_sync(*run.settings["detector"]) as testbed:
            score = testbed.output("out", [Signal("a")])
            batches = iter(testbed.input("rig"))
            for _ in range(2):
                with contextlib.suppress(TimeoutError), testbed.timeout(0.5):
                    lines.append(("batch", next(batches).batch.seq))
                lines.append(("now", seconds(testbed.now_ns())))
            testbed.sleep(0.25)
            lines.append(("now", seconds(testbed.now_ns())))
            assert threading.Event().wait(0.05) is False  # it works, in real time
            score.publish(testbed.now_ns(), {"a": 1.0})
            stored = testbed.history("rig", from_="-1h")["a"].time_ns
            lines.append(("stored", len(stored), seconds(stored[-1])))
            lines.append(("own", seconds(testbed.history("out")["a"].time_ns[-1])))
            for batch in batches:
                if batch.batch.seq == 3:
                    break

    async with running(tmp_path, detector=[RIG]) as run, asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.to_thread(program))
        await run.clock.join(10)
        await run.clock.run(4)
    assert lines == [
        *(("now", 0.5), ("batch", 1), ("now", 0.9), ("now", 1.15)),
        *(("stored", 12, 1.1), ("own", 1.15)),
    ]
    assert [quantum for quantum, _, _ in run.outputs] == [2]


async def test_without_a_coordinator_a_member_does_not_wait_for_ever(tmp_path):
    async with running(tmp_path, detector=[RIG], other=[RIG]) as run:
        settings, bus_settings = run.settings["detector"]
        alone = settings.model_copy(update={"space": "run-other"})
        impatient = bus_settings.model_copy(update={"timeout_s": 1.0})
        with pytest.raises((Forbidden, Unavailable), match="clock"):
            async with connect(alone, impatient):
                pass
        unnamed = settings.model_copy(update={"outputs": {}})
        with pytest.raises(
            Invalid, match="the outputs of one deployment, and these are of nothing"
        ):
            async with connect(unnamed, bus_settings):
                pass
