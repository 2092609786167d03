"""Derives two signals that no sensor measures: the power in the water, and the pump's efficiency.

Hydraulic power is pressure times flow; what the motor takes is √3 times voltage between the lines,
current and power factor.
"""

import math
import os

import numpy as np

from testbed_sdk import Signal, connect, run

POWER_FACTOR = float(os.environ.get("POWER_FACTOR", "0.56"))
PASCAL_IN_BAR = 1e5
CUBIC_METRES_PER_S_IN_LITRES_PER_MIN = 1e-3 / 60
SIGNALS = [
    Signal("Hydraulic Power", unit="W", low=0, high=10_000),
    Signal("Electrical Power", unit="W", low=0, high=10_000),
    Signal("Efficiency", low=0, high=1),
]


def derived(
    pressure: np.ndarray, flow: np.ndarray, voltage: np.ndarray, current: np.ndarray
) -> dict[str, np.ndarray]:
    """The derived signals of n rows: bar, L/min, V and A in, W and a share out."""
    hydraulic = pressure * PASCAL_IN_BAR * flow * CUBIC_METRES_PER_S_IN_LITRES_PER_MIN
    hydraulic = np.clip(hydraulic, 0, None)
    electrical = math.sqrt(3) * voltage * current * POWER_FACTOR
    share = np.divide(hydraulic, electrical, out=np.zeros_like(hydraulic), where=electrical > 0)
    return {
        "Hydraulic Power": hydraulic,
        "Electrical Power": electrical,
        "Efficiency": np.clip(share, 0, 1),
    }


async def main() -> None:
    async with connect() as testbed:
        rig = testbed.input("rig")
        await rig.open()
        power = await testbed.output("power", SIGNALS)
        async for batch in rig:
            needed = ("Pressure", "Volume Flow RateRMS", "Voltage", "Current")
            times, table = batch.table(*needed)
            rows = np.isfinite(table).all(axis=1)
            if rows.any():
                values = derived(*table[rows].T)
                await power.publish(times[rows], values, input_ns=int(times[rows][-1]))


if __name__ == "__main__":
    run(main())
