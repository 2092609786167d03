"""The states of a swarm's tasks in the words of all products.  Pure.

Source: Docker Engine API 1.41, schema `TaskState`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from broker.clock import NS_PER_S, ns_of
from broker.deployments.life import EndCause
from testbed_runner.port import CannotStart, Container, ContainerState

NAMED_AFTER_S = 20
"""A task that no node has taken for so long is said to wait, and why."""


class TaskState(StrEnum):
    """The state of a task, as Swarm says it."""

    NEW = "new"
    ALLOCATED = "allocated"
    PENDING = "pending"
    ASSIGNED = "assigned"
    ACCEPTED = "accepted"
    PREPARING = "preparing"
    READY = "ready"
    STARTING = "starting"
    RUNNING = "running"
    COMPLETE = "complete"
    SHUTDOWN = "shutdown"
    FAILED = "failed"
    REJECTED = "rejected"
    REMOVE = "remove"
    ORPHANED = "orphaned"


CONTAINER_STATES: Mapping[TaskState, ContainerState] = {
    TaskState.NEW: ContainerState.CREATED,
    TaskState.ALLOCATED: ContainerState.CREATED,
    TaskState.PENDING: ContainerState.CREATED,
    TaskState.ASSIGNED: ContainerState.CREATED,
    TaskState.ACCEPTED: ContainerState.CREATED,
    TaskState.PREPARING: ContainerState.CREATED,
    TaskState.READY: ContainerState.CREATED,
    TaskState.STARTING: ContainerState.CREATED,
    TaskState.RUNNING: ContainerState.RUNNING,
    TaskState.COMPLETE: ContainerState.ENDED,
    TaskState.SHUTDOWN: ContainerState.ENDED,
    TaskState.FAILED: ContainerState.ENDED,
    TaskState.REJECTED: ContainerState.ENDED,
    TaskState.REMOVE: ContainerState.ENDED,
    TaskState.ORPHANED: ContainerState.ENDED,
}
"""All of them; a test holds this against the list."""
_NOT_TAKEN = frozenset({TaskState.NEW, TaskState.ALLOCATED, TaskState.PENDING})
_NO_IMAGE = ("no such image", "pull access denied", "not found: manifest", "manifest unknown")
_NO_ADDRESS = ("could not find an available ip", "no available ip", "address space is full")
_WRONG_COMMAND = (
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "exec format error",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmTask:
    """A task as the swarm lists it.

    state_ns: when it came to its state.  wanted: the state to which the swarm brings it.
    container: id of its container on its node, empty while there is none.
    """

    state: TaskState
    created_ns: int
    state_ns: int
    message: str
    wanted: TaskState
    error: str = ""
    node: str = ""
    container: str = ""
    exit_code: int | None = None

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "SwarmTask":
        """Read a task of the engine's API."""
        status = document["Status"]
        state = TaskState(status["State"])
        own = status.get("ContainerStatus") or {}
        has_ended = CONTAINER_STATES[state] is ContainerState.ENDED
        return cls(
            state=state,
            created_ns=ns_of(document["CreatedAt"]),
            state_ns=ns_of(status["Timestamp"]),
            message=status.get("Message", ""),
            wanted=TaskState(document["DesiredState"]),
            error=status.get("Err", ""),
            node=document.get("NodeID", ""),
            container=own.get("ContainerID", ""),
            exit_code=own.get("ExitCode") if has_ended and own.get("ContainerID") else None,
        )

    def is_taken(self) -> bool:
        """Whether a node has taken it."""
        return self.state not in _NOT_TAKEN


def container_of(deployment: int, task: SwarmTask, now_ns: int) -> Container:
    """A container in the words of all products, as its task says."""
    state = CONTAINER_STATES[task.state]
    return Container(
        deployment=deployment,
        state=state,
        detail=waiting(task, now_ns) if state is ContainerState.CREATED else task.error,
        started_ns=task.state_ns if task.state is TaskState.RUNNING else None,
        exit_code=task.exit_code,
        pulling=task.state is TaskState.PREPARING,
        failure=failure_of(task),
    )


def waiting(task: SwarmTask, now_ns: int) -> str:
    """A sentence on what a task that does not run yet waits for."""
    waited_s = (now_ns - task.created_ns) // NS_PER_S
    if task.is_taken():
        return f"its node has it: {task.message or task.state}"
    if waited_s < NAMED_AFTER_S:
        return "the swarm looks for a node"
    if task.state is TaskState.NEW or _is_one_of(task.error, _NO_ADDRESS):
        return f"no address is free for it in its network, for {waited_s} s"
    return f"no node of the swarm takes it, for {waited_s} s: {task.error or task.message}"


def failure_of(task: SwarmTask) -> CannotStart | None:
    """Why a task could not be started; None if it was, or may still be."""
    error = task.error.lower()
    if task.state is TaskState.ORPHANED:
        return CannotStart(
            "its node has been away for a day, and is not expected back",
            cause=EndCause.SITE,
            hint="`docker node ls` on a manager shows the nodes",
        )
    if task.state not in {TaskState.REJECTED, TaskState.FAILED} or task.exit_code:
        return None
    if _is_one_of(error, _NO_IMAGE):
        return CannotStart(
            f"its node does not have its image: {task.error}",
            cause=EndCause.IMAGE,
            hint="nodes beside the runner's own fetch images from a registry alone",
        )
    if _is_one_of(error, _WRONG_COMMAND):
        return CannotStart(
            f"its command could not be started: {task.error}",
            cause=EndCause.START,
            hint="is the command of its manifest in the image, and executable?",
        )
    if task.state is TaskState.REJECTED:
        return CannotStart(f"its node refused it: {task.error}", cause=EndCause.SITE)
    return None


def _is_one_of(error: str, parts: tuple[str, ...]) -> bool:
    return any(part in error.lower() for part in parts)
