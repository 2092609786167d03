"""The data folder of a server: its lock, and the version of its layout."""

import os
import pwd
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from broker.errors import Refused, Taken
from broker.process import file_lock, files

LAYOUT = "1"
"""Version of the data folder's layout, stored in its file `layout`."""
RESTORE_MARK = "restoring"
"""File in a data folder while a backup is restored into it; remains after an interruption."""
PKI = "pki"
"""Folder in a data folder with the server's own authority and certificates."""
RUNNER = "runner"
"""Folder in a data folder of the runner that `testbed up` starts beside the server."""
_LAYOUT_FILE = "layout"
_LOCK = "lock"
"""File in a data folder that the server that runs on it has locked."""


def check_unlocked(folder: Path) -> None:
    """Raise Taken if a server runs on a data folder, which need not exist and is not changed.

    Raises Refused if a file in it is another user's.
    """
    check_owner(folder, os.geteuid())
    file = folder / _LOCK
    with suppress(OSError):  # whoever opens the folder next says what is wrong with it
        if file.exists():
            with file_lock.locked(file, _taken(folder)):
                pass


def check_exists(folder: Path) -> None:
    """Raise Refused if there is no server's data in a folder."""
    if not (folder / _LAYOUT_FILE).exists():
        raise Refused(f"there is no data in {folder}", hint="name the folder of a server")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Create the folder if it does not exist, and lock it; raises Taken if it is locked."""
    check_owner(folder, os.geteuid())
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
            stack.enter_context(file_lock.locked(folder / _LOCK, _taken(folder)))
        except OSError as exc:
            raise files.unwritable(folder, "the data folder", exc, "--data") from exc
        yield


def check_layout(folder: Path, *, restoring: bool = False) -> None:
    """Raise Refused if a folder has another layout, which is noted in a new one.

    restoring: accept a folder into which a backup is being restored.
    """
    if (folder / RESTORE_MARK).exists() and not restoring:
        raise Refused(
            f"a restore into {folder} did not come to its end",
            hint="restore into an empty folder, once more",
        )
    file = folder / _LAYOUT_FILE
    if not file.exists():
        try:
            files.replace(file, LAYOUT.encode())
        except OSError as exc:
            raise files.unwritable(folder, "the data folder", exc, "--data") from exc
    version = file.read_text(errors="replace").strip()
    if version != LAYOUT:
        raise Refused(
            f"the data folder {folder} has layout {version[:20]!r}, this version reads {LAYOUT}",
            hint="use the version that wrote it",
        )


def check_owner(folder: Path, uid: int) -> None:
    """Raise Refused if a file of a data folder is another user's, as after a restore by root.

    uid: of the user of this process; root may do as it likes.  The authority in `pki` need only be
    readable, and its key need not even be that.
    """
    if uid == 0 or not folder.exists():
        return
    pki = folder / PKI
    for file in (folder, *folder.rglob("*")):
        with suppress(FileNotFoundError):  # removed meanwhile
            owner = file.lstat().st_uid
            if owner == uid or (file.is_relative_to(pki) and _is_enough(file)):
                continue
            user = shlex.quote(_user_name(uid))
            raise Refused(
                f"{file} belongs to {_user_name(owner)}, and the server runs as {user}",
                hint=f"sudo chown -R {user}: {shlex.quote(str(folder.absolute()))}",
            )


def _is_enough(file: Path) -> bool:
    return file.name == "ca-key.pem" or os.access(file, os.R_OK)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _taken(folder: Path) -> Taken:
    return Taken(
        f"a server is running on {folder}", hint="stop it, or choose another folder with --data"
    )
