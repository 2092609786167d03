"""Builds tank.fmu from the files beside this one.

python build.py ../scenarios/tank.fmu

It needs a C compiler; on Debian and Ubuntu: apt install gcc libc6-dev
"""

import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent
PLATFORM = "linux64" if platform.machine() == "x86_64" else f"{platform.machine()}-linux"


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "tank.so"
        words = ["cc", "-shared", "-fPIC", "-O2", "-o", library, FOLDER / "tank.c", "-lm"]
        subprocess.run(words, check=True)  # noqa: S603 - the compiler of this machine
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as fmu:
            fmu.write(FOLDER / "modelDescription.xml", "modelDescription.xml")
            fmu.write(library, f"binaries/{PLATFORM}/tank.so")
    print(f"wrote {path}")


main(Path(sys.argv[1]))
