"""Makes an image of this machine's own Python, in a second and without a network.

The runner needs a program to try its protections with, before it has an image of anybody.
"""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from broker.errors import Unavailable
from testbed_runner.docker import image_file
from testbed_runner.docker.image_file import (
    PROGRAM,
    ImageConfig,
    LayerEntries,
    LayerFile,
    LayerFolder,
    LayerLink,
)

PYTHON = "/usr/local/bin/python"
TMP = "/tmp"  # noqa: S108 - in the image
TMP_MODE = 0o1777
LISTED_WITHIN_S = 30.0
_EXTENSION = sysconfig.get_config_var("EXT_SUFFIX")
_NOT_NEEDED = frozenset(
    {"test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "pydoc_data"}
    | {"site-packages", "dist-packages", "__phello__"}
)
"""Folders of the standard library that an image does without."""
_NOT_NEEDED_ENDS = (".a", ".opt-1.pyc", ".opt-2.pyc", ".exe", f"_tkinter{_EXTENSION}")
"""Ends of names of files that it does without; Tk's libraries alone have many megabytes."""
_LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_FOLDERS = ("/dev", "/proc", "/run/testbed", "/sys", "/etc")


def entries() -> LayerEntries:
    """Python with its standard library, the libraries that these need, and folders for mounts.

    Raises Unavailable where this machine's loader does not list libraries as glibc's does.
    """
    executable = Path(sys.executable).resolve()
    library = dict(_standard_library())
    binaries = [executable, *(path for path in library.values() if path.suffix == ".so")]
    return {
        PYTHON: LayerFile(executable, PROGRAM),
        f"{PYTHON}3": LayerLink("python"),
        TMP: LayerFolder(TMP_MODE),
        **dict.fromkeys(_FOLDERS, LayerFolder()),
        **{name: image_file.of_file(source) for name, source in library.items()},
        **program_libraries(binaries),
    }


def config(libraries: Iterable[str]) -> ImageConfig:
    """The configuration of an image with these entries.

    libraries: paths of the shared libraries in it; their folders are where the loader looks.
    """
    return ImageConfig(
        environment={
            "PATH": f"{Path(PYTHON).parent}:/usr/bin:/bin",
            "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}",
            "LD_LIBRARY_PATH": ":".join(sorted({str(Path(path).parent) for path in libraries})),
        },
        command=(PYTHON,),
    )


def program_libraries(binaries: Iterable[Path]) -> dict[str, LayerFile]:
    """The shared libraries that programs and libraries of this machine load, and their loader.

    Raises Unavailable.
    """
    loader = next((path for path in _listed([sys.executable]) if "/ld-" in path), None)
    if loader is None:
        raise Unavailable(
            "this machine's Python does not say which libraries it loads",
            hint="the runner needs a Python that is linked with glibc, as Debian's is",
        )
    paths = {loader}
    for binary in binaries:
        paths.update(_listed([loader, "--list", str(binary)]))
    return {path: LayerFile(Path(path).resolve(), PROGRAM) for path in sorted(paths)}


def write(target: Path) -> str:
    """Write an image of this machine's Python as an archive; returns its digest.

    Raises Unavailable.
    """
    layer = target.with_suffix(".layer")
    try:
        content = entries()
        with layer.open("wb") as file:
            image_file.write_layer(file, content)
        with target.open("wb") as file:
            libraries = [path for path in content if ".so" in Path(path).name]
            return image_file.write_image(file, [layer], config(libraries))
    finally:
        layer.unlink(missing_ok=True)


def _listed(command: list[str]) -> list[str]:
    """The paths that the loader names for a program, in place of running it."""
    listing = subprocess.run(  # noqa: S603 - a program of this machine, which its loader lists
        command,
        env={"LD_TRACE_LOADED_OBJECTS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=LISTED_WITHIN_S,
    )
    return [os.path.normpath(path) for path in _LIBRARY.findall(listing.stdout)]


def _is_needed(folder: str) -> bool:
    return folder not in _NOT_NEEDED and not folder.startswith("config-")


def _standard_library() -> Iterator[tuple[str, Path]]:
    """Path in the image and on this machine of each file of the standard library."""
    for root in sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}):
        if not root.startswith((sys.base_prefix, sys.base_exec_prefix)):
            continue  # of a virtual environment, which has none of its own
        for folder, folders, files in os.walk(root):
            folders[:] = [
                name
                for name in folders
                if name not in _NOT_NEEDED and not name.startswith("config-")
            ]
            for path in (Path(folder, name) for name in files):
                if path.is_file() and not path.name.endswith(_NOT_NEEDED_ENDS):
                    yield str(path), path
