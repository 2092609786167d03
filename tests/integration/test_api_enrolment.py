"""Enrolment over HTTP: one code, one gateway, and a way to lock it out."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker import enrolment
from broker.clock import text_of
from broker.rights import Role
from testbed_api.domain import enrolment as enrolling
from tests.integration.api_bed import EQUIPMENT, RIG, SPEC, STREAM, assert_problem

GATEWAY = f"/equipment/{RIG.owner}/gateway"


def claim(code, key, *, signs=None):
    public = key.public_key().public_bytes_raw()
    signature = key.sign(enrolment.statement(signs or code, public))
    proof = {"public_key": public, "signature": signature}
    return {"code": code} | {name: base64.b64encode(raw).decode() for name, raw in proof.items()}


async def code_of(bed, who):
    answer = await bed.ask(who, "POST", f"{GATEWAY}/codes")
    assert answer.status_code == 201, answer.text
    return answer.json()["code"]


async def enrolled(bed, code, key):
    answer = await bed.ask({}, "POST", "/enrolments", json=claim(code, key))
    assert answer.status_code == 201, answer.text
    gateway = answer.json()
    return gateway, {"Authorization": f"Bearer {gateway['credential']}"}


async def test_a_code_makes_a_gateway_of_one_equipment_and_nothing_else(bed):
    finn = await bed.person("finn", "factory", Role.ENGINEER)
    key = Ed25519PrivateKey.generate()
    code = await code_of(bed, finn)
    enrolment_, gateway = await enrolled(bed, code.lower().replace("-", " "), key)
    assert enrolment_["equipment"] == str(RIG.owner)
    assert (await bed.ask(gateway, "PUT", f"/equipment/{RIG.owner}", json=EQUIPMENT)).is_success
    assert (await bed.ask(gateway, "POST", f"{STREAM}/specs", json=SPEC)).is_success
    other = await bed.ask(gateway, "PUT", "/equipment/factory/mill", json=EQUIPMENT)
    assert_problem(other, 404, "unknown")
    (listed,) = (await bed.ask(finn, "GET", GATEWAY)).json()["items"]
    assert (listed["principal"], listed["code_made_by"]) == (enrolment_["principal"], "finn")
    public = key.public_key().public_bytes_raw()
    assert listed["fingerprint"] == enrolment_["fingerprint"] == enrolment.fingerprint(public)


async def test_only_the_hash_of_a_code_is_kept(bed, owner):
    code = await code_of(bed, owner)
    (stored,) = await bed.registry.enrolments.history(RIG.owner)
    assert stored.code_hash == enrolling.hashed(code)
    assert code not in repr(stored)
    assert stored.code_hash not in repr(stored)


async def test_a_code_counts_for_one_key_and_for_its_hour(bed, owner):
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    code = await code_of(bed, owner)
    first, former = await enrolled(bed, code, key)
    again = await bed.ask({}, "POST", "/enrolments", json=claim(code, other))
    assert_problem(again, 401, "unauthenticated")
    second, gateway = await enrolled(bed, code, key)  # its answer may have been lost
    assert (first["principal"], bed.disconnected) == (second["principal"], [second["principal"]])
    assert (await bed.ask(former, "GET", "/me")).status_code == 401
    assert (await bed.ask(gateway, "GET", "/me")).status_code == 200
    await bed.clock.advance(3_600)
    late = await bed.ask({}, "POST", "/enrolments", json=claim(code, key))
    assert_problem(late, 401, "unauthenticated")
    assert (await bed.ask(gateway, "GET", "/me")).status_code == 200


async def test_a_newer_code_takes_the_place_of_an_unused_one(bed, owner):
    former, code = [await code_of(bed, owner) for _ in range(2)]
    key = Ed25519PrivateKey.generate()
    answer = await bed.ask({}, "POST", "/enrolments", json=claim(former, key))
    assert_problem(answer, 401, "unauthenticated")
    await enrolled(bed, code, key)


async def test_whoever_does_not_hold_the_key_gets_nothing(bed, owner):
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    code = await code_of(bed, owner)
    stolen = claim(code, key) | {"public_key": claim(code, other)["public_key"]}
    for wrong in (stolen, claim(code, key, signs="ANOTHER")):
        assert_problem(await bed.ask({}, "POST", "/enrolments", json=wrong), 422, "invalid")
    for change in ({"public_key": "AAAA"}, {"signature": "no base64!"}, {"code": "A" * 61}):
        body = claim(code, key) | change
        assert_problem(await bed.ask({}, "POST", "/enrolments", json=body), 422, "invalid")
    await enrolled(bed, code, key)


async def test_after_ten_failures_a_right_code_waits_too(bed, owner):
    key = Ed25519PrivateKey.generate()
    code = await code_of(bed, owner)
    for _ in range(10):
        wrong = await bed.ask({}, "POST", "/enrolments", json=claim("WRONG", key))
        assert wrong.status_code == 401
    right = claim(code, key)
    assert_problem(await bed.ask({}, "POST", "/enrolments", json=right), 429, "too_many")
    await bed.clock.advance(61)
    await enrolled(bed, code, key)


async def test_a_lost_gateway_is_locked_out_in_one_step(bed, owner):
    key = Ed25519PrivateKey.generate()
    lost, gateway = await enrolled(bed, await code_of(bed, owner), key)
    taken = await bed.ask(owner, "POST", f"{GATEWAY}/codes")
    assert_problem(taken, 409, "taken", "testbed gateway lock-out factory/pump-rig")
    assert (await bed.ask(owner, "DELETE", GATEWAY)).status_code == 204
    assert bed.disconnected == [lost["principal"]]
    assert (await bed.ask(gateway, "GET", "/me")).status_code == 401
    expected = {"until": text_of(bed.clock.now_ns()), "ended_by": "fay"}
    after = {"items": [], "former": {"principal": lost["principal"], **expected}}
    assert (await bed.ask(owner, "GET", GATEWAY)).json() == after
    assert (await bed.ask(owner, "DELETE", GATEWAY)).status_code == 204  # disconnected once more
    assert bed.disconnected == [lost["principal"]] * 2
    await enrolled(bed, await code_of(bed, owner), Ed25519PrivateKey.generate())
    assert (await bed.ask(owner, "GET", GATEWAY)).json()["former"] is None


async def test_a_lock_out_ends_open_codes_too(bed, owner):
    await bed.ask(
        owner, "POST", "/credentials", json={"principal": "box", "equipment": str(RIG.owner)}
    )
    assert (await bed.ask(owner, "DELETE", GATEWAY)).status_code == 204
    code = await code_of(bed, owner)
    assert (await bed.ask(owner, "DELETE", GATEWAY)).status_code == 204
    key = Ed25519PrivateKey.generate()
    answer = await bed.ask({}, "POST", "/enrolments", json=claim(code, key))
    assert_problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.OPERATOR, Role.AUDITOR])
async def test_only_owners_and_engineers_let_a_gateway_in_or_out(bed, role):
    dan = await bed.person("dan", "factory", role)
    eve = await bed.person("eve", "company", Role.OWNER)
    for method, path in (("POST", f"{GATEWAY}/codes"), ("DELETE", GATEWAY)):
        assert_problem(await bed.ask(dan, method, path), 403, "forbidden")
        assert_problem(await bed.ask(eve, method, path), 404, "unknown")
