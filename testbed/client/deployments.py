"""Deployments of prototypes: list and show them, read what they print, stop and promote them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from broker import api_client
from broker.clock import NS_PER_S, Clock
from broker.deployments.life import DeploymentStage, DeploymentState, EndCause
from broker.responses.deployments import (
    DeploymentEventList,
    DeploymentMetricsResponse,
    DeploymentPage,
    DeploymentResponse,
    GateResponse,
    GatesResponse,
    LogLineResponse,
    LogPage,
    WhyResponse,
)
from testbed.client import api, images
from testbed.terminal import tables
from testbed.terminal.run import Exit
from testbed.terminal.screen import Screen, notes, out, print_json
from testbed.terminal.tables import TableColumn

LOOK_EVERY_S = 0.5
"""Between two looks at a deployment that is waited for, or whose lines are followed."""
LINES_AT_ONCE = 1_000
STEADY_NS = 3 * NS_PER_S
"""A deployment that runs so long is not waited for any longer."""
_METRICS = tables.fields(
    DeploymentMetricsResponse,
    *("at", "cpu_s", "memory_bytes", "pids", "messages_in", "messages_out"),
    *("bytes_in", "bytes_out", "lag_s", "restarts"),
    whole_seconds=True,
)


async def fetch_page(
    *, over: bool, prototype: str | None, stage: DeploymentStage | None, limit: int
) -> DeploymentPage:
    """Deployments of the caller's organisation, the newest first; over: also those that ended."""
    query = {"all": over or None, "prototype": prototype, "stage": stage}
    return await api.whole("/deployments", DeploymentPage, query, most=limit)


async def fetch_with_events(number: int) -> tuple[DeploymentResponse, DeploymentEventList]:
    """A deployment as it is now, and all its changes of state."""
    async with api.connect() as connection:
        deployment = await connection.get(f"/deployments/{number}", DeploymentResponse)
        events = await connection.get(f"/deployments/{number}/events", DeploymentEventList)
    return deployment, events


async def fetch_metrics(number: int) -> DeploymentMetricsResponse:
    """The resources that a deployment uses, and its messages."""
    return await api.get(f"/deployments/{number}/metrics", DeploymentMetricsResponse)


async def fetch_why(number: int) -> WhyResponse:
    """Why a deployment is in its state, and what to do."""
    return await api.get(f"/deployments/{number}/why", WhyResponse)


async def gates(
    connection: api_client.Api, organisation: str, order: Mapping[str, Any]
) -> GatesResponse:
    """The conditions of a deployment, of which nothing is deployed."""
    path = f"/organisations/{organisation}/deployments/gates"
    return await connection.send("POST", path, GatesResponse, order)


async def deploy(
    connection: api_client.Api, organisation: str, order: Mapping[str, Any]
) -> DeploymentResponse:
    """Deploy a prototype."""
    path = f"/organisations/{organisation}/deployments"
    return await connection.send("POST", path, DeploymentResponse, order)


async def settled(
    connection: api_client.Api, number: int, clock: Clock, said: Screen = notes
) -> DeploymentResponse:
    """Wait until a deployment runs or has ended, and say each change of its state meanwhile.

    One that runs is looked at for some seconds more: many a program connects, and fails then.
    """
    said_last, since, steady_from_ns = "", "", 0
    while True:
        deployment = await connection.get(f"/deployments/{number}", DeploymentResponse)
        sentence = state_sentence(deployment)
        if sentence != said_last:
            said.print(sentence)
            said_last = sentence
        if deployment.state is DeploymentState.ENDED:
            return deployment
        if deployment.since != since or deployment.state is not DeploymentState.RUNNING:
            since, steady_from_ns = deployment.since, clock.monotonic_ns()
        elif clock.monotonic_ns() - steady_from_ns >= STEADY_NS:
            return deployment
        await clock.sleep(LOOK_EVERY_S)


async def stopped(number: int, clock: Clock) -> DeploymentResponse:
    """Have a deployment stopped, and wait until it has ended."""
    async with api.connect() as connection:
        path = f"/deployments/{number}"
        deployment = await connection.send("POST", f"{path}/stop", DeploymentResponse)
        while deployment.state is not DeploymentState.ENDED:
            await clock.sleep(LOOK_EVERY_S)
            deployment = await connection.get(path, DeploymentResponse)
    return deployment


async def rolled_back(number: int, clock: Clock, *, waits: bool) -> DeploymentResponse:
    """Deploy again what a prototype had before a deployment; waits: until that runs or ended."""
    async with api.connect() as connection:
        path = f"/deployments/{number}/rollback"
        deployment = await connection.send("POST", path, DeploymentResponse)
        notes.print(title(deployment), style="bold")
        return await settled(connection, deployment.id, clock) if waits else deployment


async def print_lines(
    number: int, clock: Clock, *, newest: int, follows: bool, as_json: bool
) -> None:
    """Print lines as they come; as_json: each as a line of JSON."""
    async for line in lines(number, clock, newest=newest, follows=follows):
        print_json(line) if as_json else print_line(line, out)


async def lines(
    number: int, clock: Clock, *, newest: int, follows: bool
) -> AsyncIterator[LogLineResponse]:
    """Yield the newest lines that a program printed; follows: and all later ones, until its end.

    A note on standard error says where lines are not kept any more.
    """
    async with api.connect() as connection:
        after = 0
        last_look = False
        waiting: list[LogLineResponse] = []
        while True:
            query = {"after": after, "limit": LINES_AT_ONCE}
            page = await connection.get(f"/deployments/{number}/logs", LogPage, query)
            if page.dropped and waiting:
                notes.print(f"{page.dropped} lines are not kept any more", style="yellow")
            waiting += page.items
            after = page.items[-1].number if page.items else after
            if page.next is not None:
                waiting = waiting[-newest:]
                continue
            for line in waiting[-newest:]:
                yield line
            waiting, newest = [], LINES_AT_ONCE
            if not follows or last_look:
                return
            deployment = await connection.get(f"/deployments/{number}", DeploymentResponse)
            last_look = deployment.state is DeploymentState.ENDED
            if not last_look:
                await clock.sleep(LOOK_EVERY_S)


# --- what is printed -----------------------------------------------------------------------------


def exit_of(deployment: DeploymentResponse) -> Exit:
    """The exit code for a deployment that was waited for: whether it runs or did what it should."""
    if deployment.state is not DeploymentState.ENDED:
        return Exit.DONE
    is_done = deployment.end is not None and deployment.end.cause is EndCause.FINISHED
    return Exit.DONE if is_done else Exit.NEGATIVE


def state_sentence(deployment: DeploymentResponse) -> str:
    """The state of a deployment as a line: where it is, what it waits for, its place."""
    words = [f"{deployment.state}"]
    if deployment.site is not None:
        words.append(f"at {deployment.site}")
    line = " ".join(words)
    if deployment.reason:
        line += f": {deployment.reason}"
    if deployment.place is not None:
        since = tables.instant(deployment.since)
        line += f" (place {deployment.place} in the queue, since {since})"
    return line


def title(deployment: DeploymentResponse) -> str:
    """The name of a deployment for people."""
    return f"deployment {deployment.id}: {deployment.prototype}, {deployment.stage}"


def print_new(deployment: DeploymentResponse, out: Screen, notes: Screen, *, as_json: bool) -> Exit:
    """Print a deployment that was just made; returns the exit code."""
    if as_json:
        print_json(deployment)
    else:
        print_outcome(deployment, out, notes)
    return exit_of(deployment)


def print_outcome(deployment: DeploymentResponse, out: Screen, notes: Screen) -> None:
    """Print the state of a new deployment in a sentence, and the next commands as a note."""
    print_state(deployment, out)
    number = deployment.id
    if exit_of(deployment) is Exit.NEGATIVE:
        notes.print(f"error: {deployment.prototype} has ended", style="red")
        notes.print(f"hint: testbed deployment why {number}")
    else:
        notes.print(f"follow it: testbed deployment logs {number} --follow")


def print_state(deployment: DeploymentResponse, out: Screen) -> None:
    """Print the state of a deployment in a sentence."""
    out.print(f"{title(deployment)}: {state_sentence(deployment)}")


def print_page(page: DeploymentPage, out: Screen) -> None:
    """Print a row for each deployment."""
    tables.print_rows(page.items, _DEPLOYMENT, out)


def print_deployment(
    deployment: DeploymentResponse, events: DeploymentEventList, out: Screen
) -> None:
    """Print a deployment with its streams and all changes of its state."""
    out.print(title(deployment), style="bold")
    out.print(state_sentence(deployment))
    out.print(f"image: {deployment.image}, {deployment.digest}")
    out.print(f"space: {deployment.space}; its program is the machine {deployment.principal}")
    for word, streams in (("reads", deployment.inputs), ("publishes", deployment.outputs)):
        for name, stream in streams.items():
            out.print(f"{word} {name}: {stream}")
    if deployment.labels:
        out.print(f"asks for a site with: {', '.join(deployment.labels)}")
    out.print(f"deployed by {deployment.by} at {tables.instant(deployment.deployed)}")
    tables.print_rows(events.items, _EVENT, out)


def print_metrics(metrics: DeploymentMetricsResponse, out: Screen) -> None:
    """Print the metrics of a deployment, a line each."""
    tables.print_record(metrics, _METRICS, out)


def print_gates(answer: GatesResponse, out: Screen, notes: Screen) -> None:
    """Print a line for each condition, and below a closed one what opens it."""
    for gate in answer.gates:
        print_gate(gate, out)
    closed = sum(not gate.open for gate in answer.gates)
    if closed:
        notes.print(
            f"error: it is not deployed: {closed} of {len(answer.gates)} conditions of the"
            f" {answer.stage} stage are not met",
            style="red",
        )


def print_gate(gate: GateResponse, out: Screen) -> None:
    """Print one condition."""
    word, style = ("open  ", "green") if gate.open else ("closed", "red")
    out.print(f"{word}  {gate.gate}: {gate.sentence}", style=style)
    if gate.todo:
        out.print(f"        {gate.todo}")


def print_why(why: WhyResponse, out: Screen) -> None:
    """Print why a deployment is in its state: the sentence, its last lines, what to do."""
    out.print(title(why.deployment), style="bold")
    out.print(why.sentence)
    if why.end is not None:
        facts = {
            "phase": why.end.phase,
            "exit code": why.end.exit_code,
            "signal": why.end.signal,
            "limit": why.end.limit,
        }
        stated = [f"{name}: {value}" for name, value in facts.items() if value not in {None, ""}]
        out.print("; ".join(stated))
    if why.last_lines:
        out.print("its last lines:")
        for line in why.last_lines:
            out.print(f"  {line.text}")
    if why.todo:
        out.print("what to do:")
        for sentence in why.todo:
            out.print(f"  {sentence}")


def print_line(line: LogLineResponse, out: Screen) -> None:
    """Print a line of a log with the instant at which it was printed."""
    out.print(f"{tables.instant(line.at)} {line.text}")


def _field(name: str) -> TableColumn[Any]:
    return tables.field(DeploymentResponse, name, whole_seconds=True)


_DEPLOYMENT: Sequence[TableColumn[DeploymentResponse]] = [
    _field("id"),
    _field("prototype"),
    _field("stage"),
    _field("state"),
    TableColumn(heading="site", cell=lambda each: each.site or tables.NOTHING),
    _field("since"),
    _field("restarts"),
    TableColumn(heading="image", cell=lambda each: images.short(each.digest)),
    _field("reason"),
]
_EVENT: Sequence[TableColumn[Any]] = [
    TableColumn(heading="at", cell=lambda each: tables.instant(each.at)),
    TableColumn(heading="state", cell=lambda each: str(each.state)),
    TableColumn(heading="reason", cell=lambda each: each.reason or tables.NOTHING, is_prose=True),
]
