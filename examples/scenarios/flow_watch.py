"""A prototype that alarms while the mean flow of the last rows is low."""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

ROWS = 5
LOW_L_MIN = 29.0


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        alarm = await testbed.output(
            "alarm", [Signal("flow", unit="L/min"), Signal("low", Dtype.BOOL)]
        )
        last = np.empty(0)
        async for batch in rig:
            flow = batch["Volume Flow RateRMS"]
            values = np.append(last, flow.values)
            means = [
                values[max(0, end - ROWS) : end].mean()
                for end in range(len(last) + 1, len(values) + 1)
            ]
            await alarm.publish(flow.time_ns, {"flow": means, "low": np.less(means, LOW_L_MIN)})
            last = values[-(ROWS - 1) :]


run(main())
