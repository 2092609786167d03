"""A prototype that compares the currents of two joints: friction in one raises its share."""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

ROWS = 200
"""Of the effective value: some cycles of the robot at ten rows a second."""
MOST_SHARE = 0.5
"""Joint 2 usually takes a third of the current of joint 1."""


def effective(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


async def main() -> None:
    async with connect() as testbed:
        cell = testbed.input("cell")
        await cell.open()
        gear = await testbed.output("gear", [Signal("share"), Signal("worn", Dtype.BOOL)])
        first, second = np.empty(0), np.empty(0)
        async for batch in cell:
            first = np.append(first, batch["Current1"].values)[-ROWS:]
            second = np.append(second, batch["Current2"].values)[-ROWS:]
            if len(first) == ROWS:
                share = effective(second) / effective(first)
                time_ns = batch["Current1"].time_ns[-1:]
                await gear.publish(time_ns, {"share": [share], "worn": [share > MOST_SHARE]})


run(main())
