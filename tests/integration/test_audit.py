"""What the audit tells: of everything that is asked of the API, and of who is on the bus."""

import asyncio
import contextlib
import json
import sqlite3
import sys

import orjson
import pytest
import structlog
from pydantic import SecretStr

from broker import api_client, audit_head
from broker.audit_head import HeadSigner
from broker.batch import EquipmentKind
from broker.bus import client
from broker.clock import WallClock
from broker.errors import Forbidden, Unavailable
from broker.rights import Role
from broker.settings import BusSettings
from broker.streams import Signal, StreamSpec
from gateway.uplink import audit_anchors
from testbed.client import audit as room
from testbed_api import persistence
from testbed_api.audit.journal import KEY, Journal
from testbed_api.domain import audit
from testbed_api.domain.audit import AuditOutcome, ChainLink, Event, OtherAction
from testbed_api.domain.bus_refusals import BusAct
from testbed_api.http import request_context
from testbed_api.http.app import create_app
from testbed_api.registry import sqlite
from testbed_api.registry.audit import EventFilter
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.settings import ServerSettings
from tests.integration.api_bed import EQUIPMENT, RIG, STREAM, assert_problem, stored
from tests.integration.test_server import serving
from tests.owners import founded

MEMBERS = "/organisations/factory/members"
GRANTED = {"company": "company", "streams": [{"stream": str(RIG)}], "purpose": "to try"}
PASSWORD = "correct horse battery"
CLOCK = WallClock()


@pytest.fixture
async def auditor(bed):
    return await bed.person("ann", "testbed", Role.AUDITOR)


async def told(bed, after=0):
    return [each.event for each in await bed.registry.audit.events(EventFilter(), after, 10_000)]


async def last(bed, answer):
    """The event of the request that was answered so: the newest."""
    event = (await told(bed))[-1]
    assert event.request == answer.headers["x-request-id"]
    return event


def facts(event):
    return orjson.loads(event.details)


def said(event):
    who = (event.principal, event.organisation, event.owner)
    return event.action, event.target, event.outcome, who


@pytest.mark.timeout(60)  # each try is an argon2 hash
async def test_signing_in_and_what_changes_how(bed, owner):
    body = {"person": "fay", "password": PASSWORD}
    put = await bed.ask(owner, "PUT", "/me/password", json={"password": PASSWORD})
    event = await last(bed, put)
    fay = ("fay", "factory", "factory")
    assert said(event) == ("enter", "PUT /me/password", "allowed", fay)
    wrong = await bed.ask({}, "POST", "/sign-in", json=body | {"password": "a guess"})
    event = await last(bed, wrong)
    assert said(event) == ("sign-in", "POST /sign-in", "refused", ("fay", None, None))
    assert event.reason == "the person or the password is not right"
    assert event.source == "127.0.0.1"
    right = await bed.ask({}, "POST", "/sign-in", json=body)
    assert said(await last(bed, right)) == ("sign-in", "POST /sign-in", "allowed", fay)
    for _ in range(10):
        stopped = await bed.ask({}, "POST", "/sign-in", json=body | {"password": "a guess"})
    assert stopped.status_code == 429
    await bed.clock.advance(1)
    await bed.api.journal.settle(bed.clock.now_ns())
    counted = (await told(bed))[-1]
    assert (counted.outcome, facts(counted)) == ("refused", {"counted": 6})
    assert PASSWORD not in str(await told(bed))
    assert "guess" not in str(await told(bed))


async def test_members_tokens_and_machines(bed, owner, admin):
    firm = {"id": "firm", "name": "Firm", "kind": "company", "owner": "eve"}
    answer = await bed.ask(admin, "POST", "/organisations", json=firm)
    event = await last(bed, answer)
    assert said(event)[:3] == ("found", "POST /organisations", "allowed")
    assert (facts(event)["founded"], facts(event)["made"]) == ("firm", "eve")
    secrets = [answer.json()["credential"]]
    for method, path, body, expected in (
        ("POST", MEMBERS, {"person": "finn", "roles": ["engineer"]}, {"made": "finn"}),
        ("PUT", f"{MEMBERS}/finn", {"roles": ["auditor"]}, {"before": ["engineer"]}),
        ("DELETE", f"{MEMBERS}/finn", None, {"ended": "finn"}),
        ("POST", "/tokens", {"label": "laptop"}, {"label": "laptop"}),
        ("POST", "/tokens", {"roles": ["owner"]}, {"roles": ["owner"]}),
        ("POST", "/credentials", {"principal": "box"}, {"made": "box", "kind": "machine"}),
        ("POST", "/credentials/box/tokens", {}, {"principal": "box"}),
        ("DELETE", "/credentials/box", None, {"ended": "box"}),
    ):
        answer = await bed.ask(owner, method, path, json=body)
        assert answer.is_success, answer.text
        event = await last(bed, answer)
        assert (event.target, event.outcome) == (f"{method} {path}", "allowed")
        assert facts(event).items() >= expected.items()
        if answer.content and "credential" in answer.json():
            secrets.append(answer.json()["credential"])
    (token, *_) = (await bed.ask(owner, "GET", "/tokens")).json()["items"]
    answer = await bed.ask(owner, "DELETE", f"/tokens/{token['id']}")
    assert facts(await last(bed, answer)) == {"principal": "fay", "token": token["id"]}
    whole = str(await told(bed))
    assert len(secrets) == 6
    assert not [each for each in secrets if each.partition(".")[2] in whole]


@pytest.mark.usefixtures("rig")
async def test_grants_and_their_end(bed, owner):
    answer = await bed.ask(owner, "POST", "/grants", json=GRANTED | {"expires_in_s": 60})
    event = await last(bed, answer)
    assert said(event)[:3] == ("share", "POST /grants", "allowed")
    expected = {"company": "company", "purpose": "to try", "state": "granted"}
    assert facts(event).items() >= (expected | {"streams": [f"live:{RIG}"]}).items()
    (grant,) = answer.json()["items"]
    answer = await bed.ask(owner, "DELETE", f"/grants/{grant['id']}")
    event = await last(bed, answer)
    assert (event.target, facts(event)["state"]) == (f"DELETE /grants/{grant['id']}", "revoked")
    again = await bed.ask(owner, "DELETE", f"/grants/{grant['id']}")
    event = await last(bed, again)
    assert (event.outcome, again.status_code) == ("failed", 409)
    assert "revoked already" in event.reason


@pytest.mark.usefixtures("rig")
async def test_every_refusal(bed, owner, reader):
    eve = await bed.person("eve", "company", Role.OWNER)
    hidden = await bed.ask(eve, "GET", f"{STREAM}/history")
    event = await last(bed, hidden)
    whose = ("eve", "company", "factory")
    assert said(event) == ("subscribe", f"GET {STREAM}/history", "refused", whose)
    forbidden = await bed.ask(reader, "PUT", f"/equipment/{RIG.owner}", json=EQUIPMENT)
    assert_problem(forbidden, 403, "forbidden")
    event = await last(bed, forbidden)
    assert said(event)[2:] == ("refused", ("detector", "factory", "factory"))
    assert "may not register" in event.reason
    nobody = await bed.ask({}, "GET", "/streams")
    assert said(await last(bed, nobody))[2:] == ("refused", (None, None, None))
    wrong = {"Authorization": "Bearer fay.AAAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    claimed = await bed.ask(wrong, "GET", "/streams")
    assert said(await last(bed, claimed))[2:] == ("refused", ("fay", None, None))
    nowhere = await bed.ask(owner, "GET", "/nowhere")
    assert said(await last(bed, nowhere))[:3] == ("unknown-route", "GET /nowhere", "refused")
    # what is wrong in itself may hold a secret
    long = {"person": "fay", "password": "s3cret" * 50}
    invalid = await bed.ask({}, "POST", "/sign-in", json=long)
    event = await last(bed, invalid)
    assert (invalid.status_code, event.outcome, event.reason) == (422, "failed", "invalid")
    assert "s3cret" not in str(await told(bed))


async def test_an_export_with_its_span_and_how_many_samples(bed, owner, rig):
    await stored(bed, rig, 20)
    params = {"from": "2026-11-23T12:00:00Z", "to": "2026-11-23T12:00:10Z", "signals": "Pressure"}
    for form in ("json", "csv"):
        answer = await bed.ask(owner, "GET", f"{STREAM}/history", params=params | {"format": form})
        event = await last(bed, answer)
        assert said(event)[:3] == ("subscribe", f"GET {STREAM}/history", "allowed")
        assert facts(event) == {
            "space": "live",
            "from": "2026-11-23T12:00:00.000000000Z",
            "to": "2026-11-23T12:00:10.000000000Z",
            "signals": ["Pressure"],
            "points": None,
            "samples": 10,
        }
    windows = params | {"every": "5000ms", "how": "max"}
    event = await last(bed, await bed.ask(owner, "GET", f"{STREAM}/history", params=windows))
    expected = {"every": "5s", "how": "max", "samples": 2}
    assert {name: facts(event)[name] for name in expected} == expected
    before = len(await told(bed))
    await bed.ask(owner, "GET", "/me")
    await bed.ask(owner, "GET", STREAM)
    assert len(await told(bed)) == before  # they hand out no data


async def test_an_example_that_somebody_looks_at(bed, owner, rig):
    await stored(bed, rig, 20)
    span = {"from": "2026-11-23T12:00:00.000000000Z", "to": "2026-11-23T12:00:10.000000000Z"}
    sample = {"space": "live", "stream": str(RIG)} | span
    path = f"/equipment/{RIG.owner}"
    await bed.ask(owner, "PUT", f"{path}/listing", json={"everybody": True, "sample": sample})
    event = await last(bed, await bed.ask(owner, "GET", f"{path}/sample"))
    assert said(event)[:3] == ("sample", f"GET {path}/sample", "allowed")
    assert facts(event) == sample | {"samples": 21}


async def test_what_administrators_and_owners_do_to_data(bed, admin, owner, rig):
    await stored(bed, rig, 5)
    await bed.api.ledger.keep_specs([("live", rig)], 1)
    answer = await bed.ask(owner, "PUT", f"{STREAM}/retention", json={"keep_days": 30})
    event = await last(bed, answer)
    assert (event.action, facts(event)) == ("share", {"keep_s": 30 * 86_400})
    await bed.clock.advance(60)
    body = {"why": "a trial", "from": "2026-11-23T12:00:00Z"}
    answer = await bed.ask(owner, "POST", f"{STREAM}/deletions", json=body)
    event = await last(bed, answer)
    assert (event.outcome, facts(event)["samples"], facts(event)["why"]) == (
        "allowed",
        11,
        "a trial",
    )
    for path in ("/backup/tables", f"/backup/samples/live/{RIG}"):
        answer = await bed.ask(admin, "GET", path)
        event = await last(bed, answer)
        assert said(event)[:3] == ("operate", f"GET {path}", "allowed")
        assert event.principal == "ada"


async def test_events_wait_in_order_while_the_registry_takes_none(tmp_path, monkeypatch):
    monkeypatch.setattr(sqlite, "BUSY_S", 0)
    async with open_engine(tmp_path) as engine:
        registry = Registry(engine)
        journal = Journal(registry)
        with contextlib.closing(sqlite3.connect(tmp_path / "registry.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            for at in range(3):
                await journal.tell(Event(at, "operate", f"GET /{at}", AuditOutcome.ALLOWED))
            other.rollback()
            assert await registry.audit.events(EventFilter(), 0, 10) == []
            await journal.tell(Event(3, "operate", "GET /3", AuditOutcome.ALLOWED))
            targets = [
                each.event.target for each in await registry.audit.events(EventFilter(), 0, 10)
            ]
            assert targets == [f"GET /{at}" for at in range(4)]
            other.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr("testbed_api.audit.journal.MOST_WAITING", 5)
            for at in range(4, 12):
                await journal.tell(Event(at, "operate", f"GET /{at}", AuditOutcome.ALLOWED))
            other.rollback()
        await journal.settle(20)
        *waiting, last = [each.event for each in await registry.audit.events(EventFilter(), 4, 10)]
        assert [each.target for each in waiting] == [f"GET /{at}" for at in range(7, 12)]
        assert (last.outcome, facts(last)) == ("failed", {"lost": 3})


async def test_no_line_of_a_log_or_header_can_be_forged(bed):
    answer = await bed.ask({}, "GET", "/equipment/a%0d%0aX-Evil:%201/%1b%5b2J%00")
    event = await last(bed, answer)
    assert event.target == r"GET /equipment/a\r\nX-Evil: 1/\x1b[2J\x00"
    assert "x-evil" not in answer.headers


async def test_every_answer_has_an_id_of_its_own_and_a_problem_repeats_it(bed, owner):
    mine = {"X-Request-Id": "forged"}
    answers = [
        await bed.ask(owner | mine, "GET", path) for path in ("/me", "/health", "/streams/x")
    ]
    ids = [each.headers["x-request-id"] for each in answers]
    assert len(set(ids)) == 3
    assert "forged" not in ids
    assert answers[-1].json()["request"] == ids[-1]


async def test_a_bug_is_told_under_the_number_that_its_log_has(bed, owner, monkeypatch):
    async def fail(*_args, **_more):
        raise LookupError

    monkeypatch.setattr("testbed_api.registry.principals.PrincipalRepository.add", fail)
    with structlog.testing.capture_logs() as logged:
        answer = await bed.ask(owner, "POST", "/credentials", json={"principal": "box"})
    assert answer.status_code == 500
    event = (await told(bed))[-1]
    assert (event.outcome, event.principal) == ("failed", "fay")
    (line,) = [each for each in logged if each["event"] == "request failed"]
    assert line["request"] == event.request == answer.json()["request"]
    assert event.request in answer.json()["detail"]


@pytest.mark.usefixtures("rig")
async def test_who_sees_which_events_and_that_nobody_changes_them(bed, owner, auditor, admin):
    eve = await bed.person("eve", "company", Role.OWNER)
    fred = await bed.person("fred", "factory", Role.ENGINEER)
    agent = await bed.person("agnes", "company", Role.AUDITOR)
    await bed.ask(eve, "GET", f"{STREAM}/history")
    await bed.ask(eve, "POST", "/tokens", json={})
    for who, everything in ((owner, False), (auditor, True), (admin, True), (agent, False)):
        page = (await bed.ask(who, "GET", "/audit", params={"limit": 1000})).json()
        assert page["all"] is everything
        owners = {each["owner"] for each in page["items"]}
        assert (owners > {"factory"}) is (everything or who is agent)
    mine = (await bed.ask(owner, "GET", "/audit")).json()["items"]
    assert ("eve", "refused") in {(each["principal"], each["outcome"]) for each in mine}
    assert all("factory" in (each["owner"], each["organisation"]) for each in mine)
    assert_problem(await bed.ask(fred, "GET", "/audit"), 403, "forbidden")
    params = {"principal": "eve", "action": "subscribe", "from": "2026-01-01T00:00:00Z"}
    (event,) = (await bed.ask(auditor, "GET", "/audit", params=params)).json()["items"]
    assert event["target"] == f"GET {STREAM}/history"
    nonsense = await bed.ask(auditor, "GET", "/audit", params={"action": "nonsense"})
    assert_problem(nonsense, 422, "invalid", "no event has the action 'nonsense'", "sign-in")
    first = (await bed.ask(auditor, "GET", "/audit", params={"limit": 1})).json()
    assert (len(first["items"]), first["next"]) == (1, 1)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("/audit", "/audit/heads", "/audit/key"):
            assert (await bed.ask(auditor, method, path)).status_code == 405
    for method, path, body in (
        ("POST", "/grants", GRANTED),
        ("PUT", f"/equipment/{RIG.owner}", EQUIPMENT),
        ("POST", "/organisations", {"id": "x", "name": "x", "kind": "company", "owner": "y"}),
        ("GET", f"{STREAM}/history", None),
    ):
        assert (await bed.ask(auditor, method, path, json=body)).status_code in {403, 404}


async def test_the_chain_that_the_api_shows_is_whole(bed, auditor):
    for at in range(5):
        await bed.ask({}, "GET", f"/equipment/x/{at}")
    await bed.api.anchoring.sign(bed.api.bus)  # there is no broker: the head is kept all the same
    page = (await bed.ask(auditor, "GET", "/audit")).json()
    signed = (await bed.ask(auditor, "GET", "/audit/heads")).json()["items"]
    (newest,) = (await bed.ask(auditor, "GET", "/audit/heads", params={"newest": True})).json()[
        "items"
    ]
    key = (await bed.ask(auditor, "GET", "/audit/key")).json()["key"]
    assert signed == [newest]
    held = [audit_head.Head.from_json(each) for each in signed]
    links = [ChainLink.of(each) for each in page["items"]]
    assert len(links) >= 5
    assert audit.verify(links, held, [key]) is None
    assert audit.verify(links[:-3], held, [key]) is not None
    assert audit.verify(links, held, [HeadSigner.from_seed("08" * 32).key]) is not None


# --- the server -----------------------------------------------------------------------------------


async def on_the_bus(server, credential, client_id):
    bus_settings = BusSettings(broker=f"mqtt://{server.broker}", credential=SecretStr(credential))
    async with client.open(bus_settings, CLOCK, client_id=client_id) as bus:
        await bus.ready()


async def until(door, wanted, **params):
    """Return the events once there are so many."""
    async with asyncio.timeout(10):
        while True:
            events = (await door.request("GET", "/audit", params=params))["items"]
            if len(events) >= wanted:
                return events


@contextlib.asynccontextmanager
async def running(folder):
    """A server, its administrator's client, and a gateway's credential with a stream registered."""
    async with (
        serving(folder) as server,
        founded(f"http://{server.api}", server.administrator) as owners,
        api_client.connect(f"http://{server.api}", server.administrator) as door,
    ):
        body = {"principal": "gateway", "equipment": str(RIG.owner)}
        credential = (await owners.request("POST", "/credentials", json=body))["credential"]
        async with api_client.connect(f"http://{server.api}", credential) as gateway:
            await gateway.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)
            await gateway.register_spec(StreamSpec(RIG, (Signal("p"),)))
        yield server, owners, door, credential


@pytest.mark.timeout(60)
async def test_who_is_on_the_bus_or_was_not_let_in(tmp_path):
    async with running(tmp_path) as (server, _, door, secret):
        await on_the_bus(server, secret, "gateway--1")
        (came,) = await until(door, 1, action="connect")
        (went,) = await until(door, 1, action="disconnect")
        for event in (came, went):
            assert (event["principal"], event["organisation"]) == ("gateway", "factory")
            assert event["outcome"] == "allowed"
        assert came["source"] == "127.0.0.1"
        session = json.loads(came["details"])
        assert session["client_id"] == "gateway--1"
        assert session["connection"] == json.loads(went["details"])["connection"]
        for credential, client_id in (
            ("gateway.AAAAAAAAAAAAAAAAAAAAAAAA", "gateway"),
            ("nobody.AAAAAAAAAAAAAAAAAAAAAAAA", "nobody"),
            (secret, "somebody-else"),
        ):
            with pytest.raises((Forbidden, Unavailable)):
                await on_the_bus(server, credential, client_id)
        refused = [each for each in await until(door, 4, action="connect") if each != came]
        assert {each["outcome"] for each in refused} == {"refused"}
        assert {(each["principal"], each["reason"]) for each in refused} == {
            ("gateway", "the credential is not right"),
            ("nobody", "the credential is not right"),
            ("gateway", "its client id is not its principal's"),
        }


@pytest.mark.timeout(60)
async def test_who_follows_a_stream_over_http_is_told_at_its_beginning_and_its_end(tmp_path):
    async with running(tmp_path) as (_, owners, door, _credential):
        async with owners.doors["factory"].stream(f"{STREAM}/live") as live:
            chunks = live.aiter_bytes()
            await anext(chunks)
            (began,) = await until(door, 1, action="subscribe")
        ended = (await until(door, 2, action="subscribe"))[-1]
    for event in (began, ended):
        assert (event["target"], event["outcome"]) == (f"GET {STREAM}/live", "allowed")
    assert json.loads(began["details"]) == {"batches": 0, "space": "live"}
    assert json.loads(ended["details"]) == {"batches": 0, "ended": True, "space": "live"}


@pytest.mark.timeout(60)
async def test_anchors_reach_the_gateways_disk_and_fit_the_chain(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed_api.audit.journal.SIGN_EVERY_S", 0.5)
    path, folder = tmp_path / "rig.anchors.jsonl", tmp_path / "data"
    async with running(folder) as (server, _, _door, credential):
        bus_settings = BusSettings(
            broker=f"mqtt://{server.broker}", credential=SecretStr(credential)
        )
        async with (
            client.open(bus_settings, CLOCK, client_id="gateway") as bus,
            asyncio.timeout(10),
            asyncio.TaskGroup() as tasks,
        ):
            keeping = tasks.create_task(audit_anchors.store(bus, RIG.owner, path), name="anchors")
            while not path.exists() or not path.read_bytes():
                await CLOCK.sleep(0.05)
            keeping.cancel()
    signer = HeadSigner.from_seed((folder / KEY).read_text())
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600
    async with persistence.open_exclusive(ServerSettings(folder=folder)) as data:
        links = await data.registry.audit.events(EventFilter(), 0, 1_000)
        signed = [each for _, each in await data.registry.audit.heads(0, 1_000)]
    held = room.read_anchors(path)
    assert audit.verify(links, [*signed, *held], [signer.key]) is None
    assert audit.verify(links[: held[-1].count - 1], held, [signer.key]) is not None
    async with serving(folder):
        pass
    async with persistence.open_exclusive(ServerSettings(folder=folder)) as data:
        links = await data.registry.audit.events(EventFilter(), 0, 1_000)
        head = await data.registry.audit.newest_head()
        assert (head.count, head.hash) == (len(links), links[-1].hash)  # signed at the end


async def command(server, credential, *words):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "testbed",
        "audit",
        *words,
        env={
            "TESTBED_API": f"http://{server.api}",
            "TESTBED_CREDENTIAL": credential,
            "PATH": "",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.timeout(60)
async def test_an_auditor_verifies_the_chain_by_command(tmp_path):
    async with (
        serving(tmp_path / "data") as server,
        founded(f"http://{server.api}", server.administrator) as owners,
    ):
        ann = server.administrator
        code, out, _ = await command(server, ann, "list", "--action", "found", "--json")
        assert (code, len(json.loads(out)["items"])) == (0, 2)
        code, head, _ = await command(server, ann, "head")
        assert code == 0
        stored = tmp_path / "kept.jsonl"
        stored.write_text(head)
        code, out, err = await command(server, ann, "verify", "--anchor", str(stored), "--json")
        assert (code, json.loads(out)["whole"]) == (0, True), err
        forged = HeadSigner.from_seed("08" * 32).sign(1, "a" * 64, 1)
        stored.write_bytes(audit_head.encode(forged))
        code, out, err = await command(server, ann, "verify", "--anchor", str(stored))
        assert code == 1, err
        assert "NOT whole" in out
        code, _, err = await command(server, owners.secret, "verify")
        assert code == 2
        assert "not the whole chain" in err


def test_every_action_of_a_route_is_one_that_events_can_be_asked_for():
    for path, methods in create_app(None).openapi()["paths"].items():
        for route in methods.values():
            action = route[request_context.ACTION]
            if action == request_context.OPEN:
                action = request_context.open_action(path.removeprefix(request_context.ROOT))
            assert action in set(audit.ACTIONS) - {OtherAction.UNKNOWN_ROUTE}, path
    assert set(BusAct) <= set(audit.ACTIONS)
