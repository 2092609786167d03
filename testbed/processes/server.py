"""The process of a server that one command starts for itself."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from testbed.processes.child_process import ChildProcess, start_child

TESTBED = ("-m", "testbed")
"""The words after Python that run the command `testbed`."""
ON_LOOPBACK = {
    "TESTBED_HOST": "127.0.0.1",
    "TESTBED_TLS": "",
    "TESTBED_TLS_CERT_FILE": "",
    "TESTBED_TLS_KEY_FILE": "",
    "TESTBED_CA": "",
}
"""Settings that keep the server on this machine, whatever is set for another one."""


def start_server(folder: Path, *, store: str) -> AbstractAsyncContextManager[ChildProcess]:
    """Start broker, recorder and API on free ports, with data and log in a folder.

    store: as for `testbed up`.  Its event `ready` has the addresses and the administrator's
    credential.
    """
    options = ["--json", "--port", "0", "--mqtt-port", "0", "--store", store]
    return start_child(
        "server",
        [*TESTBED, "up", *options, "--data", str(folder / "data")],
        log=folder / "server.log",
        environment=os.environ | ON_LOOPBACK,
    )
