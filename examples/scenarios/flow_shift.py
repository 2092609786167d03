"""A prototype that learns a machine's usual flow, and alarms while the mean of ten rows is off."""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

TRAINING_ROWS = 400
ROWS = 10
MOST_OFF_L_MIN = 0.5


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
                usual = np.median(flows[:TRAINING_ROWS])
                off = np.array([flows[end - ROWS : end].mean() - usual for end in ends])
                times = flow.time_ns[ends - 1 - before]
                await shift.publish(times, {"off": off, "alarm": np.abs(off) > MOST_OFF_L_MIN})


run(main())
