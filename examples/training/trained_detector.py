"""A prototype that alarms by the model that train.py has written beside it.

joblib runs what a file says: load only a model that you wrote yourself, with the scikit-learn that
wrote it.
"""

from pathlib import Path

import joblib
import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

trained = joblib.load(Path(__file__).with_name("detector.joblib"))


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        score = await testbed.output(
            "score", [Signal("probability", low=0.0, high=1.0), Signal("anomaly", Dtype.BOOL)]
        )
        async for batch in rig:
            times, table = batch.table(*trained["signals"])
            complete = np.isfinite(table).all(axis=1)
            if complete.any():
                probability = trained["model"].predict_proba(table[complete])[:, 1]
                anomaly = probability > trained["limit"]
                values = {"probability": probability, "anomaly": anomaly}
                await score.publish(times[complete], values)


run(main())
