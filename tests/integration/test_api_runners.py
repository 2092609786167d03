"""Runners over HTTP: one code, one site, whom it opens to, and a way to lock it out."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.rights import Role
from testbed_api.registry.audit import EventFilter
from tests.integration.api_bed import assert_problem
from tests.integration.deployment_bed import claim


async def code_of(bed, who, name="site-1", **wanted):
    answer = await bed.ask(who, "POST", "/runners", json={"id": name} | wanted)
    assert answer.status_code == 201, answer.text
    return answer.json()["code"]


async def enrol(bed, code, key=None):
    return await bed.ask({}, "POST", "/runners/enrol", json=claim(code, key))


async def listed(bed, who):
    answer = await bed.ask(who, "GET", "/runners")
    assert answer.status_code == 200, answer.text
    return {each["id"]: each for each in answer.json()["items"]}


async def test_a_code_makes_a_runner_that_has_its_work_and_nothing_else(bed, owner):
    finn = await bed.person("finn", "factory", Role.ENGINEER)
    key = Ed25519PrivateKey.generate()
    code = await code_of(bed, finn, labels=["edge"])
    before = (await listed(bed, owner))["site-1"]
    assert (before["takes_work"], before["reason"]) == (False, "it has not reported yet")
    answer = await enrol(bed, code.lower().replace("-", " "), key)
    assert answer.status_code == 201, answer.text
    runner = {"Authorization": f"Bearer {answer.json()['credential']}"}
    me = (await bed.ask(runner, "GET", "/me")).json()
    assert (me["principal"], me["kind"], me["organisation"]) == ("site-1", "runner", "factory")
    assert (await bed.ask(runner, "GET", "/runner/work")).json()["items"] == []
    assert (await bed.ask(runner, "GET", "/runners")).status_code == 403
    again = await enrol(bed, code, Ed25519PrivateKey.generate())
    assert_problem(again, 401, "unauthenticated")
    second = await enrol(bed, code, key)
    assert second.json()["fingerprint"] == answer.json()["fingerprint"]
    assert (await bed.ask(runner, "GET", "/me")).status_code == 401
    assert_problem(await enrol(bed, "NONE"), 401, "unauthenticated")
    events = [each.event for each in await bed.registry.audit.events(EventFilter(), 0, 100)]
    claims = [each.outcome for each in events if each.action == "runners"]
    assert claims == ["allowed", "refused", "allowed", "refused"]
    assert not any(code in each.details for each in events)


async def test_a_runner_opens_to_its_own_organisation_unless_it_says_otherwise(bed, owner, admin):
    for who, name, wanted in (
        (owner, "own", {}),
        (owner, "shared", {"opens_to": ["company", "testbed"]}),
        (owner, "open", {"everybody": True}),
        (admin, "common", {}),
    ):
        await code_of(bed, who, name, **wanted)
    cora = await bed.person("cora", "company", Role.AUDITOR)
    seen = await listed(bed, cora)
    assert {name: each["opens_to"] for name, each in seen.items()} == {
        "shared": ["company"],
        "open": None,
        "common": None,
    }
    assert (await listed(bed, owner))["own"]["opens_to"] == ["factory"]
    assert (await listed(bed, admin)).keys() == {"own", "shared", "open", "common"}
    unknown = await bed.ask(owner, "POST", "/runners", json={"id": "x", "opens_to": ["nobody"]})
    assert_problem(unknown, 404, "unknown", "nobody")


async def test_a_name_is_one_runners_of_one_organisation(bed, owner, admin):
    await code_of(bed, owner)
    taken = await bed.ask(admin, "POST", "/runners", json={"id": "site-1"})
    assert_problem(taken, 409, "taken")
    person = await bed.ask(owner, "POST", "/runners", json={"id": "fay"})
    assert_problem(person, 409, "taken", "choose another name")
    label = await bed.ask(owner, "POST", "/runners", json={"id": "x", "labels": ["No Label"]})
    assert_problem(label, 422, "invalid", "label")
    second = await code_of(bed, owner, labels=["gpu"])
    assert (await listed(bed, owner))["site-1"]["labels"] == ["gpu"]
    assert (await enrol(bed, second)).status_code == 201


async def test_who_may_not_host_is_refused(bed, owner):
    await code_of(bed, owner)
    for role in (Role.DEVELOPER, Role.OPERATOR, Role.AUDITOR):
        who = await bed.person(f"factory-{role}", "factory", role)
        assert (await bed.ask(who, "POST", "/runners", json={"id": "x"})).status_code == 403
        assert (await bed.ask(who, "DELETE", "/runners/site-1")).status_code == 403
    machine = await bed.machine("box")
    assert (await bed.ask(machine, "POST", "/runners", json={"id": "x"})).status_code == 403
    cora = await bed.person("cora", "company", Role.OWNER)
    assert_problem(await bed.ask(cora, "DELETE", "/runners/site-1"), 404, "unknown")
    assert_problem(await bed.ask(cora, "DELETE", "/runners/site-9"), 404, "unknown")


@pytest.mark.parametrize("by", ["factory", "testbed"])
async def test_a_runner_that_is_locked_out_ends_with_its_deployments(
    bed, deploying, owner, admin, by
):
    site = await deploying.site(owner, everybody=True)
    number = (await deploying.deployed())["id"]
    await site.events(number, "starting", "connecting", "running")
    guest = await bed.person("gast", "company", Role.OWNER)
    assert_problem(await bed.ask(guest, "DELETE", "/runners/site-1"), 403, "forbidden", "factory")
    code = await code_of(bed, owner, everybody=True)
    who = owner if by == "factory" else admin
    assert (await bed.ask(who, "DELETE", "/runners/site-1")).status_code == 204
    assert (await bed.ask(site.credential, "GET", "/runner/work")).status_code == 401
    assert_problem(await enrol(bed, code), 401, "unauthenticated")
    seen = await deploying.show(number)
    assert (seen["state"], seen["end"]["cause"], seen["end"]["phase"]) == (
        *("ended", "site", "running"),
    )
    assert seen["reason"] == f"its site site-1 was locked out by {by}"
    assert f"watch-{number}" in bed.disconnected
    assert await listed(bed, owner) == {}
    assert_problem(await bed.ask(who, "DELETE", "/runners/site-1"), 404, "unknown")
    back = await deploying.site(owner, everybody=True)
    assert await back.items() == {}
