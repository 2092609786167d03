"""`testbed up` whose recorder reaches the broker over a wire that can be cut.

`python -m tests.faults.server PORT up …`: PORT is the wire's.
"""

import sys
from dataclasses import replace

from broker.clock import Clock
from broker.settings import Address
from testbed import cli
from testbed.server import up
from testbed_api.service import RunningServer
from testbed_api.settings import ServerSettings
from tests.services import LOOPBACK

_recorder = up._recorder


async def _over_the_wire(
    settings: ServerSettings, server: RunningServer, credential: str, clock: Clock
) -> None:
    wire = Address(LOOPBACK, int(sys.argv[0]))
    await _recorder(settings, replace(server, broker=wire), credential, clock)


if __name__ == "__main__":
    up._recorder = _over_the_wire  # another way to the same broker, as on another machine
    sys.argv = sys.argv[1:]
    cli.app()
