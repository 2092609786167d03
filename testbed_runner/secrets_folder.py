"""Secrets of deployments as files in memory: no disk ever has them."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from broker.errors import Unavailable
from broker.process import files

MEMORY = Path("/dev/shm")  # noqa: S108 - below it is a folder of ours, which nobody else may enter
"""A file system in memory that each Linux has."""
READ_ONLY = 0o400


class SecretsFolder:
    """The secrets of all deployments of one runner, each deployment's in a folder of its own.

    They outlive the runner, so that a new one can serve what still runs; not the machine.
    """

    def __init__(self, state: Path, purpose: str) -> None:
        """state: folder of the runner's state, which names its secrets.  purpose: a word.

        Raises Unavailable if there is no such file system, or others could read the folder.
        """
        self._kind = f"testbed-{purpose}"
        name = hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]
        self.folder = MEMORY / f"{self._kind}-{os.getuid()}-{name}"
        try:
            self.folder.mkdir(mode=files.PRIVATE_FOLDER, exist_ok=True)
            status = self.folder.lstat()
        except OSError as exc:
            raise Unavailable(
                f"secrets have no place in memory: {self.folder}: {exc.strerror}",
                hint=f"the runner needs a writable tmpfs at {MEMORY}, as each Linux has it",
            ) from exc
        if self.folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise Unavailable(
                f"{self.folder} belongs to somebody else, or others may read it",
                hint="remove it: secrets of prototypes would be written there",
            )

    def write(self, deployment: int, content: Mapping[str, bytes]) -> Path:
        """Write the files of a deployment in place of those before; returns their folder.

        Raises Unavailable.
        """
        folder = self.folder / str(deployment)
        new = folder.with_suffix(".new")
        try:
            shutil.rmtree(new, ignore_errors=True)
            self.folder.mkdir(mode=files.PRIVATE_FOLDER, exist_ok=True)
            new.mkdir(mode=files.PRIVATE_FOLDER)
            for name, data in content.items():
                with files.create_private(new / name) as file:
                    file.write(data)
                (new / name).chmod(READ_ONLY)
            shutil.rmtree(folder, ignore_errors=True)
            new.rename(folder)
        except OSError as exc:
            shutil.rmtree(new, ignore_errors=True)
            raise Unavailable(
                f"the secrets of deployment {deployment} cannot be written: {exc.strerror}",
                hint=f"is {MEMORY} full?",
            ) from exc
        return folder

    def read(self, deployment: int) -> dict[str, bytes]:
        """The files of a deployment, empty if there are none."""
        folder = self.folder / str(deployment)
        with suppress(OSError):
            return {file.name: file.read_bytes() for file in folder.iterdir()}
        return {}

    def remove(self, deployment: int) -> None:
        """Remove the files of a deployment, if there are any."""
        shutil.rmtree(self.folder / str(deployment), ignore_errors=True)

    def deployments(self) -> list[int]:
        """The deployments that have files."""
        return [int(each.name) for each in self.folder.iterdir() if each.name.isdecimal()]

    def close(self) -> None:
        """Remove the folder if no deployment has files in it."""
        with suppress(OSError):
            self.folder.rmdir()
