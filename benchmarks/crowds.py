"""How soon crowds of clients are back after the broker is killed, what live readers cost, and how
long many registrations take.

The server is embedded, so that all of it shares one event loop; a gateway feeds it from a machine
of 20 signals at 10 Hz.  The crowds are processes of their own (`crowd_clients`, `crowd_readers`).
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import registrations
from benchmarks.registrations import RegistrationTarget
from broker import api_client
from broker.api_client import Api
from broker.clock import NS_PER_S, Clock, ns_of, text_of
from broker.errors import Unavailable
from broker.namespace import LIVE, StreamTopic, Verb
from testbed.processes.child_process import ChildProcess, start_child
from tests.faults import rig as rigs
from tests.faults.rig import Rig

CLIENTS = (60, 300, 1_000)
READERS = (100, 500)
REGISTERED = (500, 5_000)
"""Streams that are registered at once: if quick, and else."""
LOAD = rigs.Load(signals=20, hz=10.0, publishing_s=0.1)
SEED = 1
PATIENCE_S = 180.0
ASKED_AT_ONCE = 2
"""Requests that make the credentials of a crowd."""
REQUEST_EVERY_S = 0.1
MEASURED_S, WARM_S = 30.0, 3.0
LOOK_BACK_NS = 10 * NS_PER_S
AUDIT_PAGE = 500


@dataclass(frozen=True, slots=True)
class ClientsBack:
    """What became of a crowd of clients.

    clients_s: from the broker's end until all were subscribed again.  gateway_s: until the first
    sample that was taken after it was stored.  accepted: connections that the broker has accepted
    since the crowd began, and audited: those that the audit has of it.
    """

    clients_s: float
    gateway_s: float
    accepted: int
    audited: int


@dataclass(slots=True)
class ReadersCost:
    """What a crowd of live readers costs the others, and how it ends.

    late_s: the longest time that a reader was without a batch.
    """

    api_p50_ms: float = 0.0
    api_p99_ms: float = 0.0
    recording_lag_p99_s: float = 0.0
    revoke_s: float = 0.0
    rss_mib: float = 0.0
    batches_per_s: float = 0.0
    late_s: float = 0.0
    missed: int = 0
    ended: int = 0


async def run(folder: Path, clock: Clock, *, quick: bool) -> dict[str, Any]:
    """The results of all crowds, of the smallest alone if quick."""
    clients = CLIENTS[:1] if quick else CLIENTS
    readers = READERS[:1] if quick else READERS
    streams = REGISTERED[0] if quick else REGISTERED[1]
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    async with rigs.running(folder, SEED, load=LOAD) as rig:
        back = {count: await clients_back(rig, count, clock) for count in clients}
        costs = {count: await readers_cost(rig, count, clock, MEASURED_S) for count in readers}
        registered = await _registrations(rig, streams, clock)
    return {
        "clients_back_s": {str(count): round(each.clients_s, 2) for count, each in back.items()},
        "gateways_back_s": round(max(each.gateway_s for each in back.values()), 2),
        "connections": {
            str(count): {"accepted": each.accepted, "audited": each.audited}
            for count, each in back.items()
        },
        "readers": {str(count): asdict(each) for count, each in costs.items()},
        "registrations": registered,
    }


async def _registrations(rig: Rig, streams: int, clock: Clock) -> dict[str, Any]:
    """Register so many streams at once: see `registrations.run`."""
    broker = str(rig.server.said("ready")["broker"])
    target = RegistrationTarget(rig.api_url, broker, rig.administrator)
    return await registrations.run(target, streams, clock)


# --- clients that come back -----------------------------------------------------------------------


async def clients_back(rig: Rig, count: int, clock: Clock) -> ClientsBack:
    """Let so many clients connect, kill the broker, and wait until all are back."""
    organisation = f"crowd-{count}"
    async with _company(rig, organisation, count) as (_, credentials):
        topic = str(StreamTopic(LIVE, Verb.DATA, rigs.address(0)))
        broker = str(rig.server.said("ready")["broker"]).removeprefix("mqtt://")
        command = ["-m", "benchmarks.crowd_clients", broker, topic, str(count), str(credentials)]
        log = rig.folder / "crowd-clients.log"
        async with start_child("crowd", command, log=log) as crowd, asyncio.timeout(PATIENCE_S):
            await crowd.wait_for("all")
            killed_ns = clock.now_ns()
            os.kill(rig.broker_pid(), signal.SIGKILL)
            async with asyncio.TaskGroup() as tasks:
                stored = tasks.create_task(_stored_since(rig, killed_ns, clock), name="gateway")
                back = await crowd.wait_for("all")
            audited = await _audited(rig, organisation, back["accepted"], clock)
    return ClientsBack(
        clients_s=(back["at_ns"] - killed_ns) / NS_PER_S,
        gateway_s=(stored.result() - killed_ns) / NS_PER_S,
        accepted=back["accepted"],
        audited=audited,
    )


async def _stored_since(rig: Rig, since_ns: int, clock: Clock) -> int:
    """The moment at which a sample is stored that was taken after an instant."""
    async with api_client.connect(rig.api_url, rig.observer) as api:
        while await _newest_ns(api, clock) <= since_ns:
            await clock.sleep(REQUEST_EVERY_S)
    return clock.now_ns()


async def _newest_ns(api: Api, clock: Clock) -> int:
    """The time of the newest stored sample of the first signal, LOOK_BACK_NS ago at least."""
    now_ns = clock.now_ns()
    span = {"from": text_of(now_ns - LOOK_BACK_NS), "to": text_of(now_ns + NS_PER_S)}
    document = await api.request("GET", f"/streams/{rigs.address(0)}/history", params=span)
    ends = [ns_of(frame["t0"]) + int(frame["dt"][-1]) for frame in document["frames"]]
    return int(max(ends, default=now_ns - LOOK_BACK_NS))


async def _audited(rig: Rig, organisation: str, least: int, clock: Clock) -> int:
    """Connections of an organisation that the audit has as admitted, once they are so many."""
    async with api_client.connect(rig.api_url, rig.administrator) as api:
        count = 0
        for _ in range(50):
            count = await _connects(api, organisation)
            if count >= least:
                break
            await clock.sleep(REQUEST_EVERY_S)
    return count


async def _connects(api: Api, organisation: str) -> int:
    params: dict[str, Any] = {"action": "connect", "organisation": organisation}
    count: int = 0
    cursor: int | None = None
    while True:
        query = params | {"limit": AUDIT_PAGE} | ({"cursor": cursor} if cursor else {})
        page = await api.request("GET", "/audit", params=query)
        count += len([event for event in page["items"] if event["outcome"] == "allowed"])
        cursor = page["next"]
        if cursor is None:
            return count


# --- live readers ---------------------------------------------------------------------------------


async def readers_cost(rig: Rig, count: int, clock: Clock, seconds: float) -> ReadersCost:
    """Let so many readers follow the first stream, ask meanwhile, then revoke what they read."""
    cost = ReadersCost()
    async with _company(rig, f"readers-{count}", count) as (grant, credentials):
        path = f"/api/v1/streams/{rigs.address(0)}/live"
        api = rig.api_url.removeprefix("http://")
        command = ["-m", "benchmarks.crowd_readers", api, path, str(count), str(credentials)]
        log = rig.folder / "crowd-readers.log"
        async with start_child("readers", command, log=log) as crowd, asyncio.timeout(PATIENCE_S):
            await crowd.wait_for("following")
            await clock.sleep(WARM_S)
            before = await _count_from(crowd, clock.now_ns())
            await _ask(rig, cost, clock, seconds)
            after = await _count_from(crowd, clock.now_ns())
            await _revoke(rig, grant, crowd, cost, clock)
    took_s = (after["at_ns"] - before["at_ns"]) / NS_PER_S
    cost.batches_per_s = round((after["batches"] - before["batches"]) / took_s, 1)
    cost.late_s, cost.missed = after["late_s"], after["missed"]
    return cost


async def _count_from(crowd: ChildProcess, at_ns: int) -> Mapping[str, Any]:
    """The first counts that were reported after an instant."""
    while True:
        counts = await crowd.wait_for("count")
        if counts["at_ns"] >= at_ns:
            return counts


@dataclass(slots=True)
class _Measured:
    """Milliseconds of requests, seconds that the newest sample was behind, and bytes of memory."""

    taken_ms: list[float] = field(default_factory=list)
    lag_s: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)


async def _ask(rig: Rig, cost: ReadersCost, clock: Clock, seconds: float) -> None:
    """Send requests for a while, and note how long they took, and how far behind the store was."""
    measured, server = _Measured(), psutil.Process(rig.server.pid)
    end_ns = clock.now_ns() + round(seconds * NS_PER_S)
    async with api_client.connect(rig.api_url, rig.owner) as api:
        while clock.now_ns() < end_ns:
            await _timed(measured, api.request("GET", f"/streams/{rigs.address(1)}"), clock)
            newest_ns = await _timed(measured, _newest_ns(api, clock), clock)
            measured.lag_s.append((clock.now_ns() - newest_ns) / NS_PER_S)
            measured.rss.append(server.memory_info().rss)
            await clock.sleep(REQUEST_EVERY_S)
    cost.api_p50_ms, cost.api_p99_ms = _percentiles(measured.taken_ms)
    cost.recording_lag_p99_s = round(_percentiles(measured.lag_s)[1], 3)
    cost.rss_mib = round(max(measured.rss) / 2**20, 1)


async def _timed(measured: _Measured, request: Any, clock: Clock) -> Any:
    began_ns = clock.now_ns()
    answer = await request
    measured.taken_ms.append((clock.now_ns() - began_ns) / 1e6)
    return answer


async def _revoke(
    rig: Rig, grant: int, crowd: ChildProcess, cost: ReadersCost, clock: Clock
) -> None:
    """Revoke the grant that all read under, and wait until all have ended."""
    async with api_client.connect(rig.api_url, rig.owner, timeout_s=60.0) as api:
        revoked_ns = clock.now_ns()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(api.request("DELETE", f"/grants/{grant}"), name="revoke")
            ended = await crowd.wait_for("ended")
    cost.revoke_s = round(max(ended["last_ns"] - revoked_ns, 0) / NS_PER_S, 3)
    cost.ended = ended["ended"]


def _percentiles(taken: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(np.array(taken), [50, 99])
    return round(float(p50), 3), round(float(p99), 3)


# --- who they are ---------------------------------------------------------------------------------


@asynccontextmanager
async def _company(rig: Rig, organisation: str, count: int) -> AsyncIterator[tuple[int, Path]]:
    """A company with so many machines that may read the first stream: its grant, their credentials
    in a file.
    """
    async with api_client.connect(rig.api_url, rig.administrator) as api:
        owner = await api.create_organisation(
            organisation, owner=f"{organisation}-owner", kind="company"
        )
    stream = {"space": LIVE, "stream": str(rigs.address(0))}
    async with api_client.connect(rig.api_url, rig.owner) as api:
        body = {"company": organisation, "streams": [stream]}
        (grant,) = (await api.request("POST", "/grants", json=body))["items"]
    gate = asyncio.Semaphore(ASKED_AT_ONCE)
    async with api_client.connect(rig.api_url, owner, timeout_s=60.0) as api:

        async def machine(number: int) -> str:
            body = {"principal": f"{organisation}-{number}", "reads": [stream]}
            async with gate:
                while True:
                    with suppress(Unavailable):  # the registry is busy, or was
                        created = await api.request("POST", "/credentials", json=body)
                        return str(created["credential"])

        async with asyncio.TaskGroup() as tasks:
            creating = [tasks.create_task(machine(at), name=f"{at}") for at in range(count)]
    file = rig.folder / f"{organisation}.credentials"
    await asyncio.to_thread(file.write_text, "\n".join(task.result() for task in creating))
    yield int(grant["id"]), file


# --- the table ------------------------------------------------------------------------------------

GOALS: Mapping[str, float] = {
    "clients_60": 10,
    "clients_300": 20,
    "clients_1000": 30,
    "gateways": 10,
    "api_p99_ms": 250,
    "revoke_s": 1,
    "recording_lag_p99_s": 1,
    "registrations_s": 60,
    "longest_pause_s": 2,
}


def table(document: Mapping[str, Any]) -> str:
    """The results as a table of goals."""
    lines = ["| what | goal | measured | met |", "|---|---|---|---|"]
    for count, seconds in document["clients_back_s"].items():
        what = f"{int(count):,} clients back after the broker was killed, s"
        lines.append(_row(what, GOALS[f"clients_{count}"], seconds))
    gateway_s = document["gateways_back_s"]
    lines.append(_row("gateway back beside them, s", GOALS["gateways"], gateway_s))
    for count, cost in document["readers"].items():
        who = f"{int(count):,} live readers of a 10 Hz stream"
        lines.append(_row(f"{who}: API p99, ms", GOALS["api_p99_ms"], cost["api_p99_ms"]))
        lag = cost["recording_lag_p99_s"]
        lines.append(_row(f"{who}: recording lag p99, s", GOALS["recording_lag_p99_s"], lag))
        revoke_s = cost["revoke_s"]
        lines.append(_row(f"{who}: revoke to silence of all, s", GOALS["revoke_s"], revoke_s))
        lines.append(f"| {who}: memory of the server, MiB | | {cost['rss_mib']:g} | |")
    registered = document["registrations"]
    who = f"{registered['streams']:,} streams registered at once"
    lines.append(
        _row(f"{who}: samples of all stored, s", GOALS["registrations_s"], registered["s"])
    )
    pause_s = registered["longest_pause_s"]
    lines.append(_row(f"{who}: longest pause in storing, s", GOALS["longest_pause_s"], pause_s))
    return "\n".join(lines) + "\n"


def _row(what: str, goal: float, measured: float) -> str:
    met = "yes" if measured <= goal else "**no**"
    return f"| {what} | ≤ {goal:g} | {measured:g} | {met} |"
