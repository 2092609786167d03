"""A server that one command starts for itself, and the environment of its clients."""

import os
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from broker.settings import child_environment
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


def client_environment(*, api: str, broker: str, credential: str, space: str) -> dict[str, str]:
    """The environment of a process that connects to a server, with no other settings of ours."""
    own = {
        "TESTBED_API": api,
        "TESTBED_BROKER": broker,
        "TESTBED_CREDENTIAL": credential,
        "TESTBED_SPACE": space,
    }
    return child_environment(os.environ) | own
