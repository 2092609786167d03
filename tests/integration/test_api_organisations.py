"""The API of organisations, people, tokens and grants, over its real registry."""

import pytest

from broker.rights import Role
from testbed_api.domain.notices import Channel, QueuedNotice
from testbed_api.recorder.ledger import DeadLetter, FlushEntries
from tests.integration.api_bed import (
    EQUIPMENT,
    OTHER,
    RIG,
    SPEC,
    START_NS,
    STREAM,
    assert_problem,
    stored,
)

MEMBERS = "/organisations/factory/members"
GRANTED = {"company": "company", "streams": [{"stream": str(RIG)}], "purpose": "to try"}
PASSWORD = "correct horse battery"


def bearer(answer):
    return {"Authorization": f"Bearer {answer.json()['credential']}"}


async def joined(bed, owner, person, *roles):
    body = {"person": person, "roles": roles}
    answer = await bed.ask(owner, "POST", MEMBERS, json=body)
    assert answer.status_code == 201, answer.text
    return bearer(answer)


async def test_the_administrator_makes_organisations_and_sees_nothing_in_them(bed, admin, rig):
    await stored(bed, rig, 3)
    letter = DeadLetter("live", str(RIG), reason="bad", value="1", received_ns=START_NS)
    await bed.api.ledger.commit(FlushEntries(dead_letters=[letter]))
    body = {"id": "firm", "name": "The Firm", "kind": "company", "owner": "eve"}
    created = await bed.ask(admin, "POST", "/organisations", json=body)
    assert created.json()["roles"] == ["owner"]
    me = (await bed.ask(bearer(created), "GET", "/me")).json()
    assert (me["kind"], me["organisation"], me["roles"]) == ("person", "firm", ["owner"])
    for rest in ("", "/specs/1", "/history", "/gaps", "/dead-letters", "/live", "/deletions"):
        assert_problem(await bed.ask(admin, "GET", STREAM + rest), 404, "unknown")
    for what in ("/streams", "/equipment"):
        assert (await bed.ask(admin, "GET", what)).json()["items"] == []
    assert_problem(await bed.ask(admin, "GET", MEMBERS), 403, "forbidden")
    assert_problem(
        await bed.ask(admin, "POST", MEMBERS, json={"person": "x", "roles": ["owner"]}),
        403,
        "forbidden",
    )
    (whole,) = (await bed.ask(admin, "GET", "/status")).json()["streams"]
    assert whole["dead_letters"] == 1
    assert_problem(await bed.ask(bearer(created), "GET", MEMBERS), 404, "unknown")
    assert_problem(
        await bed.ask(bearer(created), "POST", "/organisations", json=body | {"id": "x"}),
        403,
        "forbidden",
    )


@pytest.mark.usefixtures("rig")
async def test_a_member_has_the_rights_of_its_roles_until_they_are_changed(bed, owner):
    fred = await joined(bed, owner, "fred", "engineer")
    assert (await bed.ask(fred, "GET", f"{STREAM}/history")).status_code == 200
    renamed = await bed.ask(fred, "PUT", f"/equipment/{RIG.owner}", json=EQUIPMENT)
    assert renamed.status_code == 200
    assert_problem(await bed.ask(fred, "DELETE", f"{MEMBERS}/fay"), 403, "forbidden")
    changed = await bed.ask(owner, "PUT", f"{MEMBERS}/fred", json={"roles": ["operator"]})
    assert changed.json()["roles"] == ["operator"]
    refused = await bed.ask(fred, "PUT", f"/equipment/{RIG.owner}", json=EQUIPMENT)
    assert_problem(refused, 403, "forbidden", "may not register")
    listed = (await bed.ask(fred, "GET", MEMBERS)).json()["items"]
    assert [(each["person"], each["roles"]) for each in listed] == [
        ("fay", ["owner"]),
        ("fred", ["operator"]),
    ]


async def test_a_removed_member_loses_everything_at_once(bed, owner):
    fred = await joined(bed, owner, "fred", "developer")
    other = bearer(await bed.ask(fred, "POST", "/tokens", json={"label": "laptop"}))
    await bed.ask(fred, "PUT", "/me/password", json={"password": PASSWORD})
    assert (await bed.ask(owner, "DELETE", f"{MEMBERS}/fred")).status_code == 204
    assert bed.disconnected == ["fred"]
    for who in (fred, other):
        assert_problem(await bed.ask(who, "GET", "/me"), 401, "unauthenticated")
    signing = {"person": "fred", "password": PASSWORD}
    assert_problem(await bed.ask({}, "POST", "/sign-in", json=signing), 401, "unauthenticated")
    assert_problem(await bed.ask(owner, "DELETE", f"{MEMBERS}/fred"), 404, "unknown")
    fred = await joined(bed, owner, "fred", "developer")
    assert (await bed.ask(fred, "GET", "/me")).status_code == 200
    assert_problem(await bed.ask({}, "POST", "/sign-in", json=signing), 401, "unauthenticated")


async def test_tokens_are_several_and_end_one_by_one(bed, owner):
    created = await bed.ask(owner, "POST", "/tokens", json={"label": "laptop", "expires_in_s": 60})
    laptop = bearer(created)
    assert (await bed.ask(laptop, "GET", "/me")).status_code == 200
    listed = (await bed.ask(owner, "GET", "/tokens")).json()["items"]
    assert [(each["label"], each["last_used"] is not None) for each in listed] == [
        ("", True),
        ("laptop", True),
    ]
    assert created.json()["credential"].partition(".")[2] not in str(listed)
    assert (await bed.ask(laptop, "DELETE", f"/tokens/{listed[0]['id']}")).status_code == 204
    assert_problem(await bed.ask(owner, "GET", "/me"), 401, "unauthenticated")
    assert bed.disconnected == ["fay"]
    await bed.clock.advance(60)
    assert_problem(await bed.ask(laptop, "GET", "/me"), 401, "unauthenticated")


async def test_a_machine_changes_over_to_another_token(bed, owner, writer):
    path = "/credentials/gateway/tokens"
    new = bearer(await bed.ask(owner, "POST", path, json={"label": "2027"}))
    (old, _) = (await bed.ask(owner, "GET", path)).json()["items"]
    assert (await bed.ask(owner, "DELETE", f"{path}/{old['id']}")).status_code == 204
    assert_problem(await bed.ask(writer, "GET", "/me"), 401, "unauthenticated")
    assert (await bed.ask(new, "GET", "/me")).json()["principal"] == "gateway"
    for other in ("nobody", "fay"):
        answer = await bed.ask(owner, "POST", f"/credentials/{other}/tokens", json={})
        assert_problem(answer, 404, "unknown", "no machine")


async def test_nobody_touches_the_machines_of_another_organisation(bed, writer):
    eve = await bed.person("eve", "company", Role.OWNER)
    assert_problem(await bed.ask(eve, "DELETE", "/credentials/gateway"), 404, "unknown")
    assert (await bed.ask(eve, "GET", "/credentials")).json()["items"] == []
    assert (await bed.ask(writer, "GET", "/me")).status_code == 200
    assert bed.disconnected == []


async def test_a_password_gets_a_token_for_twelve_hours(bed, owner):
    assert_problem(
        await bed.ask(owner, "PUT", "/me/password", json={"password": "short"}),
        422,
        "invalid",
        "12",
    )
    await bed.ask(owner, "PUT", "/me/password", json={"password": PASSWORD})
    created = await bed.ask({}, "POST", "/sign-in", json={"person": "fay", "password": PASSWORD})
    who = bearer(created)
    assert (await bed.ask(who, "GET", "/me")).json()["expires"] == "2026-11-24T00:00:00.000000000Z"
    await bed.clock.advance(12 * 3_600)
    assert_problem(await bed.ask(who, "GET", "/me"), 401, "unauthenticated")


async def test_who_guesses_is_stopped_after_ten_in_a_minute(bed, owner):
    await bed.ask(owner, "PUT", "/me/password", json={"password": PASSWORD})
    right = {"person": "fay", "password": PASSWORD}
    answers = []
    for person in ("fay", "nobody") * 5:
        body = {"person": person, "password": "guess"}
        answers.append(await bed.ask({}, "POST", "/sign-in", json=body))
    details = {answer.json()["detail"] for answer in answers}
    assert details == {"the person or the password is not right"}
    stopped = await bed.ask({}, "POST", "/sign-in", json=right)
    assert_problem(stopped, 429, "too_many")
    assert stopped.headers["retry-after"] == "61"
    await bed.clock.advance(61)
    assert (await bed.ask({}, "POST", "/sign-in", json=right)).status_code == 201


@pytest.mark.usefixtures("rig")
async def test_a_granted_stream_is_read_until_it_is_revoked(bed, owner):
    eve = await bed.person("eve", "company", Role.DEVELOPER)
    box = await bed.ask(
        eve, "POST", "/credentials", json={"principal": "box", "reads": [{"stream": str(RIG)}]}
    )
    assert box.json()["not_granted"] == [{"space": "live", "stream": str(RIG)}]
    both = (eve, bearer(box))
    for who in both:
        assert_problem(await bed.ask(who, "GET", f"{STREAM}/history"), 404, "unknown")
    created = await bed.ask(owner, "POST", "/grants", json=GRANTED | {"expires_in_s": 60})
    body = {"principal": "later", "reads": [{"stream": str(RIG)}, {"stream": str(OTHER)}]}
    later = (await bed.ask(eve, "POST", "/credentials", json=body)).json()
    assert later["not_granted"] == [{"space": "live", "stream": str(OTHER)}]
    assert later["not_registered"] == []
    (grant,) = created.json()["items"]
    assert (grant["state"], grant["decided_by"]) == ("granted", "fay")
    assert sorted(bed.disconnected) == ["box", "eve"]
    for who in both:
        assert (await bed.ask(who, "GET", f"{STREAM}/history")).status_code == 200
        seen = (await bed.ask(who, "GET", "/streams")).json()["items"]
        assert [each["stream"] for each in seen] == [str(RIG)]
    path = f"/grants/{grant['id']}"
    assert_problem(await bed.ask(eve, "DELETE", path), 403, "forbidden")
    assert_problem(await bed.ask(owner, "DELETE", "/grants/99"), 404, "unknown")
    assert (await bed.ask(owner, "DELETE", path)).status_code == 204
    assert_problem(await bed.ask(owner, "DELETE", path), 409, "refused", "revoked already")
    for who in both:
        refused = await bed.ask(who, "GET", f"{STREAM}/history")
        assert_problem(refused, 403, "not_granted", "was revoked by factory on")
    for who in (owner, eve):
        (listed,) = (await bed.ask(who, "GET", "/grants")).json()["items"]
        assert listed["state"] == "revoked"
    assert sorted(bed.disconnected) == ["box", "box", "eve", "eve", "later"]


@pytest.mark.usefixtures("rig")
async def test_a_grant_ends_by_itself(bed, owner):
    eve = await bed.person("eve", "company", Role.OWNER)
    await bed.ask(owner, "POST", "/grants", json=GRANTED | {"expires_in_s": 60})
    assert (await bed.ask(eve, "GET", f"{STREAM}/history")).status_code == 200
    await bed.clock.advance(60)
    over = await bed.ask(eve, "GET", f"{STREAM}/history")
    assert_problem(over, 403, "not_granted", "ended on 2026-11-23 12:01:00 UTC")


@pytest.mark.usefixtures("rig")
@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (GRANTED | {"company": "nobody"}, 404, "nobody"),
        (GRANTED | {"company": "factory"}, 422, "of its own"),
        (GRANTED | {"streams": [{"stream": "company/a/b"}]}, 404, "company/a/b"),
        (GRANTED | {"streams": []}, 422, "streams"),
    ],
)
async def test_a_grant_that_makes_no_sense_is_refused(bed, owner, body, status, word):
    answer = await bed.ask(owner, "POST", "/grants", json=body)
    assert answer.status_code == status
    assert word in answer.text


async def test_a_gateway_registers_and_describes_its_equipment_and_no_other(bed, owner):
    body = {"principal": "gw", "equipment": str(RIG.owner)}
    gateway = bearer(await bed.ask(owner, "POST", "/credentials", json=body))
    put = await bed.ask(gateway, "PUT", f"/equipment/{RIG.owner}", json=EQUIPMENT)
    assert put.status_code == 200
    assert (await bed.ask(gateway, "POST", f"{STREAM}/specs", json=SPEC)).status_code == 200
    assert bed.disconnected == ["gw"]  # it has a topic more now
    other = await bed.ask(gateway, "PUT", "/equipment/factory/mill", json=EQUIPMENT)
    assert_problem(other, 404, "unknown")
    (seen,) = (await bed.ask(gateway, "GET", "/streams")).json()["items"]
    assert seen["stream"] == str(RIG)


async def test_an_email_address_is_its_own_organisations_alone(bed, owner, admin):
    body = {"person": "finn", "roles": ["engineer"], "email": "finn@factory.example"}
    created = await bed.ask(owner, "POST", MEMBERS, json=body)
    assert created.json()["email"] == "finn@factory.example"
    finn = bearer(created)
    members = (await bed.ask(finn, "GET", MEMBERS)).json()["items"]
    assert {each["person"]: each["email"] for each in members} == {
        "fay": None,
        "finn": "finn@factory.example",
    }
    path = f"{MEMBERS}/finn/email"
    eve = await bed.person("eve", "company", Role.OWNER)
    for who, status in ((finn, 403), (admin, 403), (eve, 404)):
        assert (await bed.ask(who, "GET", MEMBERS)).status_code == (200 if who is finn else status)
        assert (await bed.ask(who, "PUT", path, json={"email": None})).status_code == status
    for wrong in ("finn", "finn@factory", "a b@factory.example", "f@x.example\nBcc: e@x.example"):
        answer = await bed.ask(owner, "PUT", path, json={"email": wrong})
        assert_problem(answer, 422, "invalid", "is no e-mail address")
    changed = await bed.ask(owner, "PUT", path, json={"email": "f@factory.example"})
    assert changed.json()["email"] == "f@factory.example"
    roles = await bed.ask(owner, "PUT", f"{MEMBERS}/finn", json={"roles": ["auditor"]})
    assert roles.json()["email"] == "f@factory.example"
    assert (await bed.ask(owner, "PUT", path, json={})).json()["email"] is None
    missing = await bed.ask(owner, "PUT", f"{MEMBERS}/nobody/email", json={})
    assert_problem(missing, 404, "unknown")


async def test_a_channel_that_fails_is_in_the_status_of_who_operates_the_testbed(bed, owner, admin):
    waiting = QueuedNotice(
        channel=Channel.MAIL, organisation="factory", person="fay", content={}, queued_ns=START_NS
    )
    await bed.registry.notices.add([waiting])
    (claimed,) = await bed.registry.notices.claim(START_NS, START_NS)
    await bed.registry.notices.put_off(claimed, START_NS, "the mail server is away")
    (channel,) = (await bed.ask(admin, "GET", "/status")).json()["notices"]
    assert (channel["channel"], channel["waiting"], channel["failed"]) == ("mail", 1, 1)
    assert channel["reason"] == "the mail server is away"
    assert (await bed.ask(owner, "GET", "/status")).json()["notices"] == []
