"""Every command with --json prints one JSON document: an answer of the API in the API's own form.

The commands run in this process against one server, in the order in which a factory and a company
would use them.
"""

import asyncio
import json
import os
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from broker import api_client
from broker.batch import EquipmentKind
from broker.namespace import StreamAddress
from broker.responses.access import AccessResponse
from broker.responses.audit import AuditEventPage
from broker.responses.credentials import (
    NewPrincipalResponse,
    NewTokenResponse,
    PrincipalsResponse,
    TokensResponse,
)
from broker.responses.deployments import RunnerCodeResponse, RunnerList
from broker.responses.enrolment import EnrolmentCodeResponse, GatewaysResponse
from broker.responses.equipment import StreamPage, StreamResponse
from broker.responses.grants import (
    GrantPage,
    GrantResponse,
    GrantsResponse,
    ListingPage,
    ListingResponse,
    PauseResponse,
    RequestOutcomeResponse,
    ResumedResponse,
)
from broker.responses.operations import StatusResponse
from broker.responses.organisations import (
    MemberResponse,
    MembersResponse,
    NewMemberResponse,
    NewOrganisationResponse,
    OrganisationsResponse,
)
from broker.responses.retention import (
    DeletionPage,
    DeletionsResponse,
    RetentionResponse,
    RetentionsResponse,
)
from broker.responses.run_document import RunDocument
from broker.responses.runs import (
    ComparisonResponse,
    EvidenceResponse,
    RunPage,
    RunResponse,
    RunSummaryResponse,
)
from broker.responses.streams import DeadLetterPage, GapPage, HistoryResponse
from broker.streams import Signal, StreamSpec
from testbed import cli
from testbed.client import runs
from testbed.commands import simulate
from tests.e2e.town import ready_event

RIG = "factory/pump-rig/rig"
PASSWORD = "correct horse battery staple"
PROTOTYPE = ("init", "test", "check", "request")
RECORDING = ("import", "replay")
DEPLOYING = (
    *("deploy", "deployments", "image list", "image delete", "image prune", "secret set"),
    *(
        "secret list",
        "secret delete",
        "prototype push",
        "deployment show",
        "deployment logs",
        "deployment why",
    ),
    *("deployment metrics", "deployment stop", "deployment promote", "deployment rollback"),
)
ELSEWHERE = {
    **dict.fromkeys(("up", "api", "simulate csv", "simulate fmu", "tap"), "a line an event"),
    **dict.fromkeys([f"simulate {name}" for name in simulate.MODELS], "a line an event"),
    "simulate list": "tests/unit/testbed/simulator/test_machine.py",
    "demo": "tests/e2e/test_demo.py",
    "try": "tests/e2e/test_try.py",
    "score": "tests/e2e/test_demo.py",
    **dict.fromkeys(DEPLOYING, "tests/e2e/test_deployments.py"),
    "scenario serve": "tests/integration/test_boptest.py",
    **dict.fromkeys([f"prototype {name}" for name in PROTOTYPE], "tests/e2e/test_prototypes.py"),
    **dict.fromkeys(("run", "scenario init"), "tests/e2e/test_scenarios.py"),
    **dict.fromkeys([f"recording {name}" for name in RECORDING], "tests/e2e/test_commands.py"),
    **dict.fromkeys(
        ("gateway browse", "gateway check", "gateway trust"), "tests/e2e/test_trust.py"
    ),
}
"""Commands that run on, or that need a machine."""
STEPS = [
    ("admin", "organisation create factory --owner fay --kind partner", NewOrganisationResponse),
    ("admin", "organisation create company --owner cora --kind company", NewOrganisationResponse),
    ("admin", "organisation list", OrganisationsResponse),
    ("fay", "member add finn --role engineer", NewMemberResponse),
    ("fay", "member change finn --role auditor", MemberResponse),
    ("fay", "member email finn --email finn@factory.example", MemberResponse),
    ("fay", "member list", MembersResponse),
    ("fay", f"credential create gate --writes {RIG}", NewPrincipalResponse),
    ("fay", "credential list", PrincipalsResponse),
    ("gate", None, None),
    ("fay", "token create notebook --role owner", NewTokenResponse),
    ("fay", "token list", TokensResponse),
    ("fay", f"password --password '{PASSWORD}'", None),
    ("fay", f"sign-in fay --password '{PASSWORD}'", None),
    ("fay", "whoami", None),
    ("fay", "gateway code factory/pump-rig", EnrolmentCodeResponse),
    ("fay", "gateway enrol {code}", None),
    ("fay", "gateway show factory/pump-rig", GatewaysResponse),
    ("fay", "runner code site-1 --label edge --open-to company", RunnerCodeResponse),
    ("fay", "runner list", RunnerList),
    ("fay", "listing set factory/pump-rig --company company", ListingResponse),
    ("fay", "listing show factory/pump-rig", ListingResponse),
    ("cora", "listing list", ListingPage),
    ("cora", f"credential create box --reads {RIG} --reads run-a:{RIG}", NewPrincipalResponse),
    ("cora", f"grant ask {RIG} run-a:{RIG} run-b:{RIG} --purpose tests", RequestOutcomeResponse),
    ("cora", "grant ask factory/pump-rig --purpose tests", RequestOutcomeResponse),
    ("cora", "grant withdraw 3", GrantsResponse),
    ("fay", "grant approve 1", GrantsResponse),
    ("fay", "grant refuse 2", GrantsResponse),
    ("fay", f"grant give company run-c:{RIG}", GrantsResponse),
    ("fay", "grant revoke 4", GrantsResponse),
    ("fay", "grant show 1", GrantResponse),
    ("cora", "grant list", GrantPage),
    ("fay", "pause --company company", PauseResponse),
    ("fay", "resume --company company", ResumedResponse),
    ("cora", f"history {RIG} --from -10m --to now", HistoryResponse),
    ("fay", f"recording create valve --on-server --stream {RIG} --from yesterday", None),
    ("fay", "recording list", None),
    ("fay", "recording show server:1", None),
    ("fay", "recording verify server:1", None),
    ("fay", "recording export server:1 valve", None),
    ("fay", "recording list --on-server", None),
    ("fay", "recording delete server:1 --yes", None),
    ("fay", "access factory/pump-rig --at -1h", AccessResponse),
    ("fay", f"retention set {RIG} --keep-for 30d", RetentionResponse),
    ("fay", "retention list", RetentionsResponse),
    ("fay", f"delete {RIG} --yes", DeletionsResponse),
    ("fay", f"deletions {RIG}", DeletionPage),
    ("fay", "stream list", StreamPage),
    ("fay", f"stream show {RIG}", StreamResponse),
    ("fay", f"stream gaps {RIG} --from yesterday", GapPage),
    ("fay", f"stream dead-letters {RIG} --to 2026-01-01T00:00:00Z", DeadLetterPage),
    ("fay", "status --space live", StatusResponse),
    ("fay", "alarms --space live", StatusResponse),
    ("fay", "runs add run-1.json", RunSummaryResponse),
    ("fay", "runs add run-2.json", RunSummaryResponse),
    ("fay", "runs list", RunPage),
    ("fay", "runs show 1", RunResponse),
    ("fay", "runs evidence 1", EvidenceResponse),
    ("fay", "runs compare 1 2", ComparisonResponse),
    ("fay", "runs report 1", None),
    ("fay", "runs delete 1 --yes", None),
    ("fay", "audit list --from -1h", AuditEventPage),
    ("admin", "audit verify", None),
    ("admin", "backup backup", None),
    ("admin", "restore backup --data restored --confirm-rights", None),
    ("admin", "administrator renew --data restored", None),
    ("admin", "pki init pki", None),
    ("admin", "secrets init secrets", None),
    ("admin", "broker-config secrets --insecure", None),
]
"""(who, command line, model of the document or None for one that is not the API's)."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("json")
    yield from ready_event(folder, "up", "--port", "0", "--mqtt-port", "0")


@pytest.fixture
def prints(server, tmp_path, monkeypatch):
    """A function that runs a command as somebody, and returns its standard output."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("TESTBED_"):
            monkeypatch.delenv(name)
    settings = {
        "TESTBED_API": server["api"],
        "TESTBED_BROKER": server["broker"],
        "TESTBED_GATEWAY_IDENTITY": str(tmp_path / "identity"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
    }

    def run(credential, line):
        result = CliRunner().invoke(
            cli.app, line, env=settings | {"TESTBED_CREDENTIAL": credential}
        )
        assert result.exit_code == 0, f"testbed {line}\n{result.stderr}"
        return result.stdout

    umask = os.umask(0o077)
    yield run
    os.umask(umask)
    structlog.reset_defaults()


def with_json():
    """Every command that has --json."""

    def leaves(command, path=()):
        for name, child in getattr(command, "commands", {}).items():
            yield from leaves(child, (*path, name))
        if any("--json" in parameter.opts for parameter in command.params):
            yield " ".join(path)

    return set(leaves(cli.loaded_root()))


async def register(url: str, credential: str) -> None:
    address = StreamAddress.parse(RIG)
    async with api_client.connect(url, credential) as connection:
        await connection.register_equipment(address.owner, name="rig", kind=EquipmentKind.SIMULATED)
        await connection.register_spec(StreamSpec(address, (Signal("Pressure", unit="bar"),)))


def write_runs() -> None:
    """Two files of runs, as `testbed run --server` leaves them."""
    for seed in (1, 2):
        document = RunDocument.model_validate(RunDocument.example() | {"seed": seed})
        run = runs.handover(document, "<p>a report</p>")
        Path(f"run-{seed}.json").write_bytes(runs.to_json(run))


@pytest.mark.timeout(180)
def test_every_document_is_the_one_that_the_api_sent(server, prints):
    credentials, code = {"admin": server["administrator"]}, ""
    write_runs()
    for who, line, model in STEPS:
        if line is None:
            asyncio.run(register(server["api"], credentials["gate"]))
            continue
        words = line.format(code=code)
        if words.startswith("password"):
            prints(credentials[who], words)
            continue
        document = json.loads(prints(credentials[who], f"{words} --json"))
        if model is not None:
            answer = model.model_validate(document)
            assert answer.as_json() == document, line
        if line.startswith(("organisation create", "credential create")):
            credentials[document.get("person") or document["principal"]] = document["credential"]
        code = document["code"] if model is EnrolmentCodeResponse else code


def test_every_command_with_json_is_run_here_or_runs_on():
    lines = [line for _, line, _ in STEPS if line is not None]
    run_here = {
        name for name in with_json() if any(f"{line} ".startswith(f"{name} ") for line in lines)
    }
    assert run_here | set(ELSEWHERE) == with_json()
    assert not run_here & set(ELSEWHERE)
