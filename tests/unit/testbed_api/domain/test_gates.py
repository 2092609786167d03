"""What a stage asks of a prototype: each gate closed by one fact, and opened by another."""

from dataclasses import replace

import pytest

from broker.clock import NS_PER_S
from broker.deployments.life import DeploymentEnd, DeploymentStage, DeploymentState, EndCause
from broker.namespace import StreamAddress
from testbed_api.domain import gates
from testbed_api.domain.deployments import (
    Deployment,
    DeploymentEvent,
    DeploymentMetrics,
    PinnedImage,
)
from testbed_api.domain.gates import GateFacts, GateName, PassedRun, TriedDeployment

DIGEST = f"sha256:{'a' * 64}"
IMAGE = PinnedImage(digest=DIGEST, name="watch.tar", kind="archive", pushed_by="cora")
SIMULATED, RECORDED, LIVE = DeploymentStage
NOW_NS = 1_000 * NS_PER_S
METRICS = DeploymentMetrics(
    at_ns=0,
    cpu_s=1.0,
    memory_bytes=1,
    pids=1,
    messages_in=5,
    messages_out=5,
    bytes_in=1,
    bytes_out=1,
    lag_s=None,
    restarts=0,
)
DEPLOYMENT = Deployment(
    organisation="company",
    prototype="watch",
    stage=SIMULATED,
    space="run-1",
    manifest={},
    inputs={},
    outputs={"score": StreamAddress("company", "watch", "score")},
    cpu=0.5,
    memory_bytes=1,
    log_bytes=1,
    image_name="watch.tar",
    image=IMAGE,
    deployed_ns=0,
    deployed_by="cora",
    metrics=METRICS,
    id=11,
)
FACTS = GateFacts(digest=DIGEST, image=IMAGE, now_ns=NOW_NS)
PASSED = replace(FACTS, run=PassedRun(7, 0), inputs=("factory/pump-rig/rig",))


def ran(*moments: tuple[int, DeploymentState], **changes: object) -> TriedDeployment:
    """A deployment with its states at some seconds."""
    events = [
        DeploymentEvent(number, at_s * NS_PER_S, state)
        for number, (at_s, state) in enumerate(moments, 1)
    ]
    return TriedDeployment(replace(DEPLOYMENT, **changes), events)


LONG = ((900, DeploymentState.RUNNING),)


def closed(stage: DeploymentStage, facts: GateFacts) -> dict[GateName, str]:
    return {each.name: each.sentence for each in gates.decide(stage, facts) if not each.is_open}


@pytest.mark.parametrize("stage", DeploymentStage)
def test_all_is_open_where_nothing_is_missing(stage):
    decided = gates.decide(stage, PASSED)
    assert all(each.is_open and not each.todo and each.sentence for each in decided)


@pytest.mark.parametrize("stage", DeploymentStage)
@pytest.mark.parametrize(
    ("facts", "name", "sentence"),
    [
        ({"image": None}, GateName.IMAGE, "does not hold sha256:"),
        ({"over_quota": "more than 10 deployments"}, GateName.QUOTA, "more than 10"),
        ({"no_secrets": ["A", "B"]}, GateName.SECRETS, "not set: A, B"),
    ],
)
def test_what_each_stage_asks_for(stage, facts, name, sentence):
    wrong = closed(stage, replace(PASSED, **facts))
    assert set(wrong) == {name}
    assert sentence in wrong[name]


def test_a_gate_that_is_closed_says_what_opens_it():
    facts = GateFacts(
        digest=DIGEST,
        image=None,
        now_ns=NOW_NS,
        over_quota="full",
        source="it is gone",
        no_secrets=["A"],
        not_granted=["factory/pump-rig/rig"],
    )
    for stage in DeploymentStage:
        shut = [each for each in gates.decide(stage, facts) if not each.is_open]
        assert shut
        assert all(each.todo for each in shut)


def test_the_first_stage_needs_no_trial_and_the_others_do():
    assert closed(SIMULATED, FACTS) == {}
    for stage, before in ((RECORDED, SIMULATED), (LIVE, RECORDED)):
        (sentence,) = closed(stage, FACTS).values()
        assert sentence == f"no run of this image passed, and none was tried in the {before} stage"


@pytest.mark.parametrize(
    ("tried", "flaw"),
    [
        (ran(*LONG), ""),
        (ran((900, DeploymentState.RUNNING), (930, DeploymentState.FROZEN)), "it ran 30 s"),
        (
            ran(
                (100, DeploymentState.RUNNING),
                (140, DeploymentState.FROZEN),
                (500, DeploymentState.RUNNING),
                (521, DeploymentState.ENDED),
            ),
            "",
        ),
        (ran((941, DeploymentState.RUNNING)), "it ran 59 s, and 60 s are needed"),
        (ran((100, DeploymentState.CONNECTING)), "it ran 0 s"),
        (ran(*LONG, restarts=1), "started again 1 times"),
        (ran(*LONG, metrics=None), "published nothing"),
        (ran(*LONG, metrics=replace(METRICS, messages_out=0)), "published nothing"),
        (ran(*LONG, metrics=None, outputs={}), ""),
    ],
)
def test_a_deployment_counts_if_it_ran_for_a_minute_and_published(tried, flaw):
    facts = replace(FACTS, tried=[tried])
    wrong = closed(RECORDED, facts)
    assert (GateName.TRIAL in wrong) is bool(flaw)
    assert flaw in wrong.get(GateName.TRIAL, "")


@pytest.mark.parametrize("cause", EndCause)
def test_a_deployment_that_failed_does_not_count(cause):
    end = DeploymentEnd(cause=cause, phase=DeploymentState.RUNNING, reason="it was full")
    tried = ran(*LONG, (999, DeploymentState.ENDED), last_end=end)
    harmless = {EndCause.STOPPED, EndCause.FINISHED, EndCause.REPLACED, EndCause.SITE}
    assert (not tried.flaw(NOW_NS)) is (cause in harmless)


def test_one_good_trial_is_enough_and_the_newest_flaw_is_told():
    bad, good = ran(*LONG, restarts=2), ran(*LONG, id=9)
    assert closed(LIVE, replace(FACTS, tried=[bad, good])) == {}
    (sentence,) = closed(LIVE, replace(FACTS, tried=[bad])).values()
    assert "deployment 11 of this image in the recorded stage does not count" in sentence


def test_a_source_is_asked_for_where_something_is_played_and_grants_where_it_is_live():
    facts = replace(PASSED, source="recording 3 was deleted", not_granted=["a/b/c"])
    assert set(closed(SIMULATED, facts)) == set(closed(RECORDED, facts)) == {GateName.SOURCE}
    assert closed(LIVE, facts) == {GateName.GRANTS: "not granted: a/b/c"}


def test_a_site_without_room_closes_nothing_and_is_told():
    decided = gates.decide(LIVE, replace(PASSED, site="site-1 lacks the label gpu"))
    (site,) = [each for each in decided if each.name is GateName.SITE]
    assert (site.is_open, site.sentence) == (True, "it will wait: site-1 lacks the label gpu")


def test_stages_follow_one_another():
    assert gates.stage_after(SIMULATED) is RECORDED
    assert gates.stage_after(RECORDED) is LIVE
    assert gates.stage_after(LIVE) is None
    assert gates.stage_before(LIVE) is RECORDED
