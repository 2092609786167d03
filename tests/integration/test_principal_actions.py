"""Acts on members, machines, tokens, passwords, gateways and samples, without HTTP."""

import base64
from dataclasses import replace

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker import enrolment
from broker.batch import EquipmentKind
from broker.clock import NS_PER_S
from broker.errors import Forbidden, Invalid, Refused, Taken, Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry, Party, PrincipalKind, Role, Scope, Span
from testbed_api.actions.retention import RetentionActions
from testbed_api.actions.tokens import TokenRequest
from testbed_api.domain import tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.enrolment import EnrolmentClaim
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.errors import TooMany, Unauthenticated
from testbed_api.domain.organisations import NewMember, Organisation
from testbed_api.retention.deletions import Deletions, StoredSpan
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.stores import duckdb
from tests.integration.office import LIVE_RIG, RIG, T0, Office, context

PASSWORD = "correct horse battery"
ELSEWHERE = Entry("live", StreamAddress("company", "box", "score"))


def claim(code: str, key: Ed25519PrivateKey) -> EnrolmentClaim:
    public = key.public_key().public_bytes_raw()
    public_text, signature = (
        base64.b64encode(raw).decode()
        for raw in (public, key.sign(enrolment.statement(code, public)))
    )
    return EnrolmentClaim(code=code, public_key=public_text, signature=signature)


async def counts(office: Office, credential) -> bool:
    """Whether the token of a credential counts now."""
    secret_hash = tokens.hashed(credential.secret)
    token = await office.registry.tokens.find(credential.principal, secret_hash)
    return token is not None and token.span.covers(office.clock.now_ns())


async def test_an_organisation_is_founded_with_its_owner_by_the_intermediary_alone(office):
    firm = Organisation("firm", "The Firm", Party.COMPANY)
    with pytest.raises(Forbidden):
        await office.organisations.add(context("fay"), await office.caller("fay"), firm, "fred")
    ada = await office.caller("ada")
    owner, credential = await office.organisations.add(context("ada"), ada, firm, "fred")
    fred = owner.principal
    assert (fred.id, fred.organisation, fred.roles) == ("fred", "firm", {Role.OWNER})
    assert await counts(office, credential)
    assert office.announced == ["fred"]
    event = await office.last_event()
    assert (event.principal, orjson.loads(event.details)["made"]) == ("ada", "fred")
    with pytest.raises(Taken):
        await office.organisations.add(context("ada"), ada, firm, "gus")
    assert await office.registry.principals.find("gus", T0) is None
    visible = await office.organisations.visible(await office.caller("eve"))
    assert [each.id for each in visible] == ["rival"]


async def test_a_member_is_added_changed_and_removed_by_an_owner(office):
    fay, otto = await office.caller("fay"), await office.caller("otto")
    finn = NewMember(person="finn", roles={Role.ENGINEER}, email="finn@factory.example")
    with pytest.raises(Forbidden):
        await office.organisations.add_member(context("otto"), otto, "factory", finn)
    _, credential = await office.organisations.add_member(context("fay"), fay, "factory", finn)
    assert (await office.last_event()).principal == "fay"
    members = await office.organisations.members(otto, "factory")
    assert [each.principal.id for each in members] == ["fay", "finn", "otto"]
    assert [each.email for each in members] == [None, finn.email, None]
    await office.clock.advance(1)
    changed = await office.organisations.change_roles(
        context("fay"), fay, "factory", "finn", {Role.AUDITOR}
    )
    assert (changed.principal.roles, changed.email) == ({Role.AUDITOR}, finn.email)
    with pytest.raises(Forbidden):
        await office.organisations.change_email(context("otto"), otto, "factory", "finn", None)
    member = await office.organisations.change_email(context("fay"), fay, "factory", "finn", None)
    assert member.email is None
    office.disconnected.clear()
    await office.clock.advance(1)
    await office.organisations.remove_member(context("fay"), fay, "factory", "finn")
    assert office.disconnected == ["finn"]
    assert not await counts(office, credential)
    assert orjson.loads((await office.last_event()).details)["ended"] == "finn"


async def test_an_organisation_keeps_an_owner_and_its_members_to_itself(office):
    fay, eve = await office.caller("fay"), await office.caller("eve")
    events = len(await office.events())
    with pytest.raises(Refused, match="only owner"):
        await office.organisations.remove_member(context("fay"), fay, "factory", "fay")
    with pytest.raises(Refused, match="only owner"):
        await office.organisations.change_roles(
            context("fay"), fay, "factory", "fay", {Role.ENGINEER}
        )
    with pytest.raises(Unknown, match="no member 'cora' of factory"):
        await office.organisations.remove_member(context("fay"), fay, "factory", "cora")
    with pytest.raises(Unknown, match="no organisation 'factory'"):
        await office.organisations.members(eve, "factory")
    assert (office.disconnected, len(await office.events())) == ([], events)


async def test_a_machine_is_made_with_its_scope_and_removed(office):
    cora, eve = await office.caller("cora"), await office.caller("eve")
    scope = Scope(reads=frozenset({LIVE_RIG}), writes=frozenset({ELSEWHERE}))
    machine, credential = await office.machines.add(
        context("cora"), cora, "box", scope, lasting_s=60
    )
    assert (machine.kind, machine.span) == (
        PrincipalKind.MACHINE,
        Span(T0, T0 + 60 * NS_PER_S),
    )
    assert office.announced == ["box"]
    event = await office.last_event()
    assert (event.principal, orjson.loads(event.details)["made"]) == ("cora", "box")
    assert [each.id for each in await office.machines.all(cora)] == ["box"]
    assert await office.machines.all(eve) == []
    with pytest.raises(Unknown, match="no machine 'box'"):
        await office.machines.remove(context("eve"), eve, "box")
    assert office.disconnected == []
    await office.machines.remove(context("cora"), cora, "box")
    assert office.disconnected == ["box"]
    assert not await counts(office, credential)
    with pytest.raises(Unknown):
        await office.machines.remove(context("cora"), cora, "box")
    assert office.disconnected == ["box", "box"]  # the broker may have been away before


async def test_a_machine_that_its_maker_may_not_have_is_refused(office):
    cora, ann = await office.caller("cora"), await office.caller("ann")
    with pytest.raises(Invalid, match="cannot publish"):
        await office.machines.add(
            context("cora"), cora, "box", Scope(writes=frozenset({LIVE_RIG})), lasting_s=None
        )
    with pytest.raises(Forbidden, match="may not issue"):
        await office.machines.add(context("ann"), ann, "box", Scope(), lasting_s=None)
    with pytest.raises(Forbidden, match="may not issue"):
        await office.machines.all(ann)
    assert office.announced == []


async def test_a_machine_changes_over_to_another_token(office):
    cora, eve = await office.caller("cora"), await office.caller("eve")
    _, former = await office.machines.add(context("cora"), cora, "box", Scope(), lasting_s=None)
    credential, token = await office.machines.issue_token(
        context("cora"), cora, "box", TokenRequest(label="2027", lasting_s=60)
    )
    assert (token.label, token.by, token.span.until_ns) == ("2027", "cora", T0 + 60 * NS_PER_S)
    first, second = await office.machines.valid_tokens(cora, "box")
    assert second.id == token.id
    await office.machines.revoke_token(context("cora"), cora, "box", first.id)
    assert (await counts(office, former), await counts(office, credential)) == (False, True)
    assert office.disconnected == ["box"]
    assert orjson.loads((await office.last_event()).details)["token"] == first.id
    with pytest.raises(Invalid, match="box is a machine"):
        await office.machines.issue_token(
            context("cora"), cora, "box", TokenRequest(roles={Role.OWNER})
        )
    for caller, name in ((eve, "box"), (cora, "cora"), (cora, "nobody")):
        with pytest.raises(Unknown, match=f"no machine '{name}'"):
            await office.machines.issue_token(context("cora"), caller, name, TokenRequest())


async def test_people_look_after_their_own_tokens_with_all_their_roles(office):
    ada, fay = await office.caller("ada"), await office.caller("fay")
    await office.organisations.change_roles(
        context("ada"), ada, "testbed", "ada", {Role.OWNER, Role.AUDITOR}
    )
    await office.clock.advance(1)
    ada, audits = await office.caller("ada"), await office.caller("ada", Role.AUDITOR)
    credential, token = await office.tokens.issue(
        context("ada"), ada, TokenRequest(label="report", roles={Role.AUDITOR})
    )
    assert (token.principal, token.roles) == ("ada", {Role.AUDITOR})
    assert [each.id for each in await office.tokens.valid(audits)] == [token.id]
    assert await office.tokens.valid(fay) == []
    for act in (
        office.tokens.issue(context("ada"), audits, TokenRequest()),
        office.tokens.revoke(context("ada"), audits, token.id),
        office.passwords.set(context("ada"), audits, PASSWORD),
    ):
        with pytest.raises(Forbidden, match="all your roles"):
            await act
    with pytest.raises(Forbidden, match="does not have the role"):
        await office.tokens.issue(context("ada"), ada, TokenRequest(roles={Role.ENGINEER}))
    with pytest.raises(Unknown, match=f"no token {token.id}"):
        await office.tokens.revoke(context("fay"), fay, token.id)
    await office.tokens.revoke(context("ada"), ada, token.id)
    assert not await counts(office, credential)
    assert office.disconnected[-1] == "ada"


async def test_a_machine_makes_no_token_of_its_own(office):
    cora = await office.caller("cora")
    await office.machines.add(context("cora"), cora, "box", Scope(), lasting_s=None)
    box = await office.machine("box")
    with pytest.raises(Forbidden, match="box is a machine"):
        await office.tokens.issue(context("cora"), box, TokenRequest())
    assert [each.principal for each in await office.tokens.valid(box)] == ["box"]


async def test_a_person_signs_in_with_its_password_and_is_stopped_after_ten_failures(office):
    fay = await office.caller("fay")
    with pytest.raises(Invalid, match="12 to 200"):
        await office.passwords.set(context("fay"), fay, "short")
    await office.passwords.set(context("fay"), fay, PASSWORD)
    person = await office.passwords.authenticate("fay", PASSWORD, source="10.0.0.1")
    credential, token = await office.passwords.sign_in(context("fay"), person)
    assert (token.label, token.verifier) == ("signed in", "")
    await office.clock.advance(12 * 3_600 - 1)
    assert await counts(office, credential)
    await office.clock.advance(1)
    assert not await counts(office, credential)
    for name in ("fay", "nobody") * 5:
        with pytest.raises(Unauthenticated, match="person or the password"):
            await office.passwords.authenticate(name, "a wrong guess", source="10.0.0.2")
    with pytest.raises(TooMany):
        await office.passwords.authenticate("fay", PASSWORD, source="10.0.0.2")
    assert (await office.passwords.authenticate("fay", PASSWORD, source="10.0.0.1")).id == "fay"


async def test_a_gateway_is_enrolled_with_a_code_and_locked_out(office):
    fay, eve = await office.caller("fay"), await office.caller("eve")
    for caller, error in ((eve, Unknown), (await office.caller("otto"), Forbidden)):
        with pytest.raises(error):
            await office.enrolments.make_code(context("fay"), caller, RIG.owner)
    code, issued = await office.enrolments.make_code(context("fay"), fay, RIG.owner)
    assert issued.span == Span(T0, T0 + 3_600 * NS_PER_S)
    key, unknown = Ed25519PrivateKey.generate(), AuditContext(action="enrolments", target="a test")
    first = await office.enrolments.enrol(unknown, claim(code, key))
    name = first.credential.principal
    assert (first.equipment, office.announced) == (RIG.owner, [name])
    assert first.fingerprint == enrolment.fingerprint(key.public_key().public_bytes_raw())
    again = await office.enrolments.enrol(replace(unknown), claim(code, key))
    assert (again.credential.principal, office.disconnected) == (name, [name])
    assert (await counts(office, first.credential), await counts(office, again.credential)) == (
        False,
        True,
    )
    with pytest.raises(Unauthenticated, match="was used"):
        await office.enrolments.enrol(unknown, claim(code, Ed25519PrivateKey.generate()))
    with pytest.raises(Taken, match=f"has gateway {name}"):
        await office.enrolments.make_code(context("fay"), fay, RIG.owner)
    (gateway,) = await office.enrolments.gateways(fay, RIG.owner)
    assert (gateway.principal.id, gateway.enrolment.by) == (name, "fay")
    await office.enrolments.lock_out(context("fay"), fay, RIG.owner)
    assert (await office.last_event()).owner == "factory"
    assert office.disconnected == [name, name]
    assert not await counts(office, again.credential)
    assert await office.enrolments.gateways(fay, RIG.owner) == []
    with pytest.raises(Unauthenticated, match="was used"):
        await office.enrolments.enrol(unknown, claim(code, key))


async def test_a_claim_without_the_key_is_refused_and_counted(office):
    fay = await office.caller("fay")
    code, _ = await office.enrolments.make_code(context("fay"), fay, RIG.owner)
    key, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    unknown = AuditContext(action="enrolments", target="a test", source="10.0.0.1")
    stolen = replace(claim(code, key), public_key=claim(code, other).public_key)
    for wrong, sentence in (
        (stolen, "not one of this key"),
        (replace(stolen, public_key="AAAA"), "public_key has 3 bytes, not 32"),
        (replace(stolen, signature="no base64!"), "signature is no base64"),
    ):
        with pytest.raises(Invalid, match=sentence):
            await office.enrolments.enrol(unknown, wrong)
    for _ in range(7):
        with pytest.raises(Invalid):
            await office.enrolments.enrol(unknown, stolen)
    with pytest.raises(TooMany):
        await office.enrolments.enrol(unknown, claim(code, key))
    elsewhere = replace(unknown, source="10.0.0.2")
    assert (await office.enrolments.enrol(elsewhere, claim(code, key))).equipment == RIG.owner


async def test_samples_are_kept_and_deleted_by_the_owner_of_their_stream_alone(office, tmp_path):
    fay, span = await office.caller("fay"), StoredSpan("live", RIG, T0 - 10, T0)
    async with duckdb.open(tmp_path / "samples.duckdb") as store:
        enforcer = RetentionEnforcer(store, Deletions(office.engine), office.clock)
        actions = RetentionActions(registry=office.registry, enforcer=enforcer, clock=office.clock)
        keeping, deleting = context("fay"), context("fay")
        await actions.keep(keeping, fay, RIG, 86_400)
        assert await enforcer.deletions.retentions() == {RIG: 86_400}
        assert keeping.entry.facts == {"keep_s": 86_400}
        (deletion,) = await actions.delete(deleting, fay, span, why="a recipe")
        assert (deletion.by, deletion.why, deletion.samples) == ("fay", "a recipe", 0)
        assert (deleting.entry.facts["why"], deleting.entry.facts["samples"]) == ("a recipe", 0)
        with pytest.raises(Invalid, match="lies in the future"):
            await actions.delete(deleting, fay, replace(span, to_ns=T0 + 10**12), why="")
        for name, error in (("otto", Forbidden), ("eve", Unknown)):
            caller = await office.caller(name)
            with pytest.raises(error):
                await actions.keep(context(name), caller, RIG, None)
            with pytest.raises(error):
                await actions.delete(context(name), caller, span, why="")


async def test_an_equipment_is_registered_by_its_organisation_alone(office):
    mill = Equipment(EquipmentAddress("factory", "mill"), "Mill", EquipmentKind.REAL)
    with pytest.raises(Unknown):
        await office.equipment.put(context("eve"), await office.caller("eve"), mill)
    with pytest.raises(Forbidden):
        await office.equipment.put(context("otto"), await office.caller("otto"), mill)
    fay = await office.caller("fay")
    await office.equipment.put(context("fay"), fay, mill)
    assert (await office.registry.equipment.get(mill.address)).name == "Mill"
    assert (await office.last_event()).principal == "fay"
    with pytest.raises(Taken, match="registered as real") as refused:
        await office.equipment.put(context("fay"), fay, replace(mill, kind=EquipmentKind.SIMULATED))
    assert "put back `kind: real` if simulated was a slip" in refused.value.hint
    assert "another id" in refused.value.hint
