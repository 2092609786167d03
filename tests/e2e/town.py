"""A server in use: a factory whose gateway publishes a rig, and a company that may read it.

The readers of the documents come into it; what they need is there as if others had typed it.
"""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from broker import tls
from tests.docs import walking
from tests.docs.blocks import ROOT
from tests.docs.walking import Walk
from tests.e2e.test_demo import TESTBED
from tests.services import free_port

MAPPING = ROOT / "examples/pump-rig/mapping.yaml"
RIG, TRIAL = "factory/pump-rig/rig", "company/trial/score"
ROWS = 3
"""Rows of the rig that are stored before anybody comes."""
STORED_WITHIN_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Town:
    """A running server, and the credentials of who uses it, by principal.

    ca: file of its authority, empty without TLS.  machine: URL of a rig's OPC UA server, empty for
    none.  begin: since when samples are stored.  stop: ends gateway and server.
    """

    folder: Path
    api: str
    broker: str
    ca: str
    stop: ExitStack
    credentials: Mapping[str, str]
    machine: str = ""
    begin: datetime

    def environment(self, principal: str, **variables: str) -> dict[str, str]:
        """The variables of a shell of somebody, none for ""; others are set beside."""
        if not principal:
            return variables
        own = {"TESTBED_API": self.api, "TESTBED_BROKER": self.broker, **variables}
        if self.ca:
            own["TESTBED_CA"] = self.ca
        return own | {"TESTBED_CREDENTIAL": self.credentials[principal]}

    def walk(self, folder: Path, principal: str, **more: Any) -> Walk:
        """A walk of somebody through documents; of somebody who is not signed in yet for "".

        more: fields of `Walk`; `environments` are those of other shells.
        """
        ours = {walking.API: self.api, walking.BROKER: self.broker}
        ours |= {"https://127.0.0.1:8600": self.api, "/etc/testbed/ca.pem": self.ca or "none.pem"}
        if self.machine:
            ours[walking.MACHINE] = self.machine
        own = {walking.PERSON: self.environment(principal)}
        return Walk(
            folder=folder,
            addresses=ours | more.pop("addresses", {}),
            environments=own | more.pop("environments", {}),
            begin=self.begin,
            given=self.credentials,
            **more,
        )

    def ask(self, principal: str, method: str, path: str, **content: Any) -> httpx.Response:
        """The answer of the API to a request of somebody."""
        return httpx.request(
            method,
            f"{self.api}/api/v1{path}",
            headers={"Authorization": f"Bearer {self.credentials[principal]}"},
            verify=tls.client_context(Path(self.ca)) if self.ca else True,
            timeout=20,
            **content,
        )

    def create(self, principal: str, path: str, /, **fields: Any) -> Any:
        """What the API answers to a POST of somebody, which it must not refuse."""
        answer = self.ask(principal, "POST", path, json=fields)
        assert answer.is_success, answer.text
        return answer.json()

    def with_credential(self, name: str, creator: str, path: str, /, **fields: Any) -> "Town":
        """The town with one credential more, which somebody creates by a POST."""
        created = self.create(creator, path, **fields)
        return replace(self, credentials={**self.credentials, name: created["credential"]})


@contextmanager
def founded(folder: Path, *organisations: str, secure: bool = True) -> Iterator[Town]:
    """Run a server with its data in `folder`; `factory` has the owner fay, `company` has cora."""
    folder.mkdir(parents=True, exist_ok=True)
    encrypted = ["--tls"] if secure else []
    ports = ("--port", str(free_port()), "--mqtt-port", str(free_port()))  # for a second start too
    with ExitStack() as stop:
        ready = stop.enter_context(started(folder, "up", *encrypted, *ports))
        town = Town(
            folder=folder,
            api=ready["api"],
            broker=ready["broker"],
            ca=str((folder / ready["ca"]).absolute()) if ready["ca"] else "",
            stop=stop,
            credentials={"administrator": ready["administrator"]},
            begin=datetime.now(UTC),  # noqa: TID251 - samples have real time stamps
        )
        for name in organisations:
            owner, kind = {"factory": ("fay", "partner"), "company": ("cora", "company")}[name]
            fields = {"id": name, "name": name, "kind": kind, "owner": owner}
            town = town.with_credential(owner, "administrator", "/organisations", **fields)
        yield town


@contextmanager
def serve(folder: Path, *, secure: bool = True) -> Iterator[Town]:
    """Run a server in which a gateway publishes a rig, which the company may read."""
    with ExitStack() as stack:
        town = stack.enter_context(founded(folder, "factory", "company", secure=secure))
        machine = stack.enter_context(started(folder, "simulate", "pump-rig", "--port", "0"))
        town = replace(town, machine=machine["url"])
        fields = {"principal": "town-gateway", "reads": [], "writes": _entries(RIG)}
        town = town.with_credential("town-gateway", "fay", "/credentials", **fields)
        town.stop.enter_context(_gateway(town))
        town = replace(town, begin=_stored(town))
        town.create("fay", "/grants", company="company", streams=_entries(RIG))
        fields = {"principal": "trial", "reads": _entries(RIG), "writes": _entries(TRIAL)}
        yield town.with_credential("trial", "cora", "/credentials", **fields)
        town.stop.close()  # before the machine, so that the gateway has it until its end


@contextmanager
def _gateway(town: Town) -> Iterator[None]:
    """Run the gateway of the rig."""
    mapping = yaml.safe_load(MAPPING.read_text())
    mapping["opcua"]["url"] = town.machine
    folder = town.folder / "gateway"
    folder.mkdir()
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))
    environment = walking.inherited() | town.environment("town-gateway")
    command = [*TESTBED, "gateway", "run", "mapping.yaml"]
    with (
        (folder / "gateway.log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log) as running,
    ):
        try:
            yield
        finally:
            running.terminate()
            running.wait(30)


def _stored(town: Town) -> datetime:
    """The time stamp of the first row but `ROWS`, once it is stored."""
    deadline_s = time.monotonic() + STORED_WITHIN_S
    while True:
        answer = town.ask("fay", "GET", f"/streams/{RIG}/history", params={"format": "csv"})
        rows = answer.text.splitlines()[1:] if answer.is_success else []
        if len(rows) > ROWS:
            return datetime.fromisoformat(rows[ROWS][:19] + "+00:00")
        assert time.monotonic() < deadline_s, answer.text
        time.sleep(0.2)  # noqa: TID251 - processes act in real time


def _entries(stream: str) -> list[dict[str, str]]:
    return [{"space": "live", "stream": stream}]


def ready_event(folder: Path, *arguments: str) -> Iterator[dict[str, Any]]:
    """Run a command, yield its `ready` event, and terminate it afterwards."""
    command = [*TESTBED, *arguments, "--json"]
    log = folder / f"{arguments[0]}.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, cwd=folder, env=walking.inherited(), stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield json.loads(line)
        finally:
            process.terminate()
            process.wait(30)


started = contextmanager(ready_event)
"""The same as a context."""
