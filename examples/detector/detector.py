"""A prototype: it learns what is normal from the first rows of its input, and scores the rest.

The score is Hotelling's T², the squared distance of a row from the mean of the training rows,
measured by their covariance, over its control limit: above 1 is an alarm.
"""

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

TRAINING_ROWS = 400
LIMIT_DEVIATIONS = 10.0
"""Standard deviations from the mean T² of the training rows to the control limit."""


def t_squared(rows: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    offset = rows - mean
    return np.einsum("ij,jk,ik->i", offset, inverse, offset)


def learned(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean and inverse covariance of normal rows, and the control limit of their T²."""
    mean, inverse = rows.mean(axis=0), np.linalg.pinv(np.cov(rows, rowvar=False))
    distances = t_squared(rows, mean, inverse)
    return mean, inverse, distances.mean() + LIMIT_DEVIATIONS * distances.std()


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        score = await testbed.output("score", [Signal("score"), Signal("anomaly", Dtype.BOOL)])
        normal, training = None, []
        async for batch in rig:
            times, table = batch.table()
            complete = np.isfinite(table).all(axis=1)
            times, table = times[complete], table[complete]
            if normal is None:
                missing = TRAINING_ROWS - len(training)
                training.extend(table[:missing])
                times, table = times[missing:], table[missing:]
                if len(training) == TRAINING_ROWS:
                    normal = learned(np.array(training))
            if normal is not None and len(times):
                mean, inverse, limit = normal
                odd = t_squared(table, mean, inverse) / limit
                values = {"score": odd, "anomaly": odd > 1}
                await score.publish(times, values, input_ns=int(times[-1]))


run(main())
