"""A prototype: it learns what is normal from the first rows of its input, then scores every row that follows."""

import asyncio

import numpy as np
from sklearn.ensemble import IsolationForest
from testbed_sdk import Dtype, Signal, connect

TRAINING_ROWS = 400


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        score = await testbed.output("score", [Signal("score"), Signal("anomaly", Dtype.BOOL)])
        print("listening", flush=True)
        forest = None
        rows: list[np.ndarray] = []
        async for batch in rig:
            times, table = batch.table()
            if forest is None:
                rows.extend(table)
                if len(rows) < TRAINING_ROWS:
                    continue
                forest = IsolationForest(random_state=0, contamination=0.005).fit(rows[:TRAINING_ROWS])
                first = len(table) - (len(rows) - TRAINING_ROWS)
                times, table = times[first:], table[first:]
            if len(times):
                odd = -forest.decision_function(table)
                await score.publish(times, {"score": odd, "anomaly": odd > 0}, input_ns=int(times[-1]))


asyncio.run(main())
