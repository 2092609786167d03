"""The folder that a user names for the data and logs of runs: it must be new or empty.

The server of a run would find another run's registry in it, and know none of its own credentials.
"""

import os
from pathlib import Path

from broker.errors import Invalid, Taken
from broker.recordings import layout
from testbed.processes import server

OF_A_RUN = {server.LOG, layout.RUN_RESULT}
"""Files of which a run leaves the first as soon as it starts, the second at its end."""


def check(folder: Path) -> None:
    """Raise Invalid for a folder that cannot be written, Taken for one that holds anything."""
    place = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not place.is_dir():
        raise Invalid(f"{place} is no folder", hint="name a new folder with --folder")
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        raise Invalid(f"{place} cannot be written", hint="name another folder with --folder")
    if place != folder or not any(folder.iterdir()):
        return
    files = (f"{depth}{name}" for depth in ("", "*/") for name in OF_A_RUN)
    if any(any(folder.glob(file)) for file in files):
        raise Taken(f"{folder} holds an earlier run", hint="choose another folder, or remove it")
    raise Taken(f"{folder} is not empty", hint="name a new folder with --folder")
