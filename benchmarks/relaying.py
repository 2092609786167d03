"""Measures the relay of a runner: processor time per message, and the delay that it adds.

python -m benchmarks.relaying [--deployments 50] [--rate-hz 10] [--window-s 20]

Each deployment has one connection to a peer in place of the broker, which sends it batches and is
sent as many.  The relays run in a process of their own, whose processor time is read; the clients
and the peer are in this one.  Prints JSON.
"""

import argparse
import asyncio
import resource
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import orjson

from benchmarks import machine
from broker import codec
from broker.batch import Batch, Source, Wide
from broker.bus import mqtt_packets
from broker.clock import NS_PER_S, Clock, WallClock
from broker.settings import Address
from testbed_runner.doors import LOOPBACK, Doors
from testbed_runner.port import Upstream

TOPIC = "tb1/live/data/factory/pump-rig/rig"
SIGNALS, SAMPLES = 5, 10
LET_IN = b"\x20\x02\x00\x00"


def batch(now_ns: int) -> bytes:
    """A PUBLISH of a batch, as a gateway sends it ten times a second."""
    times = np.arange(SAMPLES, dtype=np.int64) + now_ns
    values = {f"signal-{number}": np.linspace(0.0, 1.0, SAMPLES) for number in range(SIGNALS)}
    payload = codec.encode(Batch(1, (Wide(times, values),), Source.LIVE, now_ns))
    return mqtt_packets.publish_head(TOPIC, 7, len(payload), retain=False) + payload


async def relay(upstream: Address, deployments: int) -> None:
    """Serve so many deployments until standard input ends; prints ports, then processor seconds."""
    async with asyncio.TaskGroup() as tasks:
        nowhere = Address(LOOPBACK, 9)
        ways = Upstream(api=nowhere, broker=upstream)
        doors = Doors(ways, trust=None, clock=WallClock(), tasks=tasks)
        ports = [(await doors.open(number)).broker.port for number in range(deployments)]
        sys.stdout.write(orjson.dumps(ports).decode() + "\n")
        sys.stdout.flush()
        line = await asyncio.to_thread(sys.stdin.readline)
        while line:  # each line asks for the processor time so far
            used = resource.getrusage(resource.RUSAGE_SELF)
            traffic = [doors.traffic(number) for number in range(deployments)]
            answer = {
                "cpu_s": used.ru_utime + used.ru_stime,
                "messages": sum(each.messages_in + each.messages_out for each in traffic),
            }
            sys.stdout.write(orjson.dumps(answer).decode() + "\n")
            sys.stdout.flush()
            line = await asyncio.to_thread(sys.stdin.readline)
        await doors.close_all()


async def send(writer: StreamWriter, rate_hz: float, clock: Clock) -> None:
    """Send batches until cancelled."""
    while True:
        writer.write(batch(clock.now_ns()))
        await writer.drain()
        await clock.sleep(1 / rate_hz)


async def receive(reader: StreamReader, delays_s: list[float], clock: Clock) -> None:
    """Note the age of every batch that comes."""
    packets = mqtt_packets.Reader()
    while received := await reader.read(65_536):
        packets.feed(received)
        while (packet := packets.next()) is not None:
            if isinstance(packet, mqtt_packets.Published):
                age_ns = clock.now_ns() - codec.parse(packet.payload).pub_ns
                delays_s.append(age_ns / NS_PER_S)


@asynccontextmanager
async def peer(rate_hz: float, delays_s: list[float], clock: Clock) -> AsyncIterator[Address]:
    """A peer in place of the broker: lets everybody in, and exchanges batches."""

    async def serve(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(len(CONNECT))
        writer.write(LET_IN)
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(send(writer, rate_hz, clock), name="peer sends")
            await receive(reader, delays_s, clock)
            sending.cancel()
        writer.close()

    async with await asyncio.start_server(serve, LOOPBACK, 0) as server:
        yield Address(LOOPBACK, server.sockets[0].getsockname()[1])


CONNECT = mqtt_packets.connect("ada", "ada", "secret", keepalive_s=10, clean=True)


async def program(port: int, rate_hz: float, delays_s: list[float], clock: Clock) -> None:
    """The program of a deployment: exchanges batches through its listener until cancelled."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(CONNECT)
        await reader.readexactly(len(LET_IN))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send(writer, rate_hz, clock), name="program sends")
            tasks.create_task(receive(reader, delays_s, clock), name="program receives")
    finally:
        writer.close()


async def measure(deployments: int, rate_hz: float, window_s: float) -> dict[str, object]:
    """Run the load for a while, and say what it cost."""
    clock, delays_s = WallClock(), list[float]()
    async with peer(rate_hz, delays_s, clock) as upstream:
        command = ("-m", "benchmarks.relaying", "--relay", str(upstream.port))
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            "--deployments",
            str(deployments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdin is not None  # noqa: S101 - for the types
        assert child.stdout is not None  # noqa: S101 - likewise
        ports = orjson.loads(await child.stdout.readline())
        async with asyncio.TaskGroup() as tasks:
            programs = [
                tasks.create_task(program(port, rate_hz, delays_s, clock), name=f"program {port}")
                for port in ports
            ]
            used = []
            for wait_s in (3.0, window_s):
                await clock.sleep(wait_s)
                child.stdin.write(b"\n")
                used.append(orjson.loads(await child.stdout.readline()))
                if len(used) == 1:
                    delays_s.clear()
            for each in programs:
                each.cancel()
        child.stdin.close()
        await child.wait()
    before, after = used
    messages, cpu_s = (after[key] - before[key] for key in ("messages", "cpu_s"))
    return {
        "deployments": deployments,
        "rate_hz": rate_hz,
        "messages_s": round(messages / window_s, 1),
        "cpu_percent": round(cpu_s / window_s * 100, 2),
        "us_per_message": round(cpu_s / messages * 1e6, 1),
        "delay_p50_ms": round(float(np.percentile(delays_s, 50)) * 1e3, 2),
        "delay_p99_ms": round(float(np.percentile(delays_s, 99)) * 1e3, 2),
        "batch_bytes": len(batch(clock.now_ns())),
        "machine": machine.described(),
    }


def main() -> None:
    """Measure, or be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deployments", type=int, default=50)
    parser.add_argument("--rate-hz", type=float, default=10.0)
    parser.add_argument("--window-s", type=float, default=20.0)
    parser.add_argument("--relay", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        asyncio.run(relay(Address(LOOPBACK, options.relay), options.deployments))
        return
    figures = asyncio.run(measure(options.deployments, options.rate_hz, options.window_s))
    sys.stdout.write(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode() + "\n")


if __name__ == "__main__":
    main()
