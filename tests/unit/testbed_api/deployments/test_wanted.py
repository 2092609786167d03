"""The state in which a deployment is wanted follows what people want and what its grants allow."""

from dataclasses import replace

import pytest

from broker.deployments.life import DeploymentStage, EndCause, WantedState
from broker.namespace import StreamAddress
from broker.rights import Entry, Grant, Party, Pause, Principal, PrincipalKind, Rights, Scope, Span
from testbed_api.deployments import wanted
from testbed_api.deployments.wanted import WantedNow
from testbed_api.domain.deployments import Deployment, PinnedImage

RIG, MILL = StreamAddress("factory", "rig", "s"), StreamAddress("mine", "mill", "s")
OWN = StreamAddress("firm", "line", "s")
NOW_NS = 50
PAUSE = Pause("factory", span=Span(40))


def deployment(*inputs):
    return Deployment(
        organisation="firm",
        prototype="watch",
        stage=DeploymentStage.LIVE,
        space="live",
        manifest={},
        inputs={address.equipment: address for address in inputs},
        outputs={},
        cpu=0.5,
        memory_bytes=1,
        log_bytes=1,
        image_name="watch.tar",
        image=PinnedImage(digest="sha256:a", name="watch", kind="archive"),
        deployed_ns=1,
        deployed_by="dora",
        principal="watch-1",
    )


def rights(*grants, pauses=(), span=None):
    reads = frozenset(Entry("live", each) for each in (RIG, MILL, OWN))
    machine = Principal("watch-1", "firm", PrincipalKind.MACHINE, scope=Scope(reads))
    return Rights(
        {"firm": Party.COMPANY},
        (replace(machine, span=span or Span()),),
        tuple(
            Grant(number, "firm", Entry("live", address), Span(0, until_ns))
            for number, (address, until_ns) in enumerate(grants, 1)
        ),
        pauses,
    )


def test_it_runs_while_all_of_its_inputs_may_be_read():
    both = deployment(RIG, MILL, OWN)
    assert wanted.decide(both, rights((RIG, None), (MILL, 51)), NOW_NS) == WantedNow()
    assert wanted.decide(deployment(), rights(), NOW_NS) == WantedNow()


@pytest.mark.parametrize("until_ns", [50, 10])
def test_a_grant_that_has_ended_stops_it(until_ns):
    now = wanted.decide(deployment(RIG, MILL), rights((RIG, None), (MILL, until_ns)), NOW_NS)
    assert (now.state, now.cause) == (WantedState.STOP, EndCause.GRANT)
    assert now.reason == "the grant of input mill, mine/mill/s, has ended"


def test_a_pause_freezes_it_while_it_lasts():
    now = wanted.decide(deployment(RIG), rights((RIG, None), pauses=(PAUSE,)), NOW_NS)
    assert (now.state, now.cause) == (WantedState.FREEZE, None)
    assert now.reason == (
        "factory has paused grant 1 of input rig, factory/rig/s,"
        " since 1970-01-01T00:00:00.000000040Z"
    )
    assert wanted.decide(deployment(RIG), rights((RIG, None), pauses=(PAUSE,)), 39) == WantedNow()


def test_the_end_of_one_grant_weighs_more_than_the_pause_of_another():
    grants = rights((RIG, None), (MILL, 10), pauses=(PAUSE,))
    for inputs in ((RIG, MILL), (MILL, RIG)):
        assert wanted.decide(deployment(*inputs), grants, NOW_NS).state is WantedState.STOP


def test_what_people_want_weighs_more_than_all_of_it():
    stopped = deployment(RIG).stopped(EndCause.REPLACED, "a newer one")
    now = wanted.decide(stopped, rights((RIG, None), pauses=(PAUSE,)), NOW_NS)
    assert now == WantedNow(WantedState.STOP, EndCause.REPLACED, "a newer one")


@pytest.mark.parametrize("its", [None, rights((RIG, None), span=Span(0, 50))])
def test_one_whose_credential_was_revoked_is_to_stop(its):
    now = wanted.decide(deployment(RIG), its, NOW_NS)
    assert (now.state, now.cause) == (WantedState.STOP, EndCause.STOPPED)
    assert now.reason == "the credential of watch-1 was revoked"
