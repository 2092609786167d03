"""FMUs for the tests: a first-order tank whose C source is compiled here, and that can go wrong."""

import functools
import platform
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
COMPILER = shutil.which("cc") or shutil.which("clang")
NO_COMPILER = "no C compiler; on Debian: apt install gcc libc6-dev"
FAULTS = (
    *("none", "segfault", "endless", "memory", "file_size", "fails", "aborts", "prints", "network"),
    *("reads", "exits", "reserves", "sleeps", "not_a_number", "forks", "overflow"),
)
"""By their number in the source."""
GAIN, TIME_CONSTANT_S = 1.0, 2.0
PERIOD_S = 0.1
TOKEN = "{tank}"

_VARIABLES_2 = """
  <ScalarVariable name="level" valueReference="0" causality="output" description="water level">
    <Real unit="m" min="0" max="4"/></ScalarVariable>
  <ScalarVariable name="inflow[1]" valueReference="1" causality="input">
    <Real declaredType="Flow" start="0" max="4"/></ScalarVariable>
  <ScalarVariable name="gain" valueReference="2" causality="parameter" variability="fixed">
    <Real start="1" min="0" max="10"/></ScalarVariable>
  <ScalarVariable name="time_constant" valueReference="3" causality="parameter"><Real unit="s"
    start="2"/></ScalarVariable>
  <ScalarVariable name="at" valueReference="4" causality="parameter"><Real start="0"/>
  </ScalarVariable>
  <ScalarVariable name="fault" valueReference="5" causality="parameter"><Integer start="0"/>
  </ScalarVariable>
  <ScalarVariable name="steps" valueReference="6" causality="output"><Integer/></ScalarVariable>
  <ScalarVariable name="full" valueReference="7" causality="output"><Boolean/></ScalarVariable>
  <ScalarVariable name="note" valueReference="8" causality="parameter"><String start=""/>
  </ScalarVariable>
  <ScalarVariable name="text" valueReference="8" causality="output"><String/></ScalarVariable>
"""
_VARIABLES_3 = """
  <Float64 name="level" valueReference="0" causality="output" unit="m" min="0" max="4"
    description="water level"/>
  <Float64 name="inflow[1]" valueReference="1" causality="input" declaredType="Flow" start="0"
    max="4"/>
  <Float64 name="gain" valueReference="2" causality="parameter" start="1" min="0" max="10"/>
  <Float64 name="time_constant" valueReference="3" causality="parameter" unit="s" start="2"/>
  <Float64 name="at" valueReference="4" causality="parameter" start="0"/>
  <Int64 name="fault" valueReference="5" causality="parameter" start="0"/>
  <Int64 name="steps" valueReference="6" causality="output"/>
  <Boolean name="full" valueReference="7" causality="output"/>
  <String name="note" valueReference="8" causality="parameter"><Start value=""/></String>
  <String name="text" valueReference="8" causality="output"/>
"""
_UNITS = """
 <UnitDefinitions><Unit name="m"><BaseUnit m="1"/></Unit><Unit name="metre of inflow"><BaseUnit
   m="1"/></Unit></UnitDefinitions>
"""


def description(version: str, identity: str = TOKEN) -> str:
    """The text of the tank's model description, for FMI version 2 or 3.  identity: its token."""
    if version == "2":
        head = f'fmiVersion="2.0" guid="{identity}"'
        flow = '<SimpleType name="Flow"><Real unit="metre of inflow" min="-4"/></SimpleType>'
        variables = _VARIABLES_2
    else:
        head = f'fmiVersion="3.0" instantiationToken="{identity}"'
        flow = '<Float64Type name="Flow" unit="metre of inflow" min="-4"/>'
        variables = _VARIABLES_3
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<fmiModelDescription {head} modelName="Tank" description="a tank that fills">
 <CoSimulation modelIdentifier="tank" canHandleVariableCommunicationStepSize="true"/>
{_UNITS}
 <TypeDefinitions>{flow}</TypeDefinitions>
 <DefaultExperiment stepSize="{PERIOD_S}"/>
 <ModelVariables>{variables}</ModelVariables>
 <ModelStructure/>
</fmiModelDescription>"""


def library_path(version: str) -> str:
    """Path of the binary for this machine in the archive."""
    machine = platform.machine()
    folder = "linux64" if (version, machine) == ("2", "x86_64") else f"{machine}-linux"
    return f"binaries/{folder}/tank.so"


def built(folder: Path, version: str = "2", name: str = "tank.fmu", identity: str = TOKEN) -> Path:
    """An FMU in a folder; skips the test where there is no C compiler."""
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as fmu:
        fmu.writestr("modelDescription.xml", description(version, identity))
        fmu.writestr(library_path(version), _library(version))
        fmu.writestr("resources/table.txt", "1 2 3\n")
        fmu.writestr("documentation/index.html", "<p>not unpacked</p>")
    return path


@functools.cache
def _library(version: str) -> bytes:
    if COMPILER is None:
        pytest.skip(NO_COMPILER)
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "tank.so"
        defines = ["-DFMI3"] if version == "3" else []
        subprocess.run(
            [COMPILER, "-shared", "-fPIC", "-O1", *defines, "-o", library, SOURCE, "-lm"],
            check=True,
        )
        return library.read_bytes()
