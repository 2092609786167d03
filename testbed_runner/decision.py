"""The next step of a deployment at its site: from its order, its container and what was before.

Pure: `decide` is called again after each action, and whenever something may have changed.  It
never starts what runs already, and starts nothing of which it does not know that it has ended.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from broker.clock import NS_PER_S
from broker.deployments import life
from broker.deployments.life import DeploymentEnd, DeploymentState, EndCause, WantedState
from broker.prototypes.manifest import PrototypeManifest, RestartWhen
from broker.time_expressions import duration_text
from testbed_runner import endings
from testbed_runner.port import CannotStart, Container, ContainerState

FIRST_PAUSE_S = 1
LONGEST_PAUSE_S = 60
"""Pauses before a program is started again: 1, 2, 4 … 60 s."""
STABLE_NS = 600 * NS_PER_S
"""A program that ran so long has its restarts counted from 0 again."""
_BEFORE_START = frozenset(
    {DeploymentState.WAITING, DeploymentState.PULLING, DeploymentState.STARTING}
)


class RunnerAction(StrEnum):
    """The next act of a runner for a deployment."""

    FETCH = "fetch"
    START = "start"
    STOP = "stop"
    FREEZE = "freeze"
    THAW = "thaw"
    REMOVE = "remove"
    """Remove the container, and end it before if it runs."""
    FORGET = "forget"
    """Nothing of the deployment is left here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedDeployment:
    """A deployment as the testbed wants it.

    cause, reason: why it is to stop or freeze.
    """

    wanted: WantedState
    manifest: PrototypeManifest
    cause: EndCause | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentHistory:
    """The past of a deployment at this site; all instants are ns of one steady time.

    since_ns: of its state.  phase: its last state before STOPPING.  restarts: all starts but the
    first.  failures: of these, the last ones in a row that did not run for STABLE_NS.  delays:
    tries in a row that came to no start.  next_start_ns: no start before.  live_since_ns: when its
    container was seen to run, or was thawed.  stopping: the end that its running container is
    being brought to.
    """

    state: DeploymentState = DeploymentState.WAITING
    reason: str = ""
    since_ns: int = 0
    phase: DeploymentState = DeploymentState.WAITING
    restarts: int = 0
    failures: int = 0
    delays: int = 0
    next_start_ns: int = 0
    live_since_ns: int = 0
    stopping: DeploymentEnd | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSight:
    """The present of a deployment, as its site shows it.

    container: None if there is none.  is_let_in: whether broker or API have let its program in.
    silent_ns: since its last publication, None if it has published nothing since the runner
    started.  is_log_read: whether all that an ended container printed was read.  refusal: why the
    site takes no work, empty if it does.
    """

    now_ns: int
    container: Container | None = None
    has_image: bool = False
    is_let_in: bool = False
    silent_ns: int | None = None
    is_log_read: bool = True
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A deployment has come to a state; end: of the start of its program that this follows."""

    state: DeploymentState
    reason: str
    end: DeploymentEnd | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentStep:
    """A decision: what to write down first, and what to do then."""

    history: DeploymentHistory
    action: RunnerAction | None = None
    changes: tuple[StateChange, ...] = ()


def decide(
    order: WantedDeployment | None, history: DeploymentHistory, sight: ContainerSight
) -> DeploymentStep:
    """Decide on the next step of a deployment; order: None if it is not this site's any more."""
    if order is None:
        action = RunnerAction.FORGET if sight.container is None else RunnerAction.REMOVE
        return DeploymentStep(history=history, action=action)
    if history.state is DeploymentState.ENDED:
        return DeploymentStep(history=history, action=_cleared(sight))
    if order.wanted is WantedState.STOP or history.state is DeploymentState.STOPPING:
        return _stop(order, history, sight)
    if sight.container is None:
        return _without_container(order, history, sight)
    return _BY_STATE[sight.container.state](order, history, sight)


def delayed(history: DeploymentHistory, reason: str, now_ns: int) -> DeploymentStep:
    """The step after an image or a start that failed for a reason that may pass."""
    next_start_ns = now_ns + _pause_s(history.delays) * NS_PER_S
    later = replace(history, delays=history.delays + 1, next_start_ns=next_start_ns)
    return _advanced(later, DeploymentState.WAITING, reason, now_ns)


def failed(history: DeploymentHistory, failure: CannotStart, now_ns: int) -> DeploymentStep:
    """The step after an image or a start that failed for good."""
    return _ended_for_good(history, endings.of_failure(failure, history.phase), now_ns)


def interrupted(history: DeploymentHistory, now_ns: int) -> DeploymentStep:
    """The step of a program that is ended as its runner stops; the next runner starts it again."""
    again = replace(history, restarts=history.restarts + 1, next_start_ns=0, stopping=None)
    if history.state is DeploymentState.STOPPING:
        return DeploymentStep(history=history)
    return _advanced(again, DeploymentState.WAITING, "its site was stopped", now_ns)


# --- wanted: to stop ------------------------------------------------------------------------------


def _stop(
    order: WantedDeployment, history: DeploymentHistory, sight: ContainerSight
) -> DeploymentStep:
    container = sight.container
    reason = order.reason or "it was stopped"
    if container is None or container.state is ContainerState.ENDED:
        code = None if container is None else container.exit_code
        end = DeploymentEnd(
            cause=order.cause or EndCause.STOPPED,
            phase=history.phase,
            reason=reason,
            exit_code=code,
            signal=endings.signal_of(code),
        )
        return _ended_for_good(history, end, sight.now_ns)
    step = _advanced(history, DeploymentState.STOPPING, reason, sight.now_ns)
    return replace(step, action=RunnerAction.STOP)


def _cleared(sight: ContainerSight) -> RunnerAction | None:
    """The action for the container of a deployment that has ended."""
    if sight.container is None:
        return None
    is_over = sight.container.state is ContainerState.ENDED
    return RunnerAction.REMOVE if sight.is_log_read or not is_over else None


# --- wanted: to run, or to be frozen --------------------------------------------------------------


def _without_container(
    order: WantedDeployment, history: DeploymentHistory, sight: ContainerSight
) -> DeploymentStep:
    now_ns = sight.now_ns
    if history.state not in _BEFORE_START:
        end = history.stopping or endings.lost(history.phase)
        return _after_end(order, history, end, now_ns)
    if order.wanted is WantedState.FREEZE:
        return _advanced(history, DeploymentState.WAITING, order.reason, now_ns)
    if now_ns < history.next_start_ns:
        return DeploymentStep(history=history)
    if sight.refusal:
        reason = f"its site takes no work: {sight.refusal}"
        return _advanced(history, DeploymentState.WAITING, reason, now_ns)
    if sight.has_image:
        step = _advanced(history, DeploymentState.STARTING, "its image is there", now_ns)
        return replace(step, action=RunnerAction.START)
    step = _advanced(history, DeploymentState.PULLING, "its image is being fetched", now_ns)
    return replace(step, action=RunnerAction.FETCH)


def _created(
    order: WantedDeployment, history: DeploymentHistory, sight: ContainerSight
) -> DeploymentStep:
    """The step of a container that does not run yet."""
    del order
    container = sight.container
    if container is None or history.state not in _BEFORE_START:
        return DeploymentStep(history=history)
    state = DeploymentState.PULLING if container.pulling else DeploymentState.STARTING
    return _advanced(history, state, container.detail or history.reason, sight.now_ns)


def _running(
    order: WantedDeployment, history: DeploymentHistory, sight: ContainerSight
) -> DeploymentStep:
    """The step of a container that runs."""
    if history.stopping is not None:
        return DeploymentStep(history=history, action=RunnerAction.STOP)
    if history.state in _BEFORE_START:
        live = replace(history, live_since_ns=sight.now_ns, delays=0)
        return _advanced(live, DeploymentState.CONNECTING, "its program runs", sight.now_ns)
    if order.wanted is WantedState.FREEZE:
        return DeploymentStep(history=history, action=RunnerAction.FREEZE)
    if history.state is DeploymentState.FROZEN:
        live = replace(history, live_since_ns=sight.now_ns)
        return _advanced(live, DeploymentState.CONNECTING, "the pause is over", sight.now_ns)
    return _watched(order, history, sight)


def _watched(
    order: WantedDeployment, history: DeploymentHistory, sight: ContainerSight
) -> DeploymentStep:
    """The step of a program that runs as it is wanted: whether it does so in time."""
    if sentence := _unhealthy(order, history, sight):
        end = DeploymentEnd(cause=EndCause.TIME, phase=history.phase, reason=sentence)
        ending = replace(history, stopping=end)
        return DeploymentStep(history=ending, action=RunnerAction.STOP)
    if history.state is DeploymentState.CONNECTING and sight.is_let_in:
        reason = "broker or API has let it in"
        return _advanced(history, DeploymentState.RUNNING, reason, sight.now_ns)
    return DeploymentStep(history=history)


def _frozen(
    order: WantedDeployment, history: DeploymentHistory, sight: ContainerSight
) -> DeploymentStep:
    """The step of a container that is held still."""
    if history.stopping is not None:
        return DeploymentStep(history=history, action=RunnerAction.STOP)
    if order.wanted is WantedState.RUN:
        return DeploymentStep(history=history, action=RunnerAction.THAW)
    return _advanced(history, DeploymentState.FROZEN, order.reason, sight.now_ns)


def _over(
    order: WantedDeployment, history: DeploymentHistory, sight: ContainerSight
) -> DeploymentStep:
    """The step of a container that has ended; while the deployment waits, it is the former one."""
    container = sight.container
    if container is None or history.state is DeploymentState.WAITING:
        return DeploymentStep(history=history, action=_cleared(sight))
    end = endings.of_container(container, order.manifest.resources, history.phase)
    if history.stopping is not None:
        end = replace(history.stopping, exit_code=end.exit_code, signal=end.signal)
    return _after_end(order, history, end, sight.now_ns)


_Judge = Callable[[WantedDeployment, DeploymentHistory, ContainerSight], DeploymentStep]
_BY_STATE: Mapping[ContainerState, _Judge] = {
    ContainerState.CREATED: _created,
    ContainerState.RUNNING: _running,
    ContainerState.FROZEN: _frozen,
    ContainerState.ENDED: _over,
}


# --- health, restarts, ends -----------------------------------------------------------------------


def _unhealthy(order: WantedDeployment, history: DeploymentHistory, sight: ContainerSight) -> str:
    """A sentence on the time that a running program has overstepped; empty for none."""
    health, passed_ns = order.manifest.health, sight.now_ns - history.live_since_ns
    if history.state is DeploymentState.CONNECTING:
        if sight.is_let_in or passed_ns <= health.starts_within_ns:
            return ""
        limit = duration_text(health.starts_within_ns)
        return f"neither broker nor API has let it in within {limit} (health.starts_within)"
    if health.silent_for_ns is None or not order.manifest.outputs:
        return ""
    silent_ns = passed_ns if sight.silent_ns is None else min(sight.silent_ns, passed_ns)
    if silent_ns <= health.silent_for_ns:
        return ""
    return f"it has published nothing for {duration_text(health.silent_for_ns)} (health.silent_for)"


def _after_end(
    order: WantedDeployment, history: DeploymentHistory, end: DeploymentEnd, now_ns: int
) -> DeploymentStep:
    """The step after the end of a program: a further start, or the end of its deployment."""
    policy = order.manifest.restart
    was_stable = now_ns - history.live_since_ns >= STABLE_NS and history.state not in _BEFORE_START
    failures = 0 if was_stable else history.failures
    is_wanted = end.cause is EndCause.SITE or policy.when is RestartWhen.ALWAYS
    is_wanted |= policy.when is RestartWhen.ON_FAILURE and end.cause is not EndCause.FINISHED
    if not is_wanted or end.cause in {EndCause.IMAGE, EndCause.START}:
        return _ended_for_good(history, end, now_ns)
    if failures >= policy.most:
        times = f"after {policy.most} further starts" if policy.most else "as restart.most is 0"
        given_up = replace(end, reason=f"{end.reason}; it was given up {times}")
        return _ended_for_good(history, given_up, now_ns)
    pause_s = _pause_s(failures)
    again = replace(
        history,
        restarts=history.restarts + 1,
        failures=failures + 1,
        next_start_ns=now_ns + pause_s * NS_PER_S,
        stopping=None,
    )
    reason = f"{end.reason}; start {failures + 1} of {policy.most} more follows in {pause_s} s"
    return _advanced(again, DeploymentState.WAITING, reason, now_ns, end=end)


def _pause_s(failures: int) -> int:
    """The pause before the next start after so many failures in a row."""
    return min(FIRST_PAUSE_S << min(failures, 10), LONGEST_PAUSE_S)


def _ended_for_good(history: DeploymentHistory, end: DeploymentEnd, now_ns: int) -> DeploymentStep:
    over = replace(history, stopping=None)
    return _advanced(over, DeploymentState.ENDED, end.reason, now_ns, end=end)


def _advanced(
    history: DeploymentHistory,
    state: DeploymentState,
    reason: str,
    now_ns: int,
    *,
    end: DeploymentEnd | None = None,
) -> DeploymentStep:
    """The step to a state, by the states between: each is a change, and so is another reason."""
    states = life.way(history.state, state)
    if not states:
        if reason == history.reason:
            return DeploymentStep(history=history)
        states = [state]
    *between, last = states
    changes = [StateChange(state=each, reason=reason) for each in between]
    changes.append(StateChange(state=last, reason=reason, end=end))
    later = replace(
        history,
        state=state,
        reason=reason,
        since_ns=now_ns if state is not history.state else history.since_ns,
        phase=history.phase if state is DeploymentState.STOPPING else state,
    )
    return DeploymentStep(history=later, changes=tuple(changes))
