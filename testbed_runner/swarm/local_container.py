"""Facts about a container that its own node knows, and its swarm does not.  Pure.

Source: Docker Engine API 1.41, `ContainerInspect` and `ContainerStats`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from broker.clock import NS_PER_S, ns_of
from broker.deployments.life import EndCause
from testbed_runner.port import CannotStart, Container, ContainerState, Usage

_STATES: Mapping[str, ContainerState] = {
    "created": ContainerState.CREATED,
    "restarting": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "paused": ContainerState.FROZEN,
    "removing": ContainerState.ENDED,
    "exited": ContainerState.ENDED,
    "dead": ContainerState.ENDED,
}
NOT_STARTED = frozenset({126, 127})
"""Exit codes of a container's init where it could not start the command, as of shells."""
_INIT = b"[FATAL tini"
_NEVER = "0001-01-01T00:00:00Z"


def refined(container: Container, document: Mapping[str, Any]) -> Container:
    """A container as its task says it, with what the engine of its node knows.

    The engine is ahead of the swarm, but not where the task has ended.
    """
    state = document["State"]
    started = state["StartedAt"]
    now = _STATES[state["Status"]]
    if container.state is ContainerState.ENDED or started == _NEVER:
        now = container.state
    has_ended = now is ContainerState.ENDED
    return replace(
        container,
        state=now,
        started_ns=None if started == _NEVER else ns_of(started),
        exit_code=state["ExitCode"] if has_ended and started != _NEVER else None,
        killed_by_memory=bool(state.get("OOMKilled")),
    )


def failure_of_start(last_line: bytes) -> CannotStart | None:
    """The failure of a command that init could not start, by the last line of the log."""
    if not last_line.startswith(_INIT):
        return None
    reason = last_line.decode(errors="replace").partition("] ")[2].strip()
    return CannotStart(
        f"its command could not be started: {reason}",
        cause=EndCause.START,
        hint="is the command of its manifest in the image, and executable?",
    )


def usage(document: Mapping[str, Any]) -> Usage | None:
    """The use of a container; None if it has just ended."""
    memory = document.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    details = memory.get("stats") or {}
    cache = details.get("total_inactive_file", details.get("inactive_file", 0))
    return Usage(
        cpu_s=document["cpu_stats"]["cpu_usage"]["total_usage"] / NS_PER_S,
        memory_bytes=max(memory["usage"] - cache, 0),
        pids=(document.get("pids_stats") or {}).get("current", 0),
    )
