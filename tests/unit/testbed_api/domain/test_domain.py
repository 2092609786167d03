"""The nouns of the registry: what they refuse, and what they keep."""

import base64
import hashlib

import pytest
from argon2 import extract_parameters

from broker.batch import EquipmentKind
from broker.clock import SteppedClock
from broker.errors import Forbidden, Invalid, Refused
from broker.namespace import EquipmentAddress, StreamAddress
from broker.rights import Entry, Role, Scope, Span
from testbed_api.domain import organisations, passwords, tokens
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.errors import TooMany
from testbed_api.domain.grants import GrantRequest
from testbed_api.domain.organisations import Organisation
from testbed_api.limits.sign_in_attempts import SignInAttempts, place_of

MILL = EquipmentAddress("factory", "mill")


def test_a_credential_is_proved_by_its_own_secret_alone():
    credential, token = tokens.issued("ada", Span(1))
    other, _ = tokens.issued("ada", Span(1))
    assert token.secret_hash == tokens.hashed(credential.secret)
    assert token.secret_hash != tokens.hashed(other.secret)
    assert len(credential.secret) >= 43  # 256 bits
    assert credential.secret not in repr(token)
    assert token.secret_hash not in repr(token)
    assert token.verifier not in repr(token)


def test_what_a_broker_holds_a_secret_against_is_salted_and_can_be_checked():
    credential, token = tokens.issued("ada", Span(1))
    _, kind, rounds, salt, derived = token.verifier.split("$")
    raw = base64.b64decode(salt)
    expected = hashlib.pbkdf2_hmac("sha512", credential.secret.encode(), raw, int(rounds), 64)
    assert (kind, base64.b64decode(derived)) == ("7", expected)
    assert tokens.from_credential(credential, Span(1)).verifier != token.verifier
    assert tokens.from_credential(credential, Span(1), bus=False).verifier == ""


def test_a_token_holds_all_or_some_of_the_roles_that_its_person_has():
    ada = organisations.person("ada", "factory", {Role.OWNER, Role.AUDITOR}, 1)
    _, whole = tokens.issued("ada", Span(1), label="for the report")
    assert whole.roles is None
    narrow = whole.narrowed([Role.AUDITOR], ada)
    assert narrow.roles == {Role.AUDITOR}
    assert (narrow.secret_hash, narrow.label) == (whole.secret_hash, "for the report")
    with pytest.raises(Forbidden, match="does not have the role engineer") as raised:
        whole.narrowed([Role.AUDITOR, Role.ENGINEER], ada)
    assert raised.value.hint == "choose from auditor, owner"
    with pytest.raises(Invalid, match="no role"):
        whole.narrowed([], ada)


def test_a_machines_token_has_no_roles():
    box = organisations.machine("box", "factory", Scope(), Span(1))
    with pytest.raises(Invalid, match="box is a machine"):
        tokens.issued("box", Span(1))[1].narrowed([Role.AUDITOR], box)


@pytest.mark.parametrize("name", ["testbed-api", "Ada", "", "a/b", "a--b"])
def test_a_principal_that_is_reserved_or_no_id_gets_no_credential(name):
    with pytest.raises(Invalid, match="principal"):
        tokens.issued(name, Span(1))
    with pytest.raises(Invalid, match="principal"):
        organisations.person(name, "factory", {Role.OWNER}, 1)
    with pytest.raises(Invalid, match="principal"):
        organisations.machine(name, "factory", Scope(), Span(1))


def test_a_machine_publishes_streams_of_its_own_organisation_alone():
    foreign = frozenset({Entry("live", StreamAddress("firm", "d", "score"))})
    with pytest.raises(Invalid, match="firm/d/score"):
        organisations.machine("box", "factory", Scope(writes=foreign), Span(1))
    assert organisations.machine("box", "factory", Scope(foreign), Span(1)).scope.reads == foreign


def test_a_person_has_a_role():
    with pytest.raises(Invalid, match="no role"):
        organisations.person("ada", "factory", (), 1)


def test_a_password_is_kept_as_argon2id_and_proved_by_itself_alone():
    stored_hash = passwords.hashed("correct horse battery")
    assert stored_hash.startswith("$argon2id$")
    assert passwords.is_right("correct horse battery", stored_hash)
    for wrong, against in (
        ("correct horse", stored_hash),
        ("correct horse battery", None),
        ("", "x"),
    ):
        assert not passwords.is_right(wrong, against)
    assert extract_parameters(passwords.NOBODYS) == extract_parameters(stored_hash)
    for length in (11, 201):
        with pytest.raises(Invalid, match=f"{length} characters"):
            passwords.hashed("x" * length)


ASKED = GrantRequest(
    "firm", Entry("live", StreamAddress("factory", "rig", "rig")), "to try", 5, "eve"
)
GRANTED = ASKED.granted(Span(7, 20), "fay", 6)


def test_a_request_grants_nothing_until_it_is_granted_and_nothing_after_its_end():
    assert ASKED.grant is None
    assert GRANTED.grant.span == Span(7, 20)
    assert GRANTED.revoked("fay", 9).grant.span == Span(7, 9)
    assert GRANTED.withdrawn("eve", 3).grant.span == Span(7, 7)
    assert GRANTED.withdrawn("eve", 30).grant.span == Span(7, 20)
    assert ASKED.refused("fay", 6).grant is None


@pytest.mark.parametrize(
    "change",
    [
        lambda: GRANTED.granted(Span(0), "fay", 8),
        lambda: GRANTED.refused("fay", 8),
        lambda: ASKED.revoked("fay", 8),
        lambda: ASKED.refused("fay", 6).granted(Span(0), "fay", 8),
        lambda: GRANTED.revoked("fay", 8).withdrawn("eve", 9),
    ],
)
def test_what_was_decided_is_not_decided_again(change):
    with pytest.raises(Refused, match="already"):
        change()


def test_nobody_asks_for_its_own():
    with pytest.raises(Invalid, match="of its own"):
        GrantRequest("factory", ASKED.entry, "", 5)


@pytest.mark.parametrize("step_s", [0, -3_600, 3_600])
async def test_ten_failures_in_a_minute_are_enough(step_s):
    clock = SteppedClock()
    failures = SignInAttempts(clock)
    for _ in range(10):
        failures.begin(("ada", "1.2.3.4"))
        await clock.advance(1)
    clock.set_wall(step_s)
    with pytest.raises(TooMany) as raised:
        failures.begin(("bert", "1.2.3.4"))
    assert raised.value.wait_s == 51
    failures.begin(("bert", "1.2.3.5"))
    await clock.advance(51)
    failures.begin(("ada", "1.2.3.4"))


def test_who_signs_in_rightly_is_never_too_often_there():
    failures = SignInAttempts(SteppedClock())
    for _ in range(50):
        failures.begin(("ada",))
        failures.succeeded(("ada",))


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("10.0.0.5", "10.0.0.5"),
        ("::ffff:10.0.0.5", "10.0.0.5"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_who_has_an_address_of_ipv6_has_its_whole_network(host, place):
    assert place_of(host) == place


@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "x" * 201])
def test_a_name_is_printable_and_short(name):
    with pytest.raises(Invalid, match="name"):
        Organisation("factory", name)
    with pytest.raises(Invalid, match="name"):
        Equipment(MILL, name, EquipmentKind.REAL)


def test_a_site_has_the_levels_of_isa_95():
    assert Equipment(MILL, "Mill", EquipmentKind.REAL, {"line": "3"}).site == {"line": "3"}
    with pytest.raises(Invalid, match="room"):
        Equipment(MILL, "Mill", EquipmentKind.REAL, {"room": "3"})
