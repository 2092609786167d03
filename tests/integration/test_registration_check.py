"""`gateway check` compares a mapping with what the testbed has registered, and changes nothing."""

from contextlib import asynccontextmanager

import httpx
import pytest

from broker.api_client import Api
from broker.rights import Role
from gateway.commissioning import registration_check
from gateway.commissioning.findings import Severity
from gateway.mapping import file as mapping_file
from gateway.state import identity
from testbed.commissioning import registration
from testbed_api.http.app import create_app

MAPPING = """
organisation: factory
equipment: pump-rig
kind: simulated
name: Pump rig
opcua: {url: "opc.tcp://127.0.0.1:4840", security: none}
streams:
  rig:
    trigger: timestamp
    period_s: 1
    signals:
      Pressure: {node: "nsu=urn:x;s=Pressure", unit: bar}
      running: {node: "nsu=urn:x;s=running", dtype: bool}
"""
SECOND = "  slow:\n    period_s: 10\n    signals:\n      Level: {node: 'nsu=urn:x;s=Level'}\n"


def mapping(*changes, more=""):
    text = MAPPING + more
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return mapping_file.read(text, "rig.yaml")


@asynccontextmanager
async def api_as(bed, who):
    door = httpx.ASGITransport(create_app(bed.api), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=door, base_url="http://api", headers=who) as http:
        yield Api(http)


async def found(bed, who, own):
    """The findings as text."""
    async with api_as(bed, who) as api:
        return [str(finding) for finding in await registration_check.check(own, api)]


@pytest.fixture
async def registered(bed, owner):
    """The mapping as its gateway registers it, with a second stream."""
    own = mapping(more=SECOND)
    async with api_as(bed, owner) as api:
        await api.register_equipment(own.equipment, name=own.name, kind=own.kind)
        await api.register_specs([stream.spec for stream in own.streams])
    return own


async def test_a_mapping_that_is_registered_or_new_has_no_finding(bed, owner, registered):
    assert await found(bed, owner, registered) == []
    assert await found(bed, owner, mapping(("pump-rig", "new-rig"), ("simulated", "real"))) == []


@pytest.mark.usefixtures("registered")
async def test_another_kind_and_another_dtype_are_errors(bed, owner):
    (kind, *_) = await found(bed, owner, mapping(("kind: simulated", "kind: real")))
    assert kind.startswith("error: factory/pump-rig is registered as simulated, and is real here;")
    assert "write kind: simulated" in kind
    findings = await found(bed, owner, mapping(("dtype: bool", "dtype: string"), more=SECOND))
    assert findings == [
        (
            "error: factory/pump-rig/rig: 'running' was bool in version 1 and would become string;"
            " stored samples keep their type: give the signal a new name"
        )
    ]


@pytest.mark.usefixtures("registered")
async def test_a_stream_that_differs_is_a_warning_that_says_in_what(bed, owner):
    changed = mapping(
        ("period_s: 1\n", "period_s: 2\n"), ("unit: bar", "unit: Pa"), ("running:", "runs:")
    )
    differing, unmapped = sorted(await found(bed, owner, changed))
    assert differing == (
        "warning: rig: it differs from version 1, which is registered: new signals runs; without"
        " running; changed signals Pressure; period_s 2.0 instead of 1.0; `gateway run` registers"
        " it as version 2"
    )
    assert unmapped == (
        "warning: slow: it is registered and not in the mapping: nothing publishes it"
    )


@pytest.mark.usefixtures("registered")
async def test_a_mapping_of_another_organisation_is_an_error_for_its_people(bed, owner):
    (finding,) = await found(bed, owner, mapping(("ion: factory", "ion: factroy")))
    assert finding.startswith("error: the mapping is of organisation factroy, and fay is")


@pytest.mark.usefixtures("registered")
async def test_the_operator_is_told_what_is_missing_and_what_it_cannot_see(bed, admin):
    new = mapping(("organisation: factory", "organisation: newcomer"))
    (missing,) = await found(bed, admin, new)
    assert missing.startswith("warning: there is no organisation newcomer yet: testbed org")
    (unseen,) = await found(bed, admin, mapping())
    assert unseen.startswith("note: what the testbed has registered of factory/pump-rig was not")


async def test_nothing_is_registered_by_a_check(bed, owner):
    await found(bed, owner, mapping())
    assert (await bed.ask(owner, "GET", "/equipment")).json()["items"] == []


@pytest.mark.usefixtures("registered")
async def test_the_gateway_of_another_equipment_is_an_error(bed, owner):
    engineer = await bed.person("finn", "factory", Role.ENGINEER)
    assert await found(bed, engineer, mapping(more=SECOND)) == []
    body = {"principal": "mill-gateway", "equipment": "factory/mill"}
    created = (await bed.ask(owner, "POST", "/credentials", json=body)).json()
    gateway = {"Authorization": f"Bearer {created['credential']}"}
    (finding, *_) = await found(bed, gateway, mapping(more=SECOND))
    assert finding == (
        "error: mill-gateway is the gateway of factory/mill, and the mapping is of factory/pump-rig"
    )


async def test_without_a_sign_in_and_an_identity_it_says_that_nobody_was_asked(tmp_path):
    (finding,) = await registration.check(mapping(), tmp_path)
    assert finding.severity is Severity.NOTE
    assert "nobody is signed in here" in finding.sentence


async def test_an_enrolled_gateway_asks_as_itself_and_says_where_the_testbed_is_away(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("TESTBED_API", "http://127.0.0.1:9")
    identity.store_credential(tmp_path, f"gateway.{'A' * 43}", "factory/pump-rig")
    (finding,) = await registration.check(mapping(), tmp_path)
    assert finding.severity is Severity.NOTE
    assert "the API at http://127.0.0.1:9 did not answer" in finding.sentence
