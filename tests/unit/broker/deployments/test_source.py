"""Orders of what plays the inputs of a deployment: what is refused, and which streams they play."""

import pytest

from broker.deployments import source
from broker.deployments.life import DeploymentStage
from broker.errors import Invalid

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
