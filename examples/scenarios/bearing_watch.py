"""A prototype that watches the vibration of a bearing's outer race against its first minute."""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

FIRST_ROWS = 60
FACTOR = 3.0
"""Of the usual vibration: above it the race is damaged."""


async def main() -> None:
    async with connect() as testbed:
        spindle = testbed.input("spindle")
        await spindle.open()
        race = await testbed.output("race", [Signal("ratio"), Signal("damaged", Dtype.BOOL)])
        first: list[float] = []
        async for batch in spindle:
            band = batch["Outer Race Band"]
            first.extend(band.values[: FIRST_ROWS - len(first)])
            ratio = band.values / np.median(first)
            await race.publish(band.time_ns, {"ratio": ratio, "damaged": ratio > FACTOR})


run(main())
