"""Machines of a run at wall time: child processes that serve them, and their gateways."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import yaml

from broker.clock import NS_PER_S
from broker.errors import Invalid
from broker.settings import child_environment
from testbed.processes.child_process import ChildProcess, start_child
from testbed.processes.server import TESTBED
from testbed.scenario import equipment
from testbed.scenario.plan import MEASURED, RunPlan
from testbed.scenario.programs import RunAccess
from testbed_scenarios.model import CsvEquipment, ModelEquipment
from testbed_scenarios.timeline_model import ModelFault

Start = AbstractAsyncContextManager[ChildProcess]


def machine(plan: RunPlan, name: str, speed: float) -> Start:
    """Start a machine behind an OPC UA server; it plays once a gateway monitors it.

    speed: seconds of the scenario in a second.
    """
    own = ["--speed", f"{speed:g}", "--port", "0", "--json", "--wait"]
    match plan.scenario.equipment[name]:
        case ModelEquipment() as part:
            source = _model_words(plan, name, part)
        case CsvEquipment(csv=file):
            source = ["csv", str(plan.base / file), "--times", "shifted"]
        case _:
            raise Invalid(f"equipment {name} is of a kind that has no machine at wall time")
    written = ["--write", str(_first_mapping(plan, name))]
    return start_child(
        f"machine {name}",
        [*TESTBED, "simulate", *source, *own, *written],
        log=plan.folder / f"machine-{name}.log",
        environment=child_environment(os.environ),
    )


def _model_words(plan: RunPlan, name: str, part: ModelEquipment) -> list[str]:
    """The words of `testbed simulate` for a model, with its part of the timeline."""
    info_period_ns = equipment.period_ns(part)
    words = [part.model, "--seed", str(equipment.seed_of(plan, name))]
    words += ["--period", f"{info_period_ns / NS_PER_S:.6f}s"]
    words += ["--rows", str(max(2, plan.scenario.duration_ns // info_period_ns))]
    for key, amount in part.parameters.items():
        words += ["--set", f"{key}={amount.number!r}"]
    for key, value in part.inputs.items():
        words += ["--set", f"{key}={value}"]
    for entry in plan.timeline():
        if isinstance(entry, ModelFault) and entry.on == name:
            span = f"{entry.from_ns / NS_PER_S:.6f}..{entry.to_ns / NS_PER_S:.6f}"
            words += ["--fault", f"{entry.fault}@{span}x{entry.severity:.6f}"]
    return words


def _first_mapping(plan: RunPlan, name: str) -> Path:
    return plan.folder / f"machine-{name}.yaml"


def gateway(plan: RunPlan, access: RunAccess, name: str) -> Start:
    """Start the gateway of a machine that is ready."""
    document = yaml.safe_load(_first_mapping(plan, name).read_text("utf-8"))
    document |= {"organisation": plan.organisation, "equipment": name}
    document["streams"] = {MEASURED: next(iter(document["streams"].values()))}
    folder = plan.folder / f"gateway-{name}"
    folder.mkdir()
    mapping = folder / "mapping.yaml"
    mapping.write_text(yaml.safe_dump(document, sort_keys=False), "utf-8")
    environment = access.environment(gateway_of(name), plan.space)
    return start_child(
        f"gateway {name}",
        [*TESTBED, "gateway", "run", str(mapping)],
        log=folder / "gateway.log",
        environment=environment | {"TESTBED_SPOOL": str(folder / "spool")},
    )


def gateway_of(name: str) -> str:
    """The principal of the gateway of an equipment."""
    return f"{name[:32]}-gateway"
