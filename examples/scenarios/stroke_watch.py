"""A prototype that compares the greatest pressure of each stroke with that of the first ones."""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

FIRST_STROKES = 4
LEAST_SHARE = 0.95
"""Of the usual pressure: below it something leaks."""


async def main() -> None:
    async with connect() as testbed:
        press = testbed.input("press")
        await press.open()
        leak = await testbed.output("leak", [Signal("share"), Signal("alarm", Dtype.BOOL)])
        peaks, peak, share, strokes = [], 0.0, 1.0, 0.0
        async for batch in press:
            times, shares = batch["Pressure"].time_ns, []
            for pressure, count in zip(
                batch["Pressure"].values, batch["Strokes"].values, strict=True
            ):
                if count > strokes:
                    peaks.append(peak)
                    share, peak, strokes = peak / np.median(peaks[:FIRST_STROKES]), 0.0, count
                peak = max(peak, pressure)
                shares.append(share)
            await leak.publish(times, {"share": shares, "alarm": np.less(shares, LEAST_SHARE)})


run(main())
