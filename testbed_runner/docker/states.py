"""States of Docker's containers, in the words of the port.  Pure."""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from broker.clock import NS_PER_S
from testbed_runner.docker.container_config import DEPLOYMENT_LABEL
from testbed_runner.port import Container, ContainerState


class DockerState(StrEnum):
    """The states that Docker has for a container."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


STATES: Mapping[DockerState, ContainerState] = {
    DockerState.CREATED: ContainerState.CREATED,
    DockerState.RUNNING: ContainerState.RUNNING,
    DockerState.PAUSED: ContainerState.FROZEN,
    DockerState.RESTARTING: ContainerState.CREATED,  # by Docker itself, which we do not ask for
    DockerState.REMOVING: ContainerState.ENDED,
    DockerState.EXITED: ContainerState.ENDED,
    DockerState.DEAD: ContainerState.ENDED,
}
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_NEVER = "0001-01-01"


def container(inspected: Mapping[str, Any]) -> Container:
    """A container as `docker inspect` shows it; what only the machine shows is added elsewhere."""
    state = inspected["State"]
    here = STATES[DockerState(state["Status"])]
    return Container(
        deployment=deployment_of(inspected),
        state=here,
        detail=str(state.get("Error") or state["Status"])[:1000],
        started_ns=time_ns(state["StartedAt"]),
        exit_code=state["ExitCode"] if here is ContainerState.ENDED and _began(state) else None,
        killed_by_memory=bool(state.get("OOMKilled")),
    )


def deployment_of(inspected: Mapping[str, Any]) -> int:
    """The number of a container's deployment."""
    return int(inspected["Config"]["Labels"][DEPLOYMENT_LABEL])


def time_ns(text: str) -> int | None:
    """A time as Docker writes it, in ns since 1970; None for its word for never."""
    match = _TIME.fullmatch(text)
    if match is None or text.startswith(_NEVER):
        return None
    seconds, fraction, zone = match.groups()
    whole_s = round(datetime.fromisoformat(f"{seconds}{zone}").timestamp())
    return whole_s * NS_PER_S + int((fraction or "0").ljust(9, "0"))


def _began(state: Mapping[str, Any]) -> bool:
    return time_ns(state["StartedAt"]) is not None
