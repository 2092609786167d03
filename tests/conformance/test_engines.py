"""What each product that runs programs does, as its port promises."""

import asyncio
import signal

import pytest

from broker.clock import NS_PER_S, WallClock
from broker.deployments.life import EndCause
from broker.prototypes.manifest import PrototypeResources
from broker.settings import Address
from testbed_runner.port import (
    CannotStart,
    ContainerSpec,
    ContainerState,
    ImageWanted,
    Upstream,
)
from tests.conformance import engines
from tests.conformance.engines import PROGRAM

WITHIN_S = 15.0
SLEEP = "import time; print('it runs', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " print('it runs', flush=True); time.sleep(600)"
)
pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def listener():
    """An API that answers every request with 200."""

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield Address(*server.sockets[0].getsockname()[:2])


@pytest.fixture(params=engines.BEDS)
async def bed(request, tmp_path, listener):
    upstream = Upstream(api=listener, broker=engines.nowhere())
    async with engines.BEDS[request.param](tmp_path, upstream, request.getfixturevalue) as opened:
        yield opened


async def fetch(bed, text):
    """Bring an image with a program to the site."""
    image, archive = await bed.image(text)

    async def pieces():
        for begin in range(0, len(archive), 1_000_000):
            yield archive[begin : begin + 1_000_000]

    await bed.engine.fetch(image, pieces())
    return image


async def start(bed, text, *, deployment=12, **fields):
    """Start a program of which this is the text."""
    image = await fetch(bed, text)
    command = (*bed.python, PROGRAM)
    spec = ContainerSpec(
        deployment=deployment, site="site-1", image=image, **{"command": command, **fields}
    )
    await bed.engine.start(spec)


async def container(engine, deployment=12):
    return next((each for each in await engine.containers() if each.deployment == deployment), None)


async def reached(engine, state, *, deployment=12):
    """The container, once it is in a state."""
    async with asyncio.timeout(WITHIN_S):
        while (now := await container(engine, deployment)) is None or now.state is not state:
            await WallClock().sleep(0.05)
        return now


async def output(engine, *, deployment=12, since_ns=0):
    """All that an ended program has printed."""
    async with asyncio.timeout(WITHIN_S):
        return b"".join([piece.content async for piece in engine.log(deployment, since_ns)])


async def printed(engine, text, *, deployment=12):
    """Return once a program has printed a text."""
    content = b""
    async with asyncio.timeout(WITHIN_S):
        async for piece in engine.log(deployment, 0):
            content += piece.content
            if text in content:
                return


@pytest.mark.parametrize("code", [0, 1, 7])
async def test_a_program_prints_and_ends_with_its_exit_code(bed, code):
    before_ns = WallClock().now_ns()
    await start(bed, f"print('hello'); raise SystemExit({code})")
    ended = await reached(bed.engine, ContainerState.ENDED)
    assert [ended.exit_code, ended.failure] == [code, None]
    assert ended.started_ns >= before_ns - NS_PER_S
    assert await output(bed.engine) == b"hello\n"


async def test_a_program_that_is_ended_by_a_signal_says_which(bed):
    await start(bed, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (await reached(bed.engine, ContainerState.ENDED)).exit_code == 128 + signal.SIGSEGV


async def test_errors_are_printed_among_the_output(bed):
    await start(bed, "raise ValueError('no flow')")
    await reached(bed.engine, ContainerState.ENDED)
    assert b"ValueError: no flow" in await output(bed.engine)


async def test_what_is_printed_comes_while_it_runs_and_as_it_is(bed):
    await start(
        bed, "import os, time; os.write(1, bytes(range(256))); print('end'); time.sleep(600)"
    )
    await printed(bed.engine, bytes(range(256)))


async def test_a_log_can_be_followed_from_an_instant_on(bed):
    text = (
        "import time; print('first', flush=True); time.sleep(0.3); print('second', flush=True);"
        " time.sleep(0.3)"
    )
    await start(bed, text)
    pieces = [piece async for piece in bed.engine.log(12, 0)]
    since_ns = next(piece.at_ns for piece in pieces if b"second" in piece.content)
    assert await output(bed.engine, since_ns=since_ns) == b"second\n"


async def test_a_command_that_is_not_there_cannot_be_started(bed):
    try:
        await start(bed, "", command=("no-such-program", "--now"))
        failure = (await reached(bed.engine, ContainerState.ENDED)).failure
    except CannotStart as exc:
        failure = exc
    assert failure.cause is EndCause.START
    assert "no-such-program" in str(failure)


async def test_a_program_stops_at_sigterm(bed):
    await start(bed, SLEEP)
    await printed(bed.engine, b"it runs")
    await bed.engine.stop(12, 10.0)
    assert (await container(bed.engine)).exit_code == 128 + signal.SIGTERM


async def test_a_program_that_ignores_sigterm_is_killed(bed):
    await start(bed, STUBBORN)
    await printed(bed.engine, b"it runs")
    await bed.engine.stop(12, 0.3)
    assert (await container(bed.engine)).exit_code == 128 + signal.SIGKILL


async def test_a_stopped_program_can_be_stopped_again_and_stays_listed(bed):
    await start(bed, SLEEP)
    for _ in range(2):
        await bed.engine.stop(12, 1.0)
        assert (await container(bed.engine)).state is ContainerState.ENDED


async def test_a_program_that_is_not_there_can_be_stopped_and_removed(bed):
    await bed.engine.stop(99, 1.0)
    await bed.engine.remove(99)
    assert await container(bed.engine, 99) is None


async def test_a_frozen_program_does_nothing_until_it_is_thawed(bed):
    await start(
        bed,
        "import time\nfor number in range(3000):\n print(number, flush=True)\n time.sleep(0.02)",
    )
    await printed(bed.engine, b"5\n")
    await bed.engine.freeze(12)
    await reached(bed.engine, ContainerState.FROZEN)
    before = await bed.engine.usage(12)
    await WallClock().sleep(0.5)
    assert (await bed.engine.usage(12)).cpu_s == before.cpu_s
    await bed.engine.thaw(12)
    await reached(bed.engine, ContainerState.RUNNING)
    await printed(bed.engine, b"40\n")


async def test_a_frozen_program_can_be_stopped(bed):
    await start(bed, SLEEP)
    await printed(bed.engine, b"it runs")
    await bed.engine.freeze(12)
    await reached(bed.engine, ContainerState.FROZEN)
    await bed.engine.stop(12, 5.0)
    assert (await container(bed.engine)).state is ContainerState.ENDED


async def test_another_engine_goes_on_with_what_runs(bed):
    await start(bed, SLEEP + "; print('later')")
    started_ns = (await reached(bed.engine, ContainerState.RUNNING)).started_ns
    await bed.engine.close()
    async with bed.opened() as other:
        again = await container(other)
        assert [again.state, again.started_ns] == [ContainerState.RUNNING, started_ns]
        await other.adopt(12)
        await printed(other, b"it runs")
        await other.stop(12, 5.0)
        assert (await container(other)).exit_code == 128 + signal.SIGTERM
        await other.remove(12)


async def test_an_end_that_no_engine_saw_is_known_to_the_next_one(bed):
    await start(bed, "import time; time.sleep(1); raise SystemExit(5)")
    await bed.engine.close()
    async with bed.opened() as other:
        assert (await reached(other, ContainerState.ENDED)).exit_code == 5
        await other.remove(12)


async def test_all_containers_are_listed_and_can_be_removed(bed):
    for deployment in (12, 13):
        await start(bed, SLEEP, deployment=deployment)
    listed = {each.deployment for each in await bed.engine.containers()}
    assert listed == {12, 13}
    await bed.engine.remove(12)
    assert [each.deployment for each in await bed.engine.containers()] == [13]
    assert await bed.engine.usage(12) is None


async def test_a_start_replaces_the_container_before(bed):
    await start(bed, "print('first')")
    await reached(bed.engine, ContainerState.ENDED)
    await start(bed, "print('second')")
    await reached(bed.engine, ContainerState.ENDED)
    assert await output(bed.engine) == b"second\n"


async def test_secrets_are_files_that_the_program_alone_reads_and_that_end_with_it(bed):
    text = (
        "import os, pathlib\n"
        "folder = pathlib.Path(os.environ['TESTBED_SECRETS'])\n"
        "print(sorted(each.name for each in folder.iterdir()))\n"
        "print((folder / 'CLOUD_KEY').read_text(), oct((folder / 'CLOUD_KEY').stat().st_mode))\n"
        "print(pathlib.Path(os.environ['TESTBED_CREDENTIAL_FILE']).read_text())\n"
        "print([name for name, value in os.environ.items() if 'hunter' in value])\n"
        "print(folder)\n"
    )
    files = {"CLOUD_KEY": b"hunter22", "credential": b"watch-12.secret"}
    variables = {
        "TESTBED_SECRETS": "/run/testbed",
        "TESTBED_CREDENTIAL_FILE": "/run/testbed/credential",
    }
    await start(bed, text, files=files, environment=variables)
    await reached(bed.engine, ContainerState.ENDED)
    *lines, folder = (await output(bed.engine)).decode().splitlines()
    assert lines == [
        "['CLOUD_KEY', 'credential']",
        "hunter22 0o100400",
        "watch-12.secret",
        "[]",
    ]
    await bed.engine.remove(12)
    assert not engines.content_of(folder)


async def test_the_environment_of_a_program_is_as_ordered(bed):
    await start(bed, "import os; print(os.environ['MODE'])", environment={"MODE": "fast"})
    await reached(bed.engine, ContainerState.ENDED)
    assert await output(bed.engine) == b"fast\n"


async def test_a_program_reaches_the_api_at_the_address_that_it_is_told(bed):
    text = (
        "import os, urllib.request\n"
        "print(urllib.request.urlopen(os.environ['TESTBED_API'] + '/api').read(), flush=True)\n"
        "import time; time.sleep(600)"
    )
    await start(bed, text)
    await bed.engine.adopt(12)
    await printed(bed.engine, b"b'ok'")
    traffic = bed.engine.traffic(12)
    assert traffic.is_let_in
    assert traffic.messages_out == 0


async def test_what_a_program_uses_is_counted(bed):
    await start(bed, "text = 'x' * 50_000_000\nprint('it runs', flush=True)\nwhile True: pass")
    await printed(bed.engine, b"it runs")
    await WallClock().sleep(0.5)
    usage = await bed.engine.usage(12)
    assert usage.cpu_s > 0.1
    assert usage.memory_bytes > 50_000_000
    assert usage.pids >= 1


async def test_a_program_takes_all_that_it_has_started_with_it(bed):
    text = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True)\n"
        "print('it runs', flush=True)\n"
    )
    await start(bed, text)
    await reached(bed.engine, ContainerState.ENDED)
    assert await bed.engine.usage(12) is None


async def test_a_program_that_prints_without_end_is_held_to_its_log(bed):
    text = "line = 'y' * 99\nprint('it runs', flush=True)\nwhile True: print(line)"
    await start(bed, text, resources=PrototypeResources(log=64 * 1024))
    await WallClock().sleep(1.0)
    await bed.engine.stop(12, 2.0)
    assert 10_000 < len(await output(bed.engine)) < 200_000


async def test_an_image_is_verified_fetched_once_and_pruned(bed):
    image, archive = await bed.image("print('hello')")

    async def pieces(content):
        yield content

    wrong = ImageWanted(kind=image.kind, digest=f"sha256:{'0' * 64}")
    with pytest.raises(CannotStart) as raised:
        await bed.engine.fetch(wrong, pieces(archive))
    assert raised.value.cause is EndCause.IMAGE
    assert not await bed.engine.has(wrong)
    assert not await bed.engine.has(image)
    for _ in range(2):
        await bed.engine.fetch(image, pieces(archive))
        assert await bed.engine.has(image)
    assert await bed.engine.prune(frozenset({image.digest})) == 0
    assert await bed.engine.prune(frozenset()) > 0
    assert not await bed.engine.has(image)


async def test_an_archive_that_is_none_cannot_be_fetched(bed):
    image, _ = await bed.image("print('hello')")

    async def pieces():
        yield b"no archive at all"

    with pytest.raises(CannotStart) as raised:
        await bed.engine.fetch(image, pieces())
    assert raised.value.cause is EndCause.IMAGE


async def test_a_product_says_what_it_can_give(bed):
    site = await bed.engine.check()
    assert site.takes_work
    assert site.cpu >= 1
    assert site.memory_bytes > 100_000_000
    assert site.architecture in {"amd64", "arm64"}
