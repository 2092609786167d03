"""The simulated machines of an order."""

from broker.deployments.source import SimulatedInput, SimulatedOrder
from broker.namespace import EquipmentKind
from simulators import catalogue
from simulators.faults import Fault
from simulators.stepped import SteppedModel
from testbed.deployment_source.inputs import PlayedInput, PlayedInputs


def inputs_of(order: SimulatedOrder) -> PlayedInputs:
    """The machines of an order; raises Invalid for one that its model cannot be."""
    machines = {name: machine(each) for name, each in order.inputs.items()}
    played = [
        PlayedInput(name=name, signals=each.signals, rows=each.rows)
        for name, each in machines.items()
    ]
    return PlayedInputs(inputs=played, kind=EquipmentKind.SIMULATED)


def machine(order: SimulatedInput) -> SteppedModel:
    """The model of an input, endless; raises Invalid for whatever it does not have or cannot be."""
    return catalogue.model(order.simulator).make(
        seed=order.seed,
        period_s=order.period_s,
        parameters=order.parameters,
        faults=[Fault(each.kind, each.from_s, each.to_s, each.severity) for each in order.faults],
        inputs=order.settings,
        fault_every_s=order.fault_every_s,
    )
