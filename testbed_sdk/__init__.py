"""SDK of prototypes: connect to the testbed, read inputs, publish outputs, fetch history.

from testbed_sdk import connect, run

async def main():
    async with connect() as testbed:
        async for batch in testbed.input("rig"):
            print(batch["Pressure"].values)

run(main())

Without asyncio: `connect_sync` and `read_history`.
"""

from broker.batch import Gap
from broker.errors import (
    BedError,
    Corrupt,
    Forbidden,
    Invalid,
    NotGranted,
    Paused,
    Refused,
    Unavailable,
    Unknown,
)
from broker.messages import Freshness, Health
from broker.streams import Dtype, Signal
from testbed_sdk.connection import Testbed, connect
from testbed_sdk.history import History
from testbed_sdk.inputs import Input, Missed, Received
from testbed_sdk.outputs import Output
from testbed_sdk.program import run
from testbed_sdk.settings import PrototypeSettings
from testbed_sdk.synchronous import SyncInput, SyncOutput, SyncTestbed, connect_sync, read_history

__all__ = [
    "BedError",
    "Corrupt",
    "Dtype",
    "Forbidden",
    "Freshness",
    "Gap",
    "Health",
    "History",
    "Input",
    "Invalid",
    "Missed",
    "NotGranted",
    "Output",
    "Paused",
    "PrototypeSettings",
    "Received",
    "Refused",
    "Signal",
    "SyncInput",
    "SyncOutput",
    "SyncTestbed",
    "Testbed",
    "Unavailable",
    "Unknown",
    "connect",
    "connect_sync",
    "read_history",
    "run",
]
