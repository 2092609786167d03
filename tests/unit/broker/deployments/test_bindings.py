"""The streams behind the names of a prototype in each stage."""

import pytest

from broker.deployments import bindings
from broker.deployments.life import DeploymentStage
from broker.errors import Invalid
from broker.namespace import StreamAddress


def test_a_live_deployment_reads_the_streams_of_its_manifest():
    inputs = {"rig": StreamAddress.parse("factory/pump-rig/rig")}
    bound = bindings.bound_inputs("company", "watch", DeploymentStage.LIVE, inputs)
    assert bound == inputs
    assert bindings.space_of(DeploymentStage.LIVE, 12) == "live"


def test_played_inputs_are_streams_of_the_organisation_that_no_machine_has():
    inputs = {"rig": StreamAddress.parse("factory/pump-rig/rig")}
    bound = bindings.bound_inputs("company", "watch", DeploymentStage.SIMULATED, inputs)
    assert str(bound["rig"]) == "company/watch-simulated/rig"
    assert bindings.space_of(DeploymentStage.SIMULATED, 12) == "run-deployment-12"


def test_outputs_are_of_the_prototype_in_the_live_stage_and_of_its_trials_else():
    addresses = [
        str(bindings.bound_outputs("company", "watch", stage, ["score"])["score"])
        for stage in DeploymentStage
    ]
    trial = "company/watch-run/score"
    assert addresses == [trial, trial, "company/watch/score"]


@pytest.mark.parametrize("name", ["a-simulated", "a-recorded", "a-live", "a-run"])
def test_a_name_that_trials_take_for_their_streams_is_no_prototypes(name):
    bindings.check_prototype("a-runner")
    with pytest.raises(Invalid, match=name):
        bindings.check_prototype(name)


def test_the_longest_names_have_an_equipment_of_their_own_each():
    names = ["a" * 39 + last for last in "bc"]
    inputs = {"rig": StreamAddress.parse("factory/pump-rig/rig")}
    played = [
        bindings.bound_inputs("company", name, DeploymentStage.SIMULATED, inputs)["rig"]
        for name in names
    ]
    assert len(set(played)) == len(names)
