"""Deployments of prototypes: what was asked for, where it runs, and what its runner says of it."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from broker.deployments.life import (
    DeploymentEnd,
    DeploymentStage,
    DeploymentState,
    EndCause,
    WantedState,
    check_step,
)
from broker.errors import Refused
from broker.namespace import LIVE, RUN_PREFIX, StreamAddress
from broker.rights import Entry, Scope
from testbed_api.domain.organisations import SYSTEM_PREFIX

PROJECT, ARCHIVE, REGISTRY = "project", "archive", "registry"
"""Kinds of images."""
IMAGE_KINDS = (PROJECT, ARCHIVE, REGISTRY)
MOST_REASON = 1_000
StageKey = tuple[str, str, DeploymentStage]
"""An organisation, its prototype and a stage: one deployment runs in it at a time."""
_LONGEST_ID = 40
_OF_SOURCE = "-source"


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedImage:
    """An image of an organisation, by the digest that never stands for another one.

    kind: project, archive or registry.  reference: in its registry, with the digest; empty for the
    other kinds.  architecture: empty for a project, which has none.
    """

    digest: str
    name: str
    kind: str
    reference: str = ""
    architecture: str = ""
    size_bytes: int = 0
    pushed_ns: int = 0
    pushed_by: str = ""
    used_ns: int | None = None


@dataclass(frozen=True, slots=True)
class StreamBindings:
    """The streams behind the names that a program knows, in the space of its deployment."""

    space: str
    inputs: Mapping[str, StreamAddress]
    outputs: Mapping[str, StreamAddress]

    @property
    def scope(self) -> Scope:
        """The rights of the program's machine: these streams and no other."""
        return Scope(frozenset(self.entries(self.inputs)), frozenset(self.entries(self.outputs)))

    @property
    def source_scope(self) -> Scope:
        """The rights of what plays the inputs."""
        return Scope(writes=frozenset(self.entries(self.inputs)))

    def entries(self, streams: Mapping[str, StreamAddress]) -> list[Entry]:
        """Some of the streams, in the space."""
        return [Entry(self.space, address) for address in streams.values()]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentMetrics:
    """Use of resources since the container started; lag_s: None where none is known."""

    at_ns: int
    cpu_s: float
    memory_bytes: int
    pids: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    lag_s: float | None
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment of a prototype in one stage.

    manifest: as JSON has it.  inputs, outputs: its bindings, see `bindings`.  cpu, memory_bytes:
    what it is promised.  image_name: as its manifest names it.  source: what plays its inputs, None
    in the live stage.  principal: the machine that its program is.  wanted, cause, wanted_reason:
    as people want it; a pause is in none of them.  last_end: of its last start.  last_event,
    last_line: numbers of the newest that its runner has reported.  runner: None while none has it.
    """

    organisation: str
    prototype: str
    stage: DeploymentStage
    space: str
    manifest: Mapping[str, Any] = field(repr=False)
    inputs: Mapping[str, StreamAddress]
    outputs: Mapping[str, StreamAddress]
    cpu: float
    memory_bytes: int
    log_bytes: int
    image_name: str
    image: PinnedImage
    deployed_ns: int
    deployed_by: str
    labels: frozenset[str] = frozenset()
    source: Mapping[str, Any] | None = None
    principal: str = ""
    source_principal: str | None = None
    runner: str | None = None
    wanted: WantedState = WantedState.RUN
    cause: EndCause | None = None
    wanted_reason: str = ""
    state: DeploymentState = DeploymentState.WAITING
    reason: str = ""
    since_ns: int = 0
    restarts: int = 0
    last_end: DeploymentEnd | None = None
    metrics: DeploymentMetrics | None = None
    last_event: int = 0
    last_line: int = 0
    promoted_from: int | None = None
    replaces: int | None = None
    ended_ns: int | None = None
    id: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and its names are free."""
        return self.state is DeploymentState.ENDED

    @property
    def bindings(self) -> StreamBindings:
        """Its streams."""
        return StreamBindings(self.space, self.inputs, self.outputs)

    @property
    def key(self) -> StageKey:
        """The key of which one deployment runs at a time."""
        return self.organisation, self.prototype, self.stage

    @property
    def end(self) -> DeploymentEnd | None:
        """Its end, None while it goes on."""
        return self.last_end if self.is_over else None

    def stopped(self, cause: EndCause, reason: str) -> "Deployment":
        """The deployment as it is wanted to stop; one that is to stop already keeps its cause."""
        if self.wanted is WantedState.STOP:
            return self
        return replace(
            self, wanted=WantedState.STOP, cause=cause, wanted_reason=reason[:MOST_REASON]
        )

    def reported(
        self, events: Sequence["DeploymentEvent"]
    ) -> tuple["Deployment", list["DeploymentEvent"], list[str]]:
        """The deployment after events of its runner: with those that are new, and faults of others.

        An event that was reported before is passed over; one that cannot follow is a fault.
        """
        now, new, faults = self, list[DeploymentEvent](), list[str]()
        for reported in sorted(events, key=lambda each: each.number):
            if reported.number <= now.last_event:
                continue
            try:
                check_step(now.state, reported.state)
            except Refused as exc:
                faults.append(exc.message)
                now = replace(now, last_event=reported.number)
            else:
                event = _with_end(now, reported)
                now = _after(now, event)
                new.append(event)
        return now, new, faults

    def ended(self, end: DeploymentEnd, at_ns: int) -> "Deployment":
        """The deployment as it is over."""
        return replace(
            self,
            state=DeploymentState.ENDED,
            reason=end.reason,
            since_ns=at_ns,
            last_end=end,
            ended_ns=at_ns,
        )


@dataclass(frozen=True, slots=True)
class DeploymentEvent:
    """A change of a deployment's state; number: counts from 1 in a deployment."""

    number: int
    at_ns: int
    state: DeploymentState
    reason: str = ""
    end: DeploymentEnd | None = None


def _with_end(deployment: Deployment, event: DeploymentEvent) -> DeploymentEvent:
    """An event of a deployment that says why it ended, also where its runner left that out."""
    if event.state is not DeploymentState.ENDED or event.end is not None:
        return event
    cause = deployment.cause or EndCause.SITE
    end = DeploymentEnd(cause=cause, phase=deployment.state, reason=event.reason)
    return replace(event, end=end)


def _after(deployment: Deployment, event: DeploymentEvent) -> Deployment:
    """A deployment after an event; the end of a start that is no end of it all is a restart."""
    is_over = event.state is DeploymentState.ENDED
    return replace(
        deployment,
        state=event.state,
        reason=event.reason,
        since_ns=event.at_ns if event.state is not deployment.state else deployment.since_ns,
        last_end=event.end or deployment.last_end,
        restarts=deployment.restarts + (event.end is not None and not is_over),
        last_event=event.number,
        ended_ns=event.at_ns if is_over else None,
    )


@dataclass(frozen=True, slots=True)
class PrintedLine:
    """A line that a program printed; number: counts from 1 in a deployment."""

    number: int
    at_ns: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFilter:
    """The deployments that a listing is about; None for no condition.

    over: also those that have ended.
    """

    organisation: str | None = None
    prototype: str | None = None
    stage: DeploymentStage | None = None
    over: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedStreams:
    """The streams of a prototype as its manifest has them: inputs by name, names of outputs."""

    prototype: str
    inputs: Mapping[str, StreamAddress]
    outputs: Collection[str]

    def bound(self, organisation: str, space: str) -> StreamBindings:
        """Bind the names to streams in a space; raises Invalid for names that become too long.

        In a run the inputs are the organisation's own streams, of the same equipment and stream
        names: equipment that two owners name alike, or that is named as the prototype, is told
        apart by its owner.
        """
        outputs = {name: StreamAddress(organisation, self.prototype, name) for name in self.outputs}
        if space == LIVE:
            return StreamBindings(space, dict(self.inputs), outputs)
        owners: dict[str, set[str]] = {self.prototype: {""}}
        for address in self.inputs.values():
            owners.setdefault(address.equipment, set()).add(address.organisation)
        inputs = {
            name: StreamAddress(
                organisation,
                address.equipment
                if len(owners[address.equipment]) == 1
                else f"{address.organisation}-{address.equipment}",
                address.stream,
            )
            for name, address in self.inputs.items()
        }
        return StreamBindings(space, inputs, outputs)


def space_of(stage: DeploymentStage, number: int) -> str:
    """The space of a deployment's streams."""
    return LIVE if stage is DeploymentStage.LIVE else f"{RUN_PREFIX}deployment-{number}"


def machine_name(prototype: str, number: int, *, more: str = "") -> str:
    """The name of a deployment's machine: of the prototype as far as it fits, and the number.

    more: further characters, for a name that somebody has.
    """
    tail = f"-{number}{more}"
    head = re.sub("-{2,}", "-", prototype)[: _LONGEST_ID - len(tail) - len(_OF_SOURCE)].rstrip("-")
    head = f"p-{head}" if head.startswith(SYSTEM_PREFIX) else head
    return f"{head[: _LONGEST_ID - len(tail) - len(_OF_SOURCE)].rstrip('-')}{tail}"


def source_name(machine: str) -> str:
    """The name of the machine that plays a deployment's inputs."""
    return machine + _OF_SOURCE
