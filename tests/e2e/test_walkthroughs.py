"""The guides' commands are run as they stand: by the factory's engineer and by the company."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docs.walking import API, ROOT, walking
from tests.e2e.test_demo import TESTBED, run

OPEN = ROOT / "docs/how-to/open-a-machine.md"
USE = ROOT / "docs/how-to/use-a-machine.md"
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
    doors = (server["api"], server["broker"])
    fay = founded(server, "factory", "partner", "fay")
    cora = founded(server, "company", "company", "cora")
    with (
        walking(tmp_path / "factory", *doors, fay) as factory,
        walking(tmp_path / "company", *doors, cora) as company,
    ):
        mapping = yaml.safe_load(MAPPING.read_text())
        mapping["opcua"]["url"] = machine["url"]
        (factory.folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))

        factory.step(OPEN, "1. Sign in")
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
    with walking(tmp_path / "report", server["api"], server["broker"], fay) as walk:
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


def _listed(walk) -> str:
    return walk._type("person", "testbed listing list")
