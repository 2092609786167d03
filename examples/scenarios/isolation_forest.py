"""A prototype that learns a machine from its first 400 rows with an isolation forest, and alarms
on rows unlike them.

It does what the isolation forest of the Skoltech benchmark does, with the same parameters: one row
of the training at most counts as odd, and an alarm is the median of three rows.  An isolation
forest cuts each signal by itself, so that no signal needs to be scaled.
"""

import numpy as np
from sklearn.ensemble import IsolationForest

from testbed_sdk import Dtype, Signal, connect, run

TRAINING_ROWS = 400
CONTAMINATION = 0.0005
"""Share of the training rows that count as odd."""
SEED = 0


def learned(rows: np.ndarray) -> IsolationForest:
    forest = IsolationForest(contamination=CONTAMINATION, random_state=SEED, n_jobs=1)
    return forest.fit(rows)


def median_of_three(odd: np.ndarray) -> np.ndarray:
    """Whether two of each row and the two before it are odd; the first two only begin it."""
    return odd[2:].astype(int) + odd[1:-1] + odd[:-2] >= 2


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        score = await testbed.output("score", [Signal("score"), Signal("alarm", Dtype.BOOL)])
        forest, training, before = None, [], np.zeros(2, bool)
        async for batch in rig:
            times, table = batch.table()
            if forest is None:
                missing = TRAINING_ROWS - len(training)
                training.extend(table[:missing])
                times, table = times[missing:], table[missing:]
                if len(training) == TRAINING_ROWS:
                    forest = learned(np.array(training))
            if forest is not None and len(times):
                scores = -forest.decision_function(table)  # above 0: unlike the training
                odd = np.concatenate([before, scores > 0])
                before = odd[-2:]
                await score.publish(times, {"score": scores, "alarm": median_of_three(odd)})


run(main())
