"""Telegraf 1.39, which `build` beside this file makes once: a known product that does our work."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services
from tests.services import built_products

VERSION = "1.39.3"
VARIANT = "2"
"""Raised wherever the plugins that are built into it change."""


def binary() -> Path:
    """Its executable; the test is skipped where `build` has not made it."""
    if not built_binary().exists():
        pytest.skip(
            f"telegraf {VERSION} is not on this machine; tests/services/install puts it there"
        )
    return built_binary()


def built_binary() -> Path:
    """Where `build` puts the executable."""
    return built_products.cache() / f"telegraf-{VERSION}-{VARIANT}" / "telegraf"


def build() -> Path:
    """Build Telegraf unless it is there already, and return its path; this takes some minutes once.

    Raises subprocess.CalledProcessError if it cannot be built; the script has said why on stderr.
    """
    script = Path(__file__).parent / "build"
    built = subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True)
    return Path(built.stdout.strip())


@contextlib.contextmanager
def running(command: Path, configuration: Path, *, ready: str) -> Iterator[services.Product]:
    """Run Telegraf on a configuration file; its log stands beside that file.

    ready: the text in its log that says that it has begun.
    """
    log = configuration.parent / f"{command.name}.log"
    with services.running(
        [str(command), "--config", str(configuration)],
        folder=configuration.parent,
        ready=lambda: ready in log.read_text(errors="replace"),
    ) as product:
        yield product
