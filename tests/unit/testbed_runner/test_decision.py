"""The next step of a deployment, for everything that may be seen of it."""

import itertools
from dataclasses import replace

import pytest

from broker.clock import NS_PER_S
from broker.deployments import life
from broker.deployments.life import DeploymentEnd, DeploymentState, EndCause, WantedState
from broker.prototypes.manifest import PrototypeManifest
from testbed_runner import decision
from testbed_runner.decision import (
    ContainerSight,
    DeploymentHistory,
    RunnerAction,
    WantedDeployment,
)
from testbed_runner.port import CannotStart, Container, ContainerState

NOW_NS = 1_800_000_000 * NS_PER_S
STATES = list(DeploymentState)
SEEN = [None, *ContainerState]


def manifest(**fields):
    document = {
        "prototype": "watch",
        "image": {"build": "."},
        "command": "python prototype.py",
        "inputs": {"rig": "factory/pump-rig/rig"},
        "outputs": {"score": {"signals": {"score": {}}}},
    }
    return PrototypeManifest.model_validate(document | fields)


def order(wanted=WantedState.RUN, **fields):
    reason = "" if wanted is WantedState.RUN else "somebody asked for it"
    return WantedDeployment(wanted=wanted, manifest=manifest(**fields), reason=reason)


def container(state, **facts):
    return None if state is None else Container(deployment=12, state=state, **facts)


def sight(state, *, later_s=0.0, code=None, **facts):
    ended = {"exit_code": 1 if code is None else code} if state is ContainerState.ENDED else {}
    return ContainerSight(
        now_ns=NOW_NS + round(later_s * NS_PER_S),
        container=container(state, **ended),
        **{"has_image": True, **facts},
    )


def history(state, **facts):
    phase = DeploymentState.RUNNING if state is DeploymentState.STOPPING else state
    facts = {"since_ns": NOW_NS, "live_since_ns": NOW_NS, "phase": phase, **facts}
    return DeploymentHistory(state=state, **facts)


def step(state, seen, *, wanted=WantedState.RUN):
    return decision.decide(order(wanted), history(state), sight(seen))


each_order = pytest.mark.parametrize("wanted", [*WantedState, None])
each_state = pytest.mark.parametrize("state", STATES)


@each_order
@each_state
def test_every_combination_leads_to_a_lawful_step(wanted, state):
    given = None if wanted is None else order(wanted)
    for seen, has_image, is_let_in, is_read in itertools.product(SEEN, *[[False, True]] * 3):
        view = sight(seen, has_image=has_image, is_let_in=is_let_in, is_log_read=is_read)
        result = decision.decide(given, history(state), view)
        at = state
        for change in result.changes:
            life.check_step(at, change.state)
            at = change.state
        assert at is result.history.state
        assert result.action is not RunnerAction.START or seen is None
        assert result.action not in {RunnerAction.STOP, RunnerAction.FREEZE} or seen is not None
        if at is DeploymentState.ENDED:
            assert result.action in {None, RunnerAction.REMOVE, RunnerAction.FORGET}


@each_order
@each_state
def test_each_order_is_carried_out_in_the_end_whatever_was_before(wanted, state):
    """A product that does at once what it is bidden comes to rest where it is wanted."""
    given = None if wanted is None else order(wanted)
    for first in SEEN:
        seen, past, image, action = first, history(state), False, None
        for later_s in range(12):
            view = sight(seen, has_image=image, is_let_in=True, later_s=later_s)
            result = decision.decide(given, past, view)
            past, action = result.history, result.action
            image = image or action is RunnerAction.FETCH
            seen = AFTER.get(action, seen)
        assert (wanted, past.state, seen) in AT_REST or action is RunnerAction.FORGET


AFTER = {
    RunnerAction.START: ContainerState.RUNNING,
    RunnerAction.STOP: ContainerState.ENDED,
    RunnerAction.FREEZE: ContainerState.FROZEN,
    RunnerAction.THAW: ContainerState.RUNNING,
    RunnerAction.REMOVE: None,
}
AT_REST = {
    (WantedState.RUN, DeploymentState.RUNNING, ContainerState.RUNNING),
    (WantedState.RUN, DeploymentState.STARTING, ContainerState.CREATED),
    (WantedState.FREEZE, DeploymentState.FROZEN, ContainerState.FROZEN),
    (WantedState.FREEZE, DeploymentState.WAITING, None),
    (WantedState.FREEZE, DeploymentState.STARTING, ContainerState.CREATED),
    *[(wanted, DeploymentState.ENDED, None) for wanted in WantedState],
    *[
        (wanted, state, ContainerState.CREATED)
        for wanted in (WantedState.RUN, WantedState.FREEZE)
        for state in (DeploymentState.CONNECTING, DeploymentState.RUNNING, DeploymentState.FROZEN)
    ],
}
"""What may stay so; a container that is being made is waited for."""


def test_an_image_is_fetched_before_the_start():
    waiting = history(DeploymentState.WAITING)
    fetched = decision.decide(order(), waiting, sight(None, has_image=False))
    assert [fetched.action, fetched.history.state] == [RunnerAction.FETCH, DeploymentState.PULLING]
    started = decision.decide(order(), fetched.history, sight(None))
    assert [started.action, started.history.state] == [RunnerAction.START, DeploymentState.STARTING]


def test_a_site_that_takes_no_work_starts_nothing_and_says_why():
    result = decision.decide(order(), history(DeploymentState.WAITING), sight(None, refusal="full"))
    assert [result.action, result.history.reason] == [None, "its site takes no work: full"]


def test_a_program_that_was_let_in_runs():
    result = decision.decide(
        order(),
        history(DeploymentState.CONNECTING),
        sight(ContainerState.RUNNING, is_let_in=True),
    )
    assert result.history.state is DeploymentState.RUNNING


def test_a_container_of_a_runner_before_is_adopted_as_it_is():
    for state in STATES[:-2]:
        result = step(state, ContainerState.RUNNING)
        assert result.action is None
        assert result.history.state not in {DeploymentState.WAITING, DeploymentState.ENDED}


@pytest.mark.parametrize(
    ("state", "fields", "view", "reason"),
    [
        (
            DeploymentState.CONNECTING,
            {"health": {"starts_within": "20s"}},
            {"later_s": 21},
            "neither broker nor API has let it in within 20s (health.starts_within)",
        ),
        (
            DeploymentState.RUNNING,
            {"health": {"silent_for": "1min"}},
            {"later_s": 100, "silent_ns": 61 * NS_PER_S},
            "it has published nothing for 1min (health.silent_for)",
        ),
        (
            DeploymentState.RUNNING,
            {"health": {"silent_for": "1min"}},
            {"later_s": 61},
            "it has published nothing for 1min (health.silent_for)",
        ),
    ],
)
def test_a_program_that_is_too_slow_is_ended_with_cause_time(state, fields, view, reason):
    given = order(**fields)
    stopped = decision.decide(given, history(state), sight(ContainerState.RUNNING, **view))
    assert [stopped.action, stopped.history.state] == [RunnerAction.STOP, state]
    over = decision.decide(given, stopped.history, sight(ContainerState.ENDED, code=143))
    end = over.changes[-1].end
    assert [end.cause, end.reason, end.exit_code] == [EndCause.TIME, reason, 143]
    assert over.history.state is DeploymentState.WAITING


@pytest.mark.parametrize(
    ("state", "fields", "view"),
    [
        (DeploymentState.CONNECTING, {}, {"later_s": 29}),
        (DeploymentState.RUNNING, {}, {"later_s": 9_000}),
        (DeploymentState.RUNNING, {"health": {"silent_for": "1min"}}, {"later_s": 59}),
        (
            DeploymentState.RUNNING,
            {"health": {"silent_for": "1min"}},
            {"later_s": 30, "silent_ns": 90 * NS_PER_S},  # it was frozen until 30 s ago
        ),
        (DeploymentState.RUNNING, {"health": {"silent_for": "1s"}, "outputs": {}}, {"later_s": 9}),
    ],
)
def test_a_program_in_time_is_left_alone(state, fields, view):
    given = order(**fields)
    result = decision.decide(given, history(state), sight(ContainerState.RUNNING, **view))
    assert result.action is None


@pytest.mark.parametrize(
    ("when", "code", "starts_again"),
    [
        ("on-failure", 0, False),
        ("on-failure", 1, True),
        ("always", 0, True),
        ("always", 1, True),
        ("never", 0, False),
        ("never", 1, False),
    ],
)
def test_the_restart_policy_is_obeyed(when, code, starts_again):
    given = order(restart={"when": when})
    view = sight(ContainerState.ENDED, code=code)
    result = decision.decide(given, history(DeploymentState.RUNNING), view)
    expected = DeploymentState.WAITING if starts_again else DeploymentState.ENDED
    assert result.history.state is expected
    assert result.changes[-1].end.cause is (EndCause.FAILED if code else EndCause.FINISHED)


def test_a_program_that_fails_again_and_again_waits_longer_and_is_given_up():
    given, past, pauses = order(restart={"most": 8}), history(DeploymentState.RUNNING), []
    while past.state is not DeploymentState.ENDED:
        running = replace(past, state=DeploymentState.RUNNING, live_since_ns=NOW_NS)
        result = decision.decide(given, running, sight(ContainerState.ENDED))
        past = result.history
        if past.state is DeploymentState.WAITING:
            pauses.append((past.next_start_ns - NOW_NS) // NS_PER_S)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert past.reason.endswith("it was given up after 8 further starts")
    assert past.restarts == 8


def test_nothing_is_started_during_the_pause_and_then_it_is():
    past = history(DeploymentState.WAITING, next_start_ns=NOW_NS + 4 * NS_PER_S)
    assert decision.decide(order(), past, sight(None, later_s=3.9)).action is None
    assert decision.decide(order(), past, sight(None, later_s=4)).action is RunnerAction.START


def test_a_program_that_ran_long_is_not_given_up_for_failures_of_long_ago():
    past = history(DeploymentState.RUNNING, failures=5, restarts=5)
    result = decision.decide(order(), past, sight(ContainerState.ENDED, later_s=601))
    assert [result.history.state, result.history.failures] == [DeploymentState.WAITING, 1]
    assert result.history.restarts == 6


def test_the_former_container_goes_before_the_next_start_but_not_before_its_log_is_read():
    waiting = history(DeploymentState.WAITING)
    unread = decision.decide(order(), waiting, sight(ContainerState.ENDED, is_log_read=False))
    assert unread.action is None
    read = decision.decide(order(), waiting, sight(ContainerState.ENDED))
    assert [read.action, read.changes] == [RunnerAction.REMOVE, ()]


def test_a_container_that_disappears_is_started_again_even_under_restart_never():
    given = order(restart={"when": "never"})
    result = decision.decide(given, history(DeploymentState.RUNNING), sight(None))
    end = result.changes[-1].end
    assert [result.history.state, end.cause] == [DeploymentState.WAITING, EndCause.SITE]


def test_a_start_that_cannot_succeed_ends_the_deployment():
    failure = CannotStart("its command is not there", cause=EndCause.START)
    result = decision.failed(history(DeploymentState.STARTING), failure, NOW_NS)
    end = result.changes[-1].end
    assert [end.cause, end.phase] == [EndCause.START, DeploymentState.STARTING]
    assert result.history.state is DeploymentState.ENDED


def test_a_start_that_may_succeed_later_waits_longer_each_time_and_counts_as_no_restart():
    past, pauses = history(DeploymentState.STARTING), []
    for _ in range(8):
        past = decision.delayed(past, "the API does not answer", NOW_NS).history
        pauses.append((past.next_start_ns - NOW_NS) // NS_PER_S)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [past.state, past.restarts, past.failures] == [DeploymentState.WAITING, 0, 0]


def test_the_end_that_was_asked_for_says_who_asked_and_in_which_phase():
    given = WantedDeployment(
        wanted=WantedState.STOP,
        manifest=manifest(),
        cause=EndCause.GRANT,
        reason="the grant of rig ended",
    )
    running = history(DeploymentState.RUNNING)
    stopping = decision.decide(given, running, sight(ContainerState.RUNNING))
    assert [stopping.action, stopping.history.state] == [
        RunnerAction.STOP,
        DeploymentState.STOPPING,
    ]
    over = decision.decide(given, stopping.history, sight(ContainerState.ENDED, code=137))
    assert over.changes[-1].end == DeploymentEnd(
        cause=EndCause.GRANT,
        phase=DeploymentState.RUNNING,
        reason="the grant of rig ended",
        exit_code=137,
        signal=9,
    )


def test_a_deployment_that_is_not_listed_any_more_leaves_nothing_behind():
    orphan = decision.decide(None, history(DeploymentState.RUNNING), sight(ContainerState.RUNNING))
    assert [orphan.action, orphan.changes] == [RunnerAction.REMOVE, ()]
    gone = decision.decide(None, history(DeploymentState.RUNNING), sight(None))
    assert gone.action is RunnerAction.FORGET
