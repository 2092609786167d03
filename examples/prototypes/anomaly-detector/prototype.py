"""Notices that a pump behaves otherwise than it did at first, whatever the reason is.

It learns the mean and the covariance of all signals from the first rows, and then scores each row
by Hotelling's T²: its squared distance from the mean, measured by the covariance.
"""

import os

import numpy as np

from testbed_sdk import Dtype, Signal, connect, run

LEARNS_ROWS = int(os.environ.get("LEARNS_ROWS", "60"))
LIMIT_DEVIATIONS = float(os.environ.get("LIMIT_DEVIATIONS", "12"))
"""Standard deviations from the mean T² of the rows it learns from, up to the alarm."""
SIGNALS = [Signal("score"), Signal("anomaly", Dtype.BOOL), Signal("learning", Dtype.BOOL)]


class UsualRows:
    """What is usual: mean, inverse covariance, and the T² at which the alarm begins."""

    def __init__(self, rows: np.ndarray) -> None:
        self.mean = rows.mean(axis=0)
        self.inverse = np.linalg.pinv(np.cov(rows, rowvar=False))
        distances = self.t_squared(rows)
        self.limit = distances.mean() + LIMIT_DEVIATIONS * distances.std()

    def t_squared(self, rows: np.ndarray) -> np.ndarray:
        offset = rows - self.mean
        return np.einsum("ij,jk,ik->i", offset, self.inverse, offset)


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        score = await testbed.output("score", SIGNALS)
        usual, learned = None, []
        async for batch in rig:
            times, table = batch.table()
            complete = np.isfinite(table).all(axis=1)
            times, table = times[complete], table[complete]
            if not len(times):
                continue
            if usual is None:
                learned.extend(table)
                values = {"score": 0.0, "anomaly": False, "learning": True}
                if len(learned) >= LEARNS_ROWS:
                    usual = UsualRows(np.array(learned))
                    print(f"learned from {len(learned)} rows", flush=True)
            else:
                odd = usual.t_squared(table) / usual.limit
                values = {"score": odd, "anomaly": odd > 1, "learning": False}
            await score.publish(times, values, input_ns=int(times[-1]))


if __name__ == "__main__":
    run(main())
