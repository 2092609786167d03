"""Personal tokens of some roles: what they may do over the API, and that there is no way up."""

import asyncio

import pytest

from broker.clock import WallClock
from broker.rights import Action, Entry, Role
from testbed_api.actions.caller import Caller
from tests.integration.api_bed import EQUIPMENT, RIG, STREAM, Bed, assert_problem, stored

MEMBERS = "/organisations/factory/members"
GRANTED = {"company": "company", "streams": [{"stream": str(RIG)}], "purpose": "to try"}
PASSWORD = "correct horse battery"
ALONE = "this token holds auditor alone"


@pytest.fixture
async def chief(bed):
    """An owner who audits as well."""
    return await bed.person("fay", "factory", Role.OWNER, Role.AUDITOR)


async def token(bed: Bed, who: dict[str, str], *roles: str, **more: object) -> dict[str, str]:
    """A new one of these roles."""
    body = {"label": "for the report", "roles": roles} | more
    answer = await bed.ask(who, "POST", "/tokens", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["roles"] == sorted(roles)
    return {"Authorization": f"Bearer {answer.json()['credential']}"}


async def test_a_token_of_one_role_may_do_what_that_role_may(bed, chief, rig):
    await stored(bed, rig, 3)
    report = await token(bed, chief, "auditor")
    for path in ("/audit", MEMBERS, f"{STREAM}/history"):
        assert (await bed.ask(report, "GET", path)).status_code == 200
    refused = (
        ("PUT", f"/equipment/{RIG.owner}", EQUIPMENT, "register"),
        ("POST", MEMBERS, {"person": "eve", "roles": ["owner"]}, "manage"),
        ("PUT", f"{MEMBERS}/fay", {"roles": list(Role)}, "manage"),
        ("DELETE", f"{MEMBERS}/fay", None, "manage"),
        ("POST", "/credentials", {"principal": "box", "equipment": str(RIG.owner)}, "issue"),
        ("POST", "/credentials/gateway/tokens", {}, "issue"),
        ("DELETE", "/credentials/gateway", None, "issue"),
        ("POST", "/grants", GRANTED, "share"),
        ("POST", f"/equipment/{RIG.owner}/gateway/codes", None, "share"),
    )
    for method, path, body, action in refused:
        answer = await bed.ask(report, method, path, json=body)
        assert_problem(answer, 403, "forbidden", f"fay may not {action}")
        assert answer.json()["hint"] == ALONE
    assert bed.disconnected == []
    renamed = await bed.ask(chief, "PUT", f"/equipment/{RIG.owner}", json=EQUIPMENT)
    assert renamed.status_code == 200


async def test_who_one_is_with_a_token_and_what_each_holds_is_told(bed, chief):
    report = await token(bed, chief, "auditor")
    me = (await bed.ask(report, "GET", "/me")).json()
    assert (me["principal"], me["roles"]) == ("fay", ["auditor"])
    assert (me["token"]["label"], me["token"]["roles"]) == ("for the report", ["auditor"])
    whole = (await bed.ask(chief, "GET", "/me")).json()
    assert (whole["roles"], whole["token"]["roles"]) == (["auditor", "owner"], None)
    for who in (chief, report):
        listed = (await bed.ask(who, "GET", "/tokens")).json()["items"]
        assert [(each["label"], each["roles"]) for each in listed] == [
            ("", None),
            ("for the report", ["auditor"]),
        ]


@pytest.mark.parametrize("roles", [("auditor",), ("auditor", "owner")])
async def test_a_token_of_some_roles_leads_to_no_other_and_to_no_password(bed, chief, roles):
    report = await token(bed, chief, *roles)
    (first, mine) = (await bed.ask(chief, "GET", "/tokens")).json()["items"]
    for method, path, body in (
        ("POST", "/tokens", {}),
        ("POST", "/tokens", {"roles": ["auditor"]}),
        ("POST", "/tokens", {"roles": list(Role)}),
        ("PUT", "/me/password", {"password": PASSWORD}),
        ("DELETE", f"/tokens/{first['id']}", None),
        ("DELETE", f"/tokens/{mine['id']}", None),
    ):
        answer = await bed.ask(report, method, path, json=body)
        assert_problem(answer, 403, "forbidden", "all your roles")
        assert answer.json()["hint"].startswith(f"this token holds {' and '.join(roles)} alone")
    signing = {"person": "fay", "password": PASSWORD}
    assert_problem(await bed.ask({}, "POST", "/sign-in", json=signing), 401, "unauthenticated")
    assert (await bed.ask(chief, "GET", "/tokens")).json()["items"][0]["id"] == first["id"]


@pytest.mark.parametrize(
    ("roles", "status", "code", "words"),
    [
        (["engineer"], 403, "forbidden", ("does not have the role engineer", "auditor, owner")),
        (["auditor", "developer"], 403, "forbidden", ("developer",)),
        (["boss"], 422, "invalid", ("boss", *Role)),
        ([], 422, "invalid", ("roles",)),
    ],
)
async def test_a_token_of_roles_that_one_does_not_have_is_not_made(
    bed, chief, roles, status, code, words
):
    answer = await bed.ask(chief, "POST", "/tokens", json={"roles": roles})
    assert_problem(answer, status, code, *words)
    assert len((await bed.ask(chief, "GET", "/tokens")).json()["items"]) == 1


async def test_a_role_for_a_machines_token_is_refused(bed, owner, writer):
    path = "/credentials/gateway/tokens"
    answer = await bed.ask(owner, "POST", path, json={"roles": ["owner"]})
    assert_problem(answer, 422, "invalid", "gateway is a machine")
    created = await bed.ask(owner, "POST", path, json={"roles": None})
    assert created.json()["roles"] is None
    me = (await bed.ask(writer, "GET", "/me")).json()
    assert (me["roles"], me["token"]["roles"]) == ([], None)


async def test_a_token_holds_what_its_person_still_is_when_it_is_used(bed, chief):
    boss = await bed.person("bob", "factory", Role.OWNER)
    report = await token(bed, chief, "auditor", "owner")

    async def becomes(*roles: str) -> None:
        answer = await bed.ask(boss, "PUT", f"{MEMBERS}/fay", json={"roles": roles})
        assert answer.status_code == 200, answer.text

    await becomes("auditor", "developer", "engineer")
    me = (await bed.ask(report, "GET", "/me")).json()
    assert (me["roles"], me["token"]["roles"]) == (["auditor"], ["auditor", "owner"])
    refused = await bed.ask(report, "POST", "/grants", json=GRANTED)
    assert refused.json()["hint"] == ALONE
    await becomes("engineer")
    lost = await bed.ask(report, "GET", "/me")
    assert_problem(lost, 401, "unauthenticated", "are its roles still yours?")
    assert (await bed.ask(chief, "GET", "/me")).json()["roles"] == ["engineer"]
    await becomes("owner")
    assert (await bed.ask(report, "GET", "/me")).json()["roles"] == ["owner"]


@pytest.mark.usefixtures("rig")
async def test_what_a_token_does_not_read_is_missing_for_it_with_a_reason(bed, owner):
    eve = await bed.person("eve", "company", Role.OWNER, Role.OPERATOR)
    await bed.ask(owner, "POST", "/grants", json=GRANTED)
    watch = await token(bed, eve, "operator")
    assert (await bed.ask(eve, "GET", f"{STREAM}/history")).status_code == 200
    there = await bed.ask(watch, "GET", f"{STREAM}/history")
    missing = await bed.ask(watch, "GET", f"{STREAM.replace('rig', 'rug')}/history")
    for answer in (there, missing):
        assert_problem(answer, 404, "unknown", "there is no stream")
        assert answer.json()["hint"].endswith("; this token holds operator alone")


@pytest.mark.usefixtures("rig")
async def test_a_change_of_roles_ends_the_connection_of_a_token_that_held_one(bed, owner):
    """The person's topics stay the same, those of one of its tokens do not."""
    await bed.person("bob", "company", Role.OWNER)
    eve = await bed.person("eve", "company", Role.OWNER, Role.DEVELOPER)
    await bed.ask(owner, "POST", "/grants", json=GRANTED)
    bed.disconnected.clear()
    path = "/organisations/company/members/eve"
    changed = await bed.ask(eve, "PUT", path, json={"roles": ["owner"]})
    assert (changed.status_code, bed.disconnected) == (200, [])
    await bed.ask(eve, "PUT", path, json={"roles": ["owner", "developer"]})
    await token(bed, eve, "developer")
    await bed.ask(eve, "PUT", path, json={"roles": ["owner"]})
    assert bed.disconnected == ["eve"]


@pytest.mark.usefixtures("rig")
async def test_who_follows_a_stream_is_looked_at_with_the_token_that_was_shown(bed, owner):
    boss = await bed.person("bob", "company", Role.OWNER)
    eve = await bed.person("eve", "company", Role.OWNER, Role.DEVELOPER)
    await bed.ask(owner, "POST", "/grants", json=GRANTED)
    await token(bed, eve, "developer")
    now_ns = bed.clock.now_ns()
    rights = await bed.registry.rights.of_principal("eve", now_ns)
    _, narrow = await bed.registry.tokens.valid("eve", now_ns)
    caller = Caller(rights.principals[0], narrow, rights, now_ns)
    with bed.api.rights_watch.watching(caller, Action.SUBSCRIBE, Entry("live", RIG)) as right:
        await right.confirmed()
        path = "/organisations/company/members/eve"
        await bed.ask(boss, "PUT", path, json={"roles": ["owner", "operator"]})
        assert (await bed.ask(eve, "GET", f"{STREAM}/history")).status_code == 200
        async with asyncio.timeout(2):
            while not right.has_ended:
                await WallClock().sleep(0.02)
