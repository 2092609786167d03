"""The end of a program in words: from what its product says of the container.  Pure."""

import signal as signals
from collections.abc import Mapping

from broker.deployments.life import DeploymentEnd, DeploymentState, EndCause
from broker.prototypes.manifest import PrototypeResources, size_text
from testbed_runner.port import CannotStart, Container

SIGNAL_BASE = 128
SIGNAL_CODES = range(SIGNAL_BASE + 1, SIGNAL_BASE + 65)
"""Exit codes that stand for a signal: SIGNAL_BASE and its number."""
COMMAND_NOT_FOUND, COMMAND_NOT_EXECUTABLE = 127, 126
_CODES: Mapping[int, str] = {
    COMMAND_NOT_FOUND: "a command that it called does not exist",
    COMMAND_NOT_EXECUTABLE: "a command that it called cannot be executed",
}
"""Exit codes that a shell gives for reasons of its own."""
_EARLY = frozenset(
    {
        DeploymentState.WAITING,
        DeploymentState.PULLING,
        DeploymentState.STARTING,
        DeploymentState.CONNECTING,
    }
)
"""The states of a program that was not let in yet."""


def of_container(
    container: Container, resources: PrototypeResources, phase: DeploymentState
) -> DeploymentEnd:
    """The end of a container that has ended by itself.

    phase: the state of its deployment until then.
    """
    if container.failure is not None:
        return of_failure(container.failure, phase)
    code = container.exit_code
    if code is None:
        return lost(phase, container.detail)
    if code == 0:
        reason = f"its program ended with exit code 0{_when(phase)}"
        return DeploymentEnd(cause=EndCause.FINISHED, phase=phase, reason=reason, exit_code=0)
    number = signal_of(code)
    cause, limit, reason = _limit_hit(container, resources) or (EndCause.FAILED, "", "")
    return DeploymentEnd(
        cause=cause,
        phase=phase,
        reason=f"{reason or _failed(code, number)}{_when(phase)}",
        exit_code=code,
        signal=number,
        limit=limit,
    )


def of_failure(failure: CannotStart, phase: DeploymentState) -> DeploymentEnd:
    """The end of a deployment whose container cannot be had or started."""
    return DeploymentEnd(cause=failure.cause, phase=phase, reason=str(failure))


def lost(phase: DeploymentState, detail: str = "") -> DeploymentEnd:
    """The end of a container that is gone, or of whose end nothing is known.

    detail: the product's word about it.
    """
    more = f" ({detail})" if detail else ""
    reason = (
        f"its program is gone from the site{more}: somebody else ended it, or the machine restarted"
    )
    return DeploymentEnd(cause=EndCause.SITE, phase=phase, reason=reason)


def signal_of(exit_code: int | None) -> int | None:
    """The number of the signal that an exit code stands for, None for another code."""
    if exit_code is None or exit_code not in SIGNAL_CODES:
        return None
    return exit_code - SIGNAL_BASE


def signal_name(number: int) -> str:
    """The name of a signal, such as SIGKILL; `signal 40` for one without a name."""
    try:
        return signals.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _limit_hit(
    container: Container, resources: PrototypeResources
) -> tuple[EndCause, str, str] | None:
    """Cause, limit and sentence of a program that failed after it hit a limit; None without one."""
    if container.killed_by_memory:
        size = size_text(resources.memory)
        return EndCause.MEMORY, f"memory {size}", f"it was killed as it used more than {size}"
    if container.hit_pids:
        sentence = f"it failed after it was refused more than {resources.pids} processes"
        return EndCause.PIDS, f"pids {resources.pids}", sentence
    if container.hit_disk:
        size = size_text(resources.disk)
        return EndCause.DISK, f"disk {size}", f"it failed after its files had filled {size}"
    return None


def _failed(code: int, number: int | None) -> str:
    if number is not None:
        return f"its program was ended by {signal_name(number)} (exit code {code})"
    more = f": {_CODES[code]}" if code in _CODES else ""
    return f"its program ended with exit code {code}{more}"


def _when(phase: DeploymentState) -> str:
    return ", before broker or API had let it in" if phase in _EARLY else ""
