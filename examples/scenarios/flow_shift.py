"""A prototype that learns a machine's usual flow, and alarms while the mean of ten rows is further
from it than it ever was in the rows that it learned from.
"""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

TRAINING_ROWS = 400
ROWS = 10


def off_usual(flows: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How far the mean of the ten rows before each end is from the usual flow, L/min."""
    usual = np.median(flows[:TRAINING_ROWS])
    return np.array([flows[end - ROWS : end].mean() - usual for end in ends])


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        shift = await testbed.output(
            "shift", [Signal("off", unit="L/min"), Signal("alarm", Dtype.BOOL)]
        )
        flows = np.empty(0)
        async for batch in rig:
            flow = batch["Volume Flow RateRMS"]
            before, flows = len(flows), np.append(flows, flow.values)
            ends = np.arange(max(before, TRAINING_ROWS), len(flows)) + 1
            if len(ends):
                limit = np.abs(off_usual(flows, np.arange(ROWS, TRAINING_ROWS + 1))).max()
                off = off_usual(flows, ends)
                times = flow.time_ns[ends - 1 - before]
                await shift.publish(times, {"off": off, "alarm": np.abs(off) > limit})


run(main())
