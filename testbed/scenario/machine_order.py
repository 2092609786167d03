"""The order that the process of a machine at wall time begins with."""

import asyncio
import pickle
from dataclasses import dataclass
from pathlib import Path

from testbed.scenario.plan import RunPlan

LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class MachineOrder:
    """An equipment of a plan that a process is to serve.

    speed: seconds of the scenario in a second.  mapping: new file for the gateway's mapping.
    """

    plan: RunPlan
    name: str
    speed: float
    mapping: Path

    def encode(self) -> bytes:
        """The order as the process reads it, which begins with its length."""
        content = pickle.dumps(self)
        return len(content).to_bytes(LENGTH_BYTES, "big") + content


async def read(pipe: asyncio.StreamReader) -> MachineOrder:
    """Read an order that the process's parent, which has the same code, has encoded."""
    length = int.from_bytes(await pipe.readexactly(LENGTH_BYTES), "big")
    order = pickle.loads(await pipe.readexactly(length))  # noqa: S301 - see above
    if not isinstance(order, MachineOrder):
        raise TypeError(f"the order of a machine is a {type(order).__name__}")
    return order
