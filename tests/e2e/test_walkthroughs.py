"""The guides' commands are run as they stand: by the factory's engineer and by the company."""

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.walking import API, BROKER, ROOT, Walk, commands, walking
from tests.e2e.test_demo import TESTBED, run

OPEN = ROOT / "docs/how-to/open-a-machine.md"
USE = ROOT / "docs/how-to/use-a-machine.md"
FIRST = ROOT / "docs/how-to/first-reader.md"
AUDIT = ROOT / "docs/how-to/audit.md"
MAPPING = ROOT / "examples/pump-rig/mapping.yaml"


def ready_event(folder: Path, *arguments: str) -> Iterator[dict[str, str]]:
    """Run a command, yield its `ready` event, and terminate it afterwards."""
    command = [*TESTBED, *arguments, "--json"]
    log = folder / f"{arguments[0]}.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield json.loads(line)
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    yield from ready_event(tmp_path, "up", "--port", "0", "--mqtt-port", "0")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[dict[str, str]]:
    yield from ready_event(tmp_path, "simulate", "pump-rig", "--port", "0")


def founded(server: dict[str, str], organisation: str, kind: str, owner: str) -> str:
    """The credential of a new organisation's owner."""
    environment = {"TESTBED_API": server["api"], "TESTBED_CREDENTIAL": server["administrator"]}
    create = ["organisation", "create", organisation, "--owner", owner, "--kind", kind, "--json"]
    done = run(*create, environment=environment)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["credential"])


def test_a_factory_opens_a_machine_and_a_company_uses_it(tmp_path, server, machine):
    addresses = {API: server["api"], BROKER: server["broker"]}
    fay = founded(server, "factory", "partner", "fay")
    cora = founded(server, "company", "company", "cora")
    with (
        walking(tmp_path / "factory", addresses, fay) as factory,
        walking(tmp_path / "company", addresses, cora) as company,
    ):
        mapping = yaml.safe_load(MAPPING.read_text())
        mapping["opcua"]["url"] = machine["url"]
        (factory.folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))

        assert "profile fay, by the last sign-in" in factory.step(OPEN, "1. Sign in")
        assert "finn" in factory.step(OPEN, "2. Add your people")
        enrolled = factory.step(OPEN, "3. Enrol")
        key = factory.folder / "testbed-data/gateway-identity/key.pem"
        assert key.stat().st_mode & 0o777 == 0o600
        (fingerprint,) = [
            line.removeprefix("fingerprint ")
            for line in enrolled.splitlines()
            if line.startswith("fingerprint ")
        ]
        assert enrolled.count(fingerprint) == 2

        company.step(USE, "1. Sign in")
        assert "factory/pump-rig" not in _listed(company)
        listed = factory.step(OPEN, "4. List")
        assert "ask before you publish" in listed
        assert "Pressure [bar]" in company.step(USE, "2. Find")
        assert "asked" in company.step(USE, "3. Ask")

        answered = factory.step(OPEN, "5. Answer")
        assert "would read factory/pump-rig/rig in live" in answered
        assert "may read factory/pump-rig/rig in live" in answered
        read = company.step(USE, "4. Read")
        assert "time,Accelerometer1RMS" in read
        company.waits_for(0, r"^\[-?[\d. ]+\]$")

        watched = factory.step(OPEN, "6. Watch")
        for words in ("│ company      │ cora ", "│ history │", "to find out why the pump stalls"):
            assert words in watched
        assert "count again" in factory.step(OPEN, "7. Stop it")
        company.waits_for(0, "is paused by factory|the broker refused to subscribe")
        assert "is locked out" in factory.step(OPEN, "A gateway is lost")
        factory.waits_for(0, "broker was not reached")


def test_who_audits_gives_a_report_a_token_of_that_role_alone(tmp_path, server):
    fay = founded(server, "factory", "partner", "fay")
    addresses = {API: server["api"], BROKER: server["broker"]}
    with walking(tmp_path / "report", addresses, fay) as walk:
        for line in (
            f"export TESTBED_API={API}",
            "export TESTBED_CREDENTIAL=…",
            "testbed member change fay --role owner --role auditor",
        ):
            walk._type("person", line)
        output = walk.step(AUDIT, "A report that runs by itself")
        assert "it may do what auditor may, and no more." in output
        assert re.search(r"│ for the report +│ auditor +│", output)
        assert re.search(r"│ first token +│ all roles of its person +│", output)
        assert '"action":"manage"' in output
        environment = {"TESTBED_API": server["api"], "TESTBED_CREDENTIAL": walk.shown["credential"]}
        for arguments in (["member", "add", "finn", "--role", "owner"], ["token", "create"]):
            done = run(*arguments, environment=environment)
            assert (done.returncode, "this token holds auditor alone" in done.stderr) == (2, True)
        done = run("token", "create", "--role", "boss", environment=environment)
        assert (done.returncode, "'auditor'" in done.stderr) == (2, True)


MOST_COMMANDS = 12
FREE_PORTS = {
    "testbed up": "testbed up --port 0 --mqtt-port 0",
    "testbed simulate pump-rig": "testbed simulate pump-rig --port 0",
}
READY = {"testbed up": "Ctrl-C stops it", "testbed simulate": r"serving (opc\.tcp://[\d.:]+)"}


def test_from_nothing_to_a_first_approved_reader_in_twelve_commands_and_no_setting(tmp_path):
    typed = [command for _, command in commands(FIRST, "")]
    assert len(typed) <= MOST_COMMANDS
    assert not [command for command in typed if "export" in command or "TESTBED_" in command]
    with walking(tmp_path / "here", FREE_PORTS) as walk:
        for number, command in enumerate(typed, 1):
            output = walk._type("person", command)
            _wait_until_ready(walk, command)
            if number == len(typed):
                _read_until_there_are_samples(walk, command, output)
        profiles = sorted(path.name for path in walk.folder.rglob("profiles/*"))
        assert profiles == ["administrator.json", "cora.json", "fay.json"]
        assert "paused" not in walk._type("person", "testbed grant show 1 --as cora")
        address = "factory/pump-rig/rig"
        walk._type("person", f"python {_reader_of(walk.folder, address)}")  # the last sign-in: cora
        walk.waits_for(len(walk.running) - 1, r"^\[-?[\d. ]+\]$")


def _wait_until_ready(walk: Walk, command: str) -> None:
    """Wait until a command that goes on does what the next one needs."""
    for begin, pattern in READY.items():
        if command.startswith(begin):
            walk.waits_for(len(walk.running) - 1, pattern)
    if command.startswith("testbed simulate"):
        log = walk.log(len(walk.running) - 1)
        walk.addresses["opc.tcp://127.0.0.1:4840"] = re.search(READY["testbed simulate"], log)[1]
    if command.startswith("testbed gateway run"):
        walk.waits_for(len(walk.running) - 1, "enrolled as gateway-")
        registered = walk.folder / "testbed-data/gateway/factory.pump-rig.live.sqlite"
        wait_until(registered.exists)


def _read_until_there_are_samples(walk: Walk, command: str, output: str) -> None:
    outputs = [output]

    def has_samples() -> bool:
        if "\n20" not in outputs[-1]:
            outputs.append(walk._type("person", command))
        return "\n20" in outputs[-1]

    wait_until(has_samples)
    assert outputs[-1].startswith("time,")


def _reader_of(folder: Path, address: str) -> Path:
    """A program of ten lines that names its stream by the address."""
    program = (ROOT / "examples/ten_lines.py").read_text()
    path = folder / "reader.py"
    path.write_text(program.replace('"rig"', f'"{address}"'))
    return path


def wait_until(is_so: Callable[[], bool], within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.2)  # noqa: TID251 - processes act in real time


def _listed(walk) -> str:
    return walk._type("person", "testbed listing list")
