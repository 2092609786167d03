"""The project as a wheel, and environments that it can be installed into without an index."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests import sources

OURS = ("connected_testbed", "__editable__")
"""How the entries of a folder of packages begin that are this project's own."""


def built(folder: Path) -> Path:
    """The wheel, built in a folder from a copy as `make wheel` builds it."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(sources.ROOT / name, source)
    for name in sources.PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(sources.ROOT / name, source / name, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(  # noqa: S603 - our own pip
        [*command, "--no-index", "--wheel-dir", str(folder), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def environment(folder: Path) -> Path:
    """An environment with every package of this one but the project itself; returns its programs.

    Packages are links, so that an installation finds its dependencies there and asks no index.
    """
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)  # noqa: S603 - our own Python
    (packages,) = (folder / "lib").glob("python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(OURS) and not (packages / entry.name).exists():
            (packages / entry.name).symlink_to(entry)
    programs = folder / "bin"
    (programs / "pip").write_text(f'#!/bin/sh\nexec "{programs}/python" -m pip "$@"\n')
    (programs / "pip").chmod(0o755)
    (programs / "nats-server").symlink_to(Path(sysconfig.get_path("scripts"), "nats-server"))
    return programs
