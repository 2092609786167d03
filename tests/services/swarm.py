"""A Docker Swarm of one node: an engine with networks, which takes protections for services."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.services import dockerd
from tests.services.dockerd import Dockerd

OPTIONS = (*dockerd.NO_NETWORKS, "--no-new-privileges")
"""Engines before Docker 25 take no-new-privileges for services from here alone."""


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Dockerd]:
    """Run an engine that manages a swarm of its own; in the end its services are removed."""
    with dockerd.serve(folder, options=OPTIONS) as engine:
        engine.command("swarm", "init", "--advertise-addr=127.0.0.1")
        try:
            yield engine
        finally:
            engine.command("swarm", "leave", "--force")
