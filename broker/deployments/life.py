"""The life of a deployment: its stages, its states, and why it ended.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from broker.errors import Refused


class DeploymentStage(StrEnum):
    """Where the data of a deployment come from."""

    SIMULATED = "simulated"
    """Simulated machines, which a run of its own plays."""
    RECORDED = "recorded"
    """A recording, which a run of its own replays."""
    LIVE = "live"
    """The equipment itself."""


class WantedState(StrEnum):
    """The state in which a runner is to bring a deployment."""

    RUN = "run"
    FREEZE = "freeze"
    """Hold it still: the owner of one of its inputs has paused the grant."""
    STOP = "stop"


class DeploymentState(StrEnum):
    """The state of a deployment."""

    WAITING = "waiting"
    """For a site with room, its former deployment, its own restart; the reason says which."""
    PULLING = "pulling"
    """Its image is brought to the site."""
    STARTING = "starting"
    """Its container is made and started."""
    CONNECTING = "connecting"
    """Its program runs, and neither broker nor API has let it in yet."""
    RUNNING = "running"
    FROZEN = "frozen"
    """Held still, because a grant is paused."""
    STOPPING = "stopping"
    ENDED = "ended"


class EndCause(StrEnum):
    """Why a deployment ended."""

    STOPPED = "stopped"
    """Somebody asked for it."""
    FINISHED = "finished"
    """Its program ended with exit code 0."""
    FAILED = "failed"
    """Its program ended with another exit code, or was ended by a signal of its own."""
    MEMORY = "memory"
    PIDS = "pids"
    DISK = "disk"
    """Its program failed after it had reached this limit."""
    TIME = "time"
    """It was not let in within `starts_within`, or was silent for `silent_for`."""
    IMAGE = "image"
    """Its image could not be had, or does not fit the site."""
    START = "start"
    """Its command could not be started."""
    GRANT = "grant"
    """A grant of one of its inputs ended."""
    REPLACED = "replaced"
    """A newer deployment of the same prototype took its place in the stage."""
    SITE = "site"
    """Its site was locked out, or the engine there failed."""


LIFE: Mapping[DeploymentState, frozenset[DeploymentState]] = {
    DeploymentState.WAITING: frozenset(
        {DeploymentState.PULLING, DeploymentState.STARTING, DeploymentState.ENDED}
    ),
    DeploymentState.PULLING: frozenset(
        {DeploymentState.WAITING, DeploymentState.STARTING, DeploymentState.ENDED}
    ),
    DeploymentState.STARTING: frozenset(
        {
            DeploymentState.WAITING,
            DeploymentState.PULLING,
            DeploymentState.CONNECTING,
            DeploymentState.STOPPING,
            DeploymentState.ENDED,
        }
    ),
    DeploymentState.CONNECTING: frozenset(
        {
            DeploymentState.WAITING,
            DeploymentState.RUNNING,
            DeploymentState.FROZEN,
            DeploymentState.STOPPING,
            DeploymentState.ENDED,
        }
    ),
    DeploymentState.RUNNING: frozenset(
        {
            DeploymentState.WAITING,
            DeploymentState.FROZEN,
            DeploymentState.STOPPING,
            DeploymentState.ENDED,
        }
    ),
    DeploymentState.FROZEN: frozenset(
        {
            DeploymentState.WAITING,
            DeploymentState.CONNECTING,
            DeploymentState.RUNNING,
            DeploymentState.STOPPING,
            DeploymentState.ENDED,
        }
    ),
    DeploymentState.STOPPING: frozenset({DeploymentState.ENDED}),
    DeploymentState.ENDED: frozenset(),
}
"""The states that may follow each state.  A runner that finds a container again goes on with it.

STARTING may lead to PULLING: some products are given the start first, and fetch the image then.
"""


def check_step(before: DeploymentState, after: DeploymentState) -> None:
    """Raise Refused if a deployment cannot go from one state to another."""
    if after is not before and after not in LIFE[before]:
        raise Refused(f"a deployment that is {before} does not become {after}")


def way(before: DeploymentState, after: DeploymentState) -> list[DeploymentState]:
    """The shortest way from a state to another, without the first; empty if they are the same.

    Raises Refused if there is none.
    """
    ways = [[before]]
    for steps in ways:  # grows meanwhile: breadth first
        if steps[-1] is after:
            return steps[1:]
        ways += [[*steps, state] for state in sorted(LIFE[steps[-1]]) if state not in steps]
    raise Refused(f"a deployment that is {before} does not become {after}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentEnd:
    """The end of a deployment, or of one start of it.

    phase: what it did when it ended.  exit_code, signal: of its program, None where it had none.
    limit: the limit that was hit, as text such as `memory 256 MiB`; empty for none.  reason: a
    sentence.
    """

    cause: EndCause
    phase: DeploymentState
    reason: str
    exit_code: int | None = None
    signal: int | None = None
    limit: str = ""
