"""The mapping file of the demo's machine."""

import yaml

from testbed.demo.plan import RIG, DemoPlan
from testbed.simulator import machine

FILE = "mapping.yaml"
PUBLISHING_S = 0.2


def text(url: str, plan: DemoPlan) -> str:
    """The mapping (YAML) of the simulated machine at an OPC UA URL; the plan must have a speed."""
    name = machine.object_of(plan.signals)
    signals = {
        signal.name: {
            "node": f"nsu=urn:connected-testbed:simulators;s={name}.{signal.name}",
            "unit": signal.unit,
            "low": signal.low,
            "high": signal.high,
            "resolution": signal.resolution,
            "description": signal.description,
        }
        for signal in plan.signals
    }
    stream = {
        "trigger": "timestamp",
        "period_s": plan.period_s / (plan.speed or 1.0),
        "publishing_interval_s": PUBLISHING_S,
        "signals": signals,
    }
    return yaml.safe_dump(
        {
            "organisation": RIG.organisation,
            "equipment": RIG.equipment,
            "name": "Pump rig of the demo",
            "kind": "simulated",
            "opcua": {"url": url, "security": "none"},
            "streams": {RIG.stream: stream},
        },
        sort_keys=False,
    )
