"""Profiles on a real disk: whose they are, which one is used, and what is wrong with one."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from broker import profiles
from broker.clock import NS_PER_S
from broker.credential import Credential
from broker.errors import Forbidden, Invalid, Unknown
from broker.profiles import CredentialKind, Profile, ProfileFolder
from broker.server_addresses import ServerAddresses

HERE = ServerAddresses()
AWAY = ServerAddresses.beside("https://testbed.example:8600")


@pytest.fixture
def environment(tmp_path):
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture
def folder(environment):
    return ProfileFolder.from_environment(environment)


def profile(name: str, addresses: ServerAddresses = HERE, *, at_s: int = 0, **fields) -> Profile:
    return Profile(
        name=name,
        addresses=addresses,
        credential=Credential.make(name),
        kind=CredentialKind.TOKEN,
        signed_in_ns=at_s * NS_PER_S,
        **fields,
    )


def modes(folder: ProfileFolder) -> dict[str, str]:
    paths = [folder.path, *folder.path.rglob("*")]
    return {str(path): f"{path.stat().st_mode & 0o777:o}" for path in paths}


def test_a_profile_is_its_owners_alone(folder, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_text("an authority")
    own = ServerAddresses(api=AWAY.api, broker=AWAY.broker, ca=ca)
    stored = folder.store(profile("fay", own, expires_ns=5, token=7))
    assert folder.load("fay") == stored
    assert stored.addresses.ca != ca
    assert stored.addresses.ca.read_text() == "an authority"
    assert set(modes(folder).values()) == {"600", "700"}
    assert stored.credential.secret not in repr(stored)
    assert stored.credential.secret not in json.dumps(stored.as_json())


def test_the_last_sign_in_is_used_unless_something_names_another(folder, environment):
    for number, (name, addresses) in enumerate({"fay": HERE, "ann": AWAY, "cora": HERE}.items()):
        folder.store(profile(name, addresses, at_s=number))

    def used(**more: str) -> str | None:
        selected = profiles.selected(environment | more)
        return None if selected is None else selected.name

    assert used() == "cora"
    assert used(TESTBED_PROFILE="fay") == "fay"
    assert used(TESTBED_API="https://testbed.example:8600/") == "ann"
    assert used(TESTBED_API="http://127.0.0.1:1") is None
    assert used(TESTBED_PROFILE="fay", TESTBED_CREDENTIAL="x") is None
    assert used(TESTBED_CREDENTIAL_FILE="x", TESTBED_CREDENTIAL="") is None
    assert used(TESTBED_PROFILE="", TESTBED_API="") == "cora"


def test_after_a_sign_out_no_profile_is_used_unless_it_is_named(folder, environment):
    folder.store(profile("fay"))
    folder.sign_out()
    assert profiles.selected(environment) is None
    named = profiles.selected(environment | {"TESTBED_PROFILE": "fay"})
    assert named == folder.load("fay")
    error = profiles.no_credential(environment)
    assert error.message.endswith("since the last sign-out; the profiles here: fay")
    folder.store(profile("cora", at_s=1))
    assert profiles.selected(environment) == folder.load("cora")


def test_a_profile_is_shown_to_no_other_server(folder, environment):
    folder.store(profile("fay"))
    settings = environment | {"TESTBED_PROFILE": "fay", "TESTBED_API": AWAY.api}
    with pytest.raises(Invalid, match=f"profile fay is of {HERE.api}, and TESTBED_API is") as wrong:
        profiles.selected(settings)
    assert "take TESTBED_API out" in wrong.value.hint
    unnamed = profiles.no_credential(environment | {"TESTBED_API": AWAY.api})
    assert "the profiles here are of other servers: fay" in unnamed.message


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_profile_that_others_may_read_is_refused(folder, mode):
    folder.store(profile("fay"))
    folder.file("fay").chmod(mode)
    with pytest.raises(Invalid, match=f"may be read by others: its mode is {mode:o}") as refused:
        folder.load("fay")
    assert refused.value.hint.startswith(f"chmod 600 {folder.file('fay')};")


def test_an_unknown_profile_is_answered_with_those_there_are(folder, environment):
    with pytest.raises(Unknown, match="there is no profile 'fay'; there are: none"):
        folder.load("fay")
    for name in ("cora", "ann"):
        folder.store(profile(name))
    (folder.path / "profiles" / "notes.txt").write_text("")
    with pytest.raises(Unknown, match="there is no profile 'fay'; there are: ann, cora"):
        profiles.selected(environment | {"TESTBED_PROFILE": "fay"})
    with pytest.raises(Unknown, match="there are: ann, cora"):
        folder.remove("fay")
    with pytest.raises(Invalid, match=r"profile '\.\./fay' is not an id"):
        folder.load("../fay")


def damages():
    whole = {"v": 1, "api": HERE.api, "broker": HERE.broker, "broker_name": "", "ca": None}
    whole |= {"kind": "token", "credential": Credential.make("fay").text, "token": None}
    whole |= {"signed_in": "2026-11-30T12:00:00Z", "expires": None}
    yield "half of it", json.dumps(whole)[:100]
    yield "nothing", ""
    yield "another form", "[]"
    yield "another version", json.dumps(whole | {"v": 2})
    for name, wrong in {
        "api": 1,
        "credential": "fay.short",
        "kind": "rumour",
        "signed_in": "monday",
        "expires": 12,
        "ca": "0" * 64,
    }.items():
        yield f"wrong {name}", json.dumps(whole | {name: wrong})
        yield f"no {name}", json.dumps({key: each for key, each in whole.items() if key != name})


@pytest.mark.parametrize("content", [pytest.param(text, id=name) for name, text in damages()])
def test_a_damaged_profile_is_named_with_the_ways_out(folder, environment, content):
    folder.store(profile("fay"))
    folder.file("fay").write_text(content)
    with pytest.raises(Invalid, match=rf"the profile {folder.file('fay')} is damaged: .") as wrong:
        profiles.selected(environment)
    assert "testbed sign-in --as fay" in wrong.value.hint
    assert folder.usable() == []
    assert folder.store(profile("fay")) == folder.load("fay")
    folder.file("fay").write_text(content)
    folder.remove("fay")
    assert folder.names() == []


def test_an_authority_that_was_changed_is_not_trusted(folder, tmp_path):
    (tmp_path / "ca.pem").write_text("an authority")
    own = ServerAddresses(api=AWAY.api, broker=AWAY.broker, ca=tmp_path / "ca.pem")
    stored = folder.store(profile("fay", own))
    stored.addresses.ca.write_text("another one")
    with pytest.raises(Invalid, match=r"the copy of its authority, .*, is gone or was changed"):
        folder.load("fay")


def test_a_folder_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    folder = ProfileFolder.from_environment({"XDG_CONFIG_HOME": str(tmp_path / "file")})
    for act in (folder.prepare, lambda: folder.store(profile("fay"))):
        with pytest.raises(
            Invalid, match=r"no profile can be written in .*: Not a directory"
        ) as no:
            act()
        assert "XDG_CONFIG_HOME" in no.value.hint


def test_a_sign_in_that_has_ended_says_so_and_how_to_renew_it():
    ended = profile("fay", expires_ns=5 * NS_PER_S)
    ended.check_expiry(4 * NS_PER_S)
    with pytest.raises(Forbidden, match="ended at 1970-01-01T00:00:05Z") as refused:
        ended.check_expiry(5 * NS_PER_S)
    again = "sign in again: testbed sign-in --as fay"
    assert refused.value.hint.startswith(f"{again}, with your password or another credential;")
    assert "testbed member add fay" in refused.value.hint
    password = dataclasses.replace(ended, kind=CredentialKind.PASSWORD)
    assert password.renewal_hint == again
    machine = dataclasses.replace(ended, kind=CredentialKind.MACHINE)
    assert "testbed credential create" in machine.renewal_hint
    profile("fay").check_expiry(2**62)


def test_several_sign_ins_at_once_leave_one_whole(folder):
    versions = [profile("fay", at_s=number) for number in range(6)]
    threads = [threading.Thread(target=folder.store, args=(each,)) for each in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folder.load("fay") in versions
    assert [path.name for path in Path(folder.path / "profiles").iterdir()] == ["fay.json"]


def test_without_a_configuration_folder_it_lies_in_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for setting in ({}, {"XDG_CONFIG_HOME": "relative"}):
        found_at = ProfileFolder.from_environment(setting).path
        assert found_at == tmp_path / ".config/connected-testbed"
