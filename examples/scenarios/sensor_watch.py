"""A prototype that notices a stuck sensor: its noise is gone, and values repeat exactly."""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

EQUAL = 5
"""Equal values in a row that a healthy sensor with noise does not give."""


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        alarm = await testbed.output("alarm", [Signal("stuck", Dtype.BOOL)])
        last = np.empty(0)
        async for batch in rig:
            samples = batch["Temperature"]
            values = np.append(last, samples.values)
            stuck = [
                at >= EQUAL - 1 and bool(np.all(values[at - EQUAL + 1 : at + 1] == values[at]))
                for at in range(len(last), len(values))
            ]
            await alarm.publish(samples.time_ns, {"stuck": stuck})
            last = values[-EQUAL:]


run(main())
