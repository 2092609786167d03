"""The gateway, with a clock at each of its steps: stepped.py STEPS-FILE MAPPING.

The steps are written when it ends.  Its methods at the steps are wrapped, nothing else is changed.
"""

import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson

from broker.clock import WallClock
from gateway.pipeline.pipeline import Pipeline
from gateway.spool.spool import Spool

ARRIVED = "server to gateway, decoded"
SHAPED = "shaped, waiting for the spool"
COMMITTED = "commit"


def main() -> None:
    """Run `testbed gateway run` with both methods wrapped."""
    file, mapping = Path(sys.argv[1]), sys.argv[2]
    taken: dict[str, list[float]] = defaultdict(list)
    now_ns = WallClock().now_ns
    took, took_lot, committed = Pipeline.take, Pipeline.take_lot, Spool.commit
    arrived_ns = 0

    def arrived(newest_ns: int) -> None:
        nonlocal arrived_ns
        arrived_ns = now_ns()
        taken[ARRIVED].append((arrived_ns - newest_ns) / 1e6)

    async def take(self: Any, parts: Any) -> None:
        arrived(max(int(part.samples.time_ns.max()) for part in parts))
        await took(self, parts)

    async def take_lot(self: Any, lot: Any) -> None:
        arrived(int(lot.time_ns.max()))
        await took_lot(self, lot)

    async def commit(self: Any, *args: Any, **named: Any) -> Any:
        start_ns = now_ns()
        taken[SHAPED].append((start_ns - arrived_ns) / 1e6)
        try:
            return await committed(self, *args, **named)
        finally:
            taken[COMMITTED].append((now_ns() - start_ns) / 1e6)

    Pipeline.take, Pipeline.take_lot = take, take_lot  # type: ignore[method-assign]  # that is the point
    Spool.commit = commit  # type: ignore[method-assign]  # as above
    sys.argv = ["testbed", "gateway", "run", mapping]
    from testbed import cli  # noqa: PLC0415 - it imports what was wrapped

    try:
        cli.app()
    finally:
        file.write_bytes(orjson.dumps(taken))


if __name__ == "__main__":
    main()
