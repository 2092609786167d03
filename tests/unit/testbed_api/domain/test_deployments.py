"""Deployments: the streams behind their names, the names of their machines, what is reported."""

from dataclasses import replace

import pytest

from broker import namespace
from broker.deployments.life import (
    DeploymentEnd,
    DeploymentStage,
    DeploymentState,
    EndCause,
    WantedState,
)
from broker.errors import Invalid
from broker.namespace import StreamAddress
from testbed_api.domain import deployments, organisations
from testbed_api.domain.deployments import Deployment, DeploymentEvent, NamedStreams, PinnedImage

RIG = StreamAddress("factory", "rig", "s")
SECOND = StreamAddress("other", "rig", "s")
END = DeploymentEnd(cause=EndCause.FAILED, phase=DeploymentState.RUNNING, reason="exit code 1")
WATCH = Deployment(
    organisation="firm",
    prototype="watch",
    stage=DeploymentStage.LIVE,
    space="live",
    manifest={},
    inputs={"rig": RIG},
    outputs={},
    cpu=0.5,
    memory_bytes=1,
    log_bytes=1,
    image_name="watch.tar",
    image=PinnedImage(digest="sha256:a", name="watch", kind="archive"),
    deployed_ns=1,
    deployed_by="dora",
    principal="watch-1",
    since_ns=1,
    id=1,
)


def bound(inputs, space, prototype="watch"):
    streams = NamedStreams(prototype=prototype, inputs=inputs, outputs=["score"])
    return streams.bound("firm", space)


def test_live_names_stand_for_what_the_manifest_says():
    live = bound({"rig": RIG, "two": SECOND}, "live")
    assert live.inputs == {"rig": RIG, "two": SECOND}
    assert {str(entry.address) for entry in live.scope.writes} == {"firm/watch/score"}
    assert {entry.address for entry in live.scope.reads} == {RIG, SECOND}


def test_in_a_run_the_inputs_are_streams_of_the_organisation_in_its_space():
    run = bound({"rig": RIG, "more": StreamAddress("factory", "rig", "more")}, "run-x")
    assert run.inputs == {
        "rig": StreamAddress("firm", "rig", "s"),
        "more": StreamAddress("firm", "rig", "more"),
    }
    assert {entry.space for entry in run.scope.reads | run.scope.writes} == {"run-x"}
    assert run.source_scope.writes == run.scope.reads
    assert not run.source_scope.reads


def test_equipment_of_the_same_name_is_told_apart_by_its_owner():
    run = bound({"one": RIG, "two": SECOND}, "run-x")
    assert {str(each) for each in run.inputs.values()} == {
        "firm/factory-rig/s",
        "firm/other-rig/s",
    }
    own = bound({"one": StreamAddress("factory", "watch", "score")}, "run-x")
    assert str(own.inputs["one"]) == "firm/factory-watch/score"
    alike = {each: StreamAddress(each, "x" * 40, "s") for each in ("a", "b")}
    with pytest.raises(Invalid, match="is not an id"):
        bound(alike, "run-x")


@pytest.mark.parametrize(
    ("prototype", "number", "more", "name"),
    [
        ("watch", 12, "", "watch-12"),
        ("watch", 12, "-2", "watch-12-2"),
        ("a--b", 3, "", "a-b-3"),
        ("testbed-watch", 3, "", "p-testbed-watch-3"),
        ("x" * 40, 2**53 - 1, "-2", f"{'x' * 14}-9007199254740991-2"),
        (f"{'x' * 13}-{'y' * 26}", 2**53 - 1, "-2", f"{'x' * 13}-9007199254740991-2"),
        ("testbed-" + "x" * 32, 7, "", f"p-testbed-{'x' * 21}-7"),
    ],
)
def test_a_machine_is_named_after_prototype_and_number_as_far_as_that_fits(
    prototype, number, more, name
):
    machine = deployments.machine_name(prototype, number, more=more)
    assert machine == name
    for each in (machine, deployments.source_name(machine)):
        assert organisations.checked_principal(each) == each


def test_the_space_of_a_stage_before_live_is_one_of_its_own():
    assert deployments.space_of(DeploymentStage.LIVE, 7) == "live"
    for stage in (DeploymentStage.SIMULATED, DeploymentStage.RECORDED):
        space = deployments.space_of(stage, 2**53 - 1)
        assert namespace.checked_space(space) == space


def event(number, state, **more):
    return DeploymentEvent(number, number * 10, state, **more)


def test_events_count_once_and_in_their_order():
    events = [event(2, DeploymentState.CONNECTING), event(1, DeploymentState.STARTING)]
    after, new, faults = WATCH.reported(events)
    assert (after.state, after.since_ns, after.last_event) == (DeploymentState.CONNECTING, 20, 2)
    assert [each.number for each in new] == [1, 2]
    again, nothing, _ = after.reported(events)
    assert (again, nothing, faults) == (after, [], [])


def test_a_state_that_goes_on_keeps_its_beginning_and_gets_the_new_reason():
    waiting, _, _ = WATCH.reported([event(1, DeploymentState.WAITING, reason="starts again")])
    assert (waiting.since_ns, waiting.reason) == (1, "starts again")


def test_a_step_that_cannot_be_is_a_fault_and_counts_as_reported():
    after, new, faults = WATCH.reported(
        [event(1, DeploymentState.FROZEN), event(2, DeploymentState.STARTING)]
    )
    assert faults == ["a deployment that is waiting does not become frozen"]
    assert (after.state, after.last_event) == (DeploymentState.STARTING, 2)
    assert [each.number for each in new] == [2]


def test_the_end_of_a_start_is_a_restart_and_not_the_end():
    running = replace(WATCH, state=DeploymentState.RUNNING)
    again, _, _ = running.reported([event(1, DeploymentState.WAITING, end=END)])
    assert (again.restarts, again.last_end, again.end, again.ended_ns) == (1, END, None, None)
    over, _, _ = again.reported([event(2, DeploymentState.ENDED, end=END)])
    assert (over.restarts, over.end, over.ended_ns, over.is_over) == (1, END, 20, True)
    assert over.reported([event(3, DeploymentState.STARTING)])[0].state is DeploymentState.ENDED


def test_an_end_without_its_cause_has_the_one_for_which_it_was_stopped():
    stopped = WATCH.stopped(EndCause.GRANT, "the grant ended")
    assert stopped.stopped(EndCause.STOPPED, "later") == stopped
    assert stopped.wanted is WantedState.STOP
    over, (ended,), _ = stopped.reported([event(1, DeploymentState.ENDED, reason="gone")])
    assert over.end == ended.end
    assert (over.end.cause, over.end.phase) == (EndCause.GRANT, DeploymentState.WAITING)
    assert WATCH.reported([event(1, DeploymentState.ENDED)])[0].end.cause is EndCause.SITE
