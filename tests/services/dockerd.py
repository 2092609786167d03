"""Docker's engine, with data, socket and containers of its own; Debian's docker.io has it."""

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import services

ENDED_WITHIN_S = 20.0
NO_NETWORKS = (
    "--bridge=none",
    "--iptables=false",
    "--ip6tables=false",
    "--ip-masq=false",
    "--ip-forward=false",
)
"""For containers without any network: the machine's firewall and settings stay as they are."""


@dataclass(frozen=True)
class Dockerd:
    """A running engine.  folder: its data, which a later start on it carries on."""

    folder: Path
    product: services.Product

    @property
    def url(self) -> str:
        """Where it listens, as clients take it."""
        return f"unix://{self.folder / 'socket'}"

    def command(self, *words: str) -> str:
        """What Docker's own command line prints; pytest.fail with its error."""
        done = subprocess.run(
            [services.found("docker"), "--host", self.url, *words],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            pytest.fail(f"docker {' '.join(words)} ended with {done.returncode}: {done.stderr}")
        return done.stdout.strip()

    def containers(self) -> list[str]:
        """The names of all containers, also of those that have ended."""
        return self.command("ps", "--all", "--format", "{{.Names}}").split()


@contextlib.contextmanager
def data_folder() -> Iterator[Path]:
    """A folder for an engine, with a short path: sockets below it may have 107 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="dockerd-", ignore_cleanup_errors=True) as folder:
        try:
            yield Path(folder)
        finally:
            _unmount_below(Path(folder))


@contextlib.contextmanager
def serve(folder: Path, *, options: Sequence[str] = NO_NETWORKS) -> Iterator[Dockerd]:
    """Run Docker's engine; in the end all its containers are removed.

    The test is skipped where there is none, or where we are not root.
    """
    command = services.found("dockerd", Path("/usr/sbin/dockerd"))
    if os.geteuid():
        pytest.skip("Docker's engine needs root here")
    settings = folder / "daemon.json"  # not the machine's own
    settings.write_text("{}")
    socket = folder / "socket"
    with services.running(
        [
            command,
            f"--config-file={settings}",
            f"--data-root={folder / 'data'}",
            f"--exec-root={folder / 'exec'}",
            f"--host=unix://{socket}",
            f"--pidfile={folder / 'pid'}",
            "--userland-proxy=false",
            "--log-level=warn",
            *options,
        ],
        folder=folder,
        environment={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        ready=lambda: _answers(socket),
    ) as product:
        engine = Dockerd(folder, product)
        try:
            yield engine
        finally:
            if product.process.poll() is None:
                for name in engine.command("ps", "--all", "--quiet").split():
                    engine.command("rm", "--force", name)


def _answers(socket: Path) -> bool:
    if not socket.exists():
        return False
    done = subprocess.run(
        [services.found("docker"), "--host", f"unix://{socket}", "version"],
        check=False,
        capture_output=True,
    )
    return done.returncode == 0


def _unmount_below(folder: Path) -> None:
    """Unmount what an engine that was killed has left mounted, once its processes are gone."""
    deadline_s = time.monotonic() + ENDED_WITHIN_S
    while points := _mounted_below(folder):
        for point in reversed(points):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        if time.monotonic() > deadline_s:
            pytest.fail(f"{points} stay mounted")


def _mounted_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [point for line in lines if Path(point := line.split()[4]).is_relative_to(folder)]
