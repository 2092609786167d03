"""A prototype: it learns what is normal from the first rows of its input, and scores the rest."""

import asyncio

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
        rows = []
        async for batch in rig:
            times, table = batch.table()
            if forest is None:
                rows.extend(table)
                if len(rows) < TRAINING_ROWS:
                    continue
                forest = IsolationForest(random_state=0, contamination=0.005)
                forest.fit(rows[:TRAINING_ROWS])
                first = len(table) - (len(rows) - TRAINING_ROWS)
                times, table = times[first:], table[first:]
            if len(times):
                odd = -forest.decision_function(table)
                values = {"score": odd, "anomaly": odd > 0}
                await score.publish(times, values, input_ns=int(times[-1]))


asyncio.run(main())
