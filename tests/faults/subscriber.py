"""A prototype that tells of each batch of its input `in`: its number, and how many it missed."""

import asyncio
import json
import sys

import structlog

from testbed_sdk.connection import connect


async def main() -> None:
    """Listen until ended; what is logged is no batch."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    async with connect() as bed:
        async for received in bed.input("in"):
            event = {"event": "batch", "seq": received.batch.seq, "got": 1}
            event["missed"] = len(received.missed) if received.missed else 0
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
