"""Orders of what plays the inputs of a deployment: what is refused, and which streams they play."""

import pytest

from broker.deployments import source
from broker.deployments.life import DeploymentStage
from broker.errors import Invalid
from broker.namespace import StreamAddress

RIG = {"simulator": "pump-rig", "parameters": {"shut_opening": 0.7}, "seed": 3}
SIMULATED = {"kind": "simulated", "inputs": {"rig": RIG}}
RECORDED = {"kind": "recorded", "recording": 12, "streams": {"rig": "factory/pump-rig/rig"}}


def test_an_order_is_the_same_after_it_was_written_as_json():
    for fields in (SIMULATED, RECORDED):
        order = source.from_document(fields)
        assert source.from_document(order.model_dump(mode="json")) == order


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "kind"),
        ({"kind": "live"}, "simulated"),
        (SIMULATED | {"speed": 0}, "speed"),
        (SIMULATED | {"inputs": {"rig": RIG | {"simulater": "x"}}}, "simulater: it is not known"),
        (SIMULATED | {"inputs": {"rig": RIG | {"seed": -1}}}, "seed"),
        (RECORDED | {"recording": 0}, "recording"),
        (RECORDED | {"streams": {"rig": "pump-rig"}}, "rig"),
        ([], "source"),
    ],
)
def test_an_order_that_is_none_is_refused_with_a_sentence(fields, words):
    with pytest.raises(Invalid, match=words):
        source.from_document(fields)


@pytest.mark.parametrize(
    ("fields", "stage", "inputs", "words"),
    [
        (SIMULATED, "live", ["rig"], "reads the equipment itself"),
        (SIMULATED, "recorded", ["rig"], "does not play a recorded deployment"),
        (RECORDED, "recorded", ["rig", "press"], "plays the input 'press'"),
        (RECORDED, "recorded", [], "has no input 'rig'"),
        (None, "simulated", ["rig"], "nothing plays its inputs: rig"),
    ],
)
def test_an_order_that_does_not_fit_its_deployment_is_refused(fields, stage, inputs, words):
    order = None if fields is None else source.from_document(fields)
    with pytest.raises(Invalid, match=words):
        source.check(order, DeploymentStage(stage), inputs)


def test_orders_that_fit_are_right():
    source.check(source.from_document(SIMULATED), DeploymentStage.SIMULATED, ["rig"])
    source.check(source.from_document(RECORDED), DeploymentStage.RECORDED, ["rig"])
    source.check(None, DeploymentStage.LIVE, ["rig"])
    source.check(None, DeploymentStage.SIMULATED, [])


def test_a_live_deployment_reads_the_streams_of_its_manifest():
    inputs = {"rig": StreamAddress.parse("factory/pump-rig/rig")}
    bound = source.bound_inputs("company", "watch", DeploymentStage.LIVE, inputs)
    assert bound == inputs
    assert source.space_of(DeploymentStage.LIVE, 12) == "live"


def test_played_inputs_are_streams_of_the_organisation_that_no_machine_has():
    inputs = {"rig": StreamAddress.parse("factory/pump-rig/rig")}
    bound = source.bound_inputs("company", "watch", DeploymentStage.SIMULATED, inputs)
    assert str(bound["rig"]) == "company/watch-simulated/rig"
    assert source.space_of(DeploymentStage.SIMULATED, 12) == "run-deployment-12"


def test_outputs_are_of_the_prototype_in_the_live_stage_and_of_its_trials_else():
    addresses = [
        str(source.bound_outputs("company", "watch", stage, ["score"])["score"])
        for stage in DeploymentStage
    ]
    trial = "company/watch-run/score"
    assert addresses == [trial, trial, "company/watch/score"]


@pytest.mark.parametrize("name", ["a-simulated", "a-recorded", "a-live", "a-run"])
def test_a_name_that_trials_take_for_their_streams_is_no_prototypes(name):
    source.check_prototype("a-runner")
    with pytest.raises(Invalid, match=name):
        source.check_prototype(name)


def test_the_longest_names_have_an_equipment_of_their_own_each():
    names = ["a" * 39 + last for last in "bc"]
    inputs = {"rig": StreamAddress.parse("factory/pump-rig/rig")}
    played = [
        source.bound_inputs("company", name, DeploymentStage.SIMULATED, inputs)["rig"]
        for name in names
    ]
    assert len(set(played)) == len(names)
