"""A Docker Swarm of one node, with a network namespace of its own.

So that its bridges and its VXLANs meet neither the machine's nor those of a swarm beside it.
"""

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed_runner.docker import python_image
from tests.services import dockerd
from tests.services.dockerd import Dockerd

GONE_WITHIN_S = 20.0
GATEWAY = "10.132.0.1"
"""Address of the node as its containers reach it, where they are in a network that leads out."""
OPTIONS = (*dockerd.NO_NETWORKS, "--no-new-privileges")
"""Engines before Docker 25 take no-new-privileges for services from here alone."""
_WITH_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as loopback:
    fcntl.ioctl(loopback, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
os.execvp(sys.argv[1], sys.argv[1:])
"""
_BELOW = ("unshare", "--net", sys.executable, "-c", _WITH_LOOPBACK)


@dataclass(frozen=True)
class SwarmNode:
    """An engine that manages a swarm of one node.

    relay_image: digest of an image there with Python alone.
    """

    engine: Dockerd
    relay_image: str

    def remove_network(self, name: str) -> None:
        """Remove a network if it is there, once its last container has left it."""
        deadline_s = time.monotonic() + GONE_WITHIN_S
        while name in self.engine.command("network", "ls", "--format={{.Name}}").split():
            if time.monotonic() > deadline_s:
                pytest.fail(f"network {name} stays in use")
            with contextlib.suppress(pytest.fail.Exception):
                self.engine.command("network", "rm", name)


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[SwarmNode]:
    """Run an engine that manages a swarm of its own; in the end the swarm is gone."""
    with dockerd.serve(folder, options=OPTIONS, below=_BELOW) as engine:
        engine.command(
            *("network", "create", f"--subnet={GATEWAY}/24", f"--gateway={GATEWAY}"),
            "--opt=com.docker.network.bridge.name=docker_gwbridge",
            "--opt=com.docker.network.bridge.enable_icc=false",
            "docker_gwbridge",
        )
        engine.command("swarm", "init", "--advertise-addr=127.0.0.1")
        archive = folder / "relay.tar"
        digest = python_image.write(archive)
        engine.command("load", "--quiet", "--input", str(archive))
        archive.unlink()
        try:
            yield SwarmNode(engine, digest)
        finally:
            engine.command("swarm", "leave", "--force")
