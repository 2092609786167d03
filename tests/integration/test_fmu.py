"""FMUs compiled here run in a child process, and whatever they do is said in a sentence."""

import asyncio
import contextlib
import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from broker.errors import Invalid, Unavailable
from simulators.fmu import description, model, process
from simulators.fmu.model import FmuModel
from simulators.fmu.process import MIB, FmuLimits
from testbed.scenario import fmu_equipment, loading
from testbed_scenarios.model import Scenario
from tests import leftovers, sources
from tests.services import fmu_tank

pytestmark = pytest.mark.skipif(
    fmu_tank.COMPILER is None, reason="no C compiler; on Debian: apt install gcc libc6-dev"
)
FAULT_AT_S = 0.5
LIMITS = FmuLimits(memory_bytes=300 * MIB, file_bytes=MIB)
SHORT = FmuLimits(memory_bytes=300 * MIB, file_bytes=MIB, answers_within_s=3)


@pytest.fixture(scope="module", params=["2", "3"])
def version(request):
    return request.param


@pytest.fixture(scope="module")
def tank(version, tmp_path_factory):
    return description.read(fmu_tank.built(tmp_path_factory.mktemp("fmu"), version))


@pytest.fixture(autouse=True)
def folders(monkeypatch):
    """The folder of temporary folders, which a test leaves empty; any user may enter it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        monkeypatch.setattr("tempfile.tempdir", name)
        yield folder
        assert list(folder.iterdir()) == []


def faulty(tank, fault, limits=LIMITS, **parameters):
    number = fmu_tank.FAULTS.index(fault)
    values = {"fault": number, "at": FAULT_AT_S, **parameters}
    return FmuModel(tank, parameters=values, limits=limits)


def sentence_of(fmu):
    """The error that the tank ends with in its sixth row."""
    with fmu:
        assert len(fmu.advance(5, {})) == 5
        with pytest.raises(Invalid) as error:
            fmu.advance(20, {})
    with pytest.raises(Invalid, match="has ended"):
        fmu.advance(1, {})
    return error.value


def test_rows_are_the_solution_of_the_tanks_equation(tank):
    gain, time_s = 1.5, 0.8
    with FmuModel(tank, parameters={"gain": gain, "time_constant": time_s}, period_s=0.25) as fmu:
        filled = fmu.advance(9, {"inflow_1": 2.0})
        emptied = fmu.advance(8, {"inflow_1": 0.0})
    assert [row.time_ns for row in filled + emptied] == [at * 250_000_000 for at in range(17)]
    for row in filled:
        level = gain * 2.0 * (1 - math.exp(-row.time_ns / 1e9 / time_s))
        assert row.values[0] == pytest.approx(level, abs=1e-12)
    for row in emptied:
        level = filled[-1].values[0] * math.exp(-(row.time_ns / 1e9 - 2.0) / time_s)
        assert row.values[0] == pytest.approx(level, abs=1e-12)
    assert [row.values[1] for row in filled + emptied] == list(range(17))
    assert [row.values[2] for row in filled] == [float(row.values[0] > 0.5) for row in filled]
    assert {row.anomaly for row in filled} == {None}


def test_rows_are_the_same_however_many_are_asked_for_at_once(tank):
    with FmuModel(tank) as fmu:
        whole = fmu.advance(30, {"inflow_1": 1.0})
    with FmuModel(tank, inputs={"inflow_1": 1.0}) as fmu:
        parts = [row for count in (1, 4, 25) for row in fmu.advance(count, {})]
    assert parts == whole


def test_the_rows_of_a_source_are_those_of_a_process_of_its_own(tank):
    with FmuModel(tank, inputs={"inflow_1": 1.0}) as fmu:
        advanced = fmu.advance(3, {})
        first, second = fmu.rows(), fmu.rows()
        rows = list(itertools.islice(first, 300))
        assert list(itertools.islice(second, 300)) == rows
        assert rows[:3] == advanced
        first.close()
        second.close()


def test_an_input_is_limited_to_its_range_and_an_unknown_one_refused(tank):
    with FmuModel(tank, parameters={"time_constant": 1e-3}) as fmu:
        assert fmu.advance(2, {"inflow_1": 99.0})[1].values[0] == pytest.approx(4.0)
        with pytest.raises(Invalid, match="has no input 'inflow'"):
            fmu.advance(1, {"inflow": 1.0})
        with pytest.raises(Invalid, match="is nan"):
            fmu.advance(1, {"inflow_1": math.nan})


@pytest.mark.parametrize("fault", ["segfault", "aborts", "overflow"])
def test_a_crash_names_fmu_signal_function_and_time(tank, fault):
    number = "SIGABRT" if fault == "aborts" else "SIGSEGV"
    error = sentence_of(faulty(tank, fault))
    assert error.message == f"the FMU tank.fmu crashed ({number}) in doStep at t=0.5 s"


def test_the_memory_of_a_large_testbed_is_not_taken_for_that_of_its_fmu(tank):
    ballast = b"x" * (400 * MIB)  # more than an FMU may use; a child begins as its parent's copy
    error = sentence_of(faulty(tank, "aborts"))
    assert error.message == "the FMU tank.fmu crashed (SIGABRT) in doStep at t=0.5 s"
    assert len(ballast) == 400 * MIB


def test_a_hang_is_named_after_its_bound(tank):
    fault = {"2": "endless", "3": "sleeps"}[tank.version]
    error = sentence_of(faulty(tank, fault, SHORT))
    assert error.message == "the FMU tank.fmu did not answer within 3 s in doStep at t=0.5 s"


@pytest.mark.parametrize("fault", ["memory", "reserves"])
def test_an_allocation_without_end_is_named(tank, fault):
    error = sentence_of(faulty(tank, fault))
    assert error.message == (
        "the FMU tank.fmu ran out of the 300 MiB of memory that it may use and crashed (SIGSEGV)"
        " in doStep at t=0.5 s"
    )


@pytest.mark.parametrize("fault", ["file_size", "prints"])
def test_a_file_without_end_is_named(tank, fault):
    error = sentence_of(faulty(tank, fault))
    assert error.message == (
        "the FMU tank.fmu wrote more than 1 MiB into one file in doStep at t=0.5 s"
    )


def test_an_error_of_the_fmu_comes_with_the_last_lines_of_its_log(tank):
    error = sentence_of(faulty(tank, "fails", note="the roof"))
    assert error.message == "the FMU tank.fmu returned error in doStep at t=0.5 s"
    assert error.hint == "its log ends: error: level 0 at step 5 of the roof"


def test_an_exit_of_the_fmu_is_named(tank):
    error = sentence_of(faulty(tank, "exits"))
    assert error.message == (
        "the FMU tank.fmu ended by itself with exit code 3 in doStep at t=0.5 s"
    )


def test_a_value_that_is_no_number_is_named(tank):
    with faulty(tank, "not_a_number") as fmu, pytest.raises(Invalid) as error:
        fmu.advance(20, {})
    assert error.value.message == "the FMU tank.fmu gave nan for level at t=0.5 s"


def test_an_fmu_that_forks_without_end_is_stopped_and_leaves_nothing(tank):
    with faulty(tank, "forks") as fmu:
        fmu.advance(5, {})
        group = host_of(fmu)
        with pytest.raises(Invalid, match=r"in doStep at t=0\.5 s"):
            fmu.advance(1, {})
        wait_for_group(group)


def test_an_fmu_reaches_no_network_and_changes_no_file_of_others(tank, folders):
    precious = folders / "precious"
    precious.write_text("ours")
    precious.chmod(0o666)
    missing = []
    for fault, expected, limit in (("network", -1.0, "network"), ("reads", 0.0, "files of")):
        with faulty(tank, fault, note=str(precious)) as fmu:
            rows = fmu.advance(6, {})
            missing.append(any(limit in sentence for sentence in fmu.missing_limits))
            assert missing[-1] or rows[-1].values[0] == expected
    precious.unlink()
    if all(missing):
        pytest.skip("this machine takes neither network nor files away from a process")


def test_the_limits_that_a_machine_lacks_are_known_before_an_fmu_runs(tank):
    with FmuModel(tank) as fmu:
        assert fmu.missing_limits == ()
        fmu.advance(1, {})
        assert process.missing_limits() == fmu.missing_limits


@pytest.mark.skipif(os.geteuid() != 0, reason="another user has no user to become")
def test_a_run_says_which_limit_its_fmu_lacked(tank, folders):
    folders.chmod(0o700)  # so that the FMU stays root: nobody else may enter its folder
    scenario = Scenario.model_validate(
        {"scenario": "tank", "duration": "1s", "equipment": {"tank": {"fmu": str(tank.path)}}}
    )
    assert any("only root may enter" in note for note in loading.notes(scenario))
    source, _ = fmu_equipment.source(tank.path, scenario.equipment["tank"], 0)
    asyncio.run(_one_row(source))
    (note,) = (each for each in source.notes if "only root" in each)
    assert note.startswith("the FMU tank.fmu ran without a limit: it runs as root")


async def _one_row(source):
    rows = await source.call(lambda: source.advance(1, {}))
    assert len(rows) == 1
    await source.close()


def test_a_scenario_without_an_fmu_asks_for_no_limit(monkeypatch):
    monkeypatch.setattr("sys.executable", "/nothing/that/could/be/started")
    rig = {"scenario": "rig", "duration": "1s", "equipment": {"rig": {"model": "pump-rig"}}}
    assert loading.notes(Scenario.model_validate(rig)) == []
    with pytest.raises(Unavailable, match="limits of this machine"):
        process.missing_limits()


def test_an_fmu_gets_nothing_of_our_environment(tank, monkeypatch):
    monkeypatch.setenv("TESTBED_CREDENTIAL", "fay.secret")
    with FmuModel(tank) as fmu:
        fmu.advance(1, {})
        pid = host_of(fmu)
        with open(f"/proc/{pid}/environ", "rb") as environment:  # noqa: PTH123 - of the kernel
            assert b"secret" not in environment.read()


def test_an_fmu_that_is_killed_is_said_to_be(tank):
    with FmuModel(tank) as fmu:
        fmu.advance(3, {})
        pid = host_of(fmu)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Invalid, match=r"the FMU tank\.fmu was killed in getOutput at t=0\.2 s"):
            fmu.advance(1, {})


OWNER = """
import sys
from pathlib import Path
from simulators.fmu import model

number = sys.argv[2]
fmu = model.load(Path(sys.argv[1]), parameters={"fault": number, "at": 0.1})
fmu.advance(1, {})
print(fmu._process._child.pid, fmu._process._folder, flush=True)
fmu.advance(2, {})
"""


def test_an_fmu_that_hangs_ends_with_a_testbed_that_is_killed(tank):
    command = [sys.executable, "-c", OWNER, tank.path, str(fmu_tank.FAULTS.index("sleeps"))]
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        command, cwd=sources.ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        pid, folder = owner.stdout.readline().split()
        owner.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        process, deadline_s = psutil.Process(int(pid)), time.monotonic() + 10
        while leftovers.runs(process):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)  # noqa: TID251 - the end of a process is real time
    shutil.rmtree(folder)  # of a process that was killed


def test_a_library_that_does_not_load_says_why(version, tmp_path, monkeypatch):
    monkeypatch.setattr(fmu_tank, "_library", lambda _: b"\x7fELF no code")
    path = fmu_tank.built(tmp_path, version)
    with model.load(path) as fmu, pytest.raises(Invalid) as error:
        fmu.advance(1, {})
    assert error.value.message.startswith("the FMU tank.fmu cannot be loaded: ")
    assert "file too short" in error.value.message or "ELF" in error.value.message


def test_a_token_that_the_code_does_not_know_gives_no_instance(tmp_path, version):
    path = fmu_tank.built(tmp_path, version, identity="{another}")
    with model.load(path) as fmu, pytest.raises(Invalid) as error:
        fmu.advance(1, {})
    assert error.value.message == "the FMU tank.fmu gave no instance in instantiate at t=0 s"


def host_of(fmu):
    """Id of the process that holds an FMU."""
    return fmu._process._child.pid


def wait_for_group(group):
    """Wait for processes that an FMU left and that were ended: they become children of ours."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, 0):
            pass
