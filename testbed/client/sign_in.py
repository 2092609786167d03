"""Sign in at a testbed and store it as a profile, and sign out."""

import os
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from broker import api_client, profiles
from broker.api_client import SettingNames
from broker.clock import Clock, ns_of
from broker.credential import Credential
from broker.errors import BedError, Invalid, Refused, Taken
from broker.profiles import CredentialKind, Profile, ProfileFolder
from broker.responses.credentials import MeResponse, NewTokenResponse
from broker.rights import PrincipalKind
from broker.server_addresses import ServerAddresses
from testbed.client import addresses as client_addresses
from testbed.client.addresses import AddressOptions, ChosenAddresses
from testbed.terminal.screen import Screen

OPTIONS = SettingNames("--api", "--ca")
_MADE = re.compile(r"[a-z0-9-]+\.[\w-]{43}", re.ASCII)
"""The form of every credential that the testbed makes; a password of that form is unlikely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """A sign-in that is about to be made.

    person: None where a credential will say it.  profile: name to store it under, None for the
    principal's.  setting: that names the server, None where a profile or the default does.
    """

    person: str | None
    profile: str | None
    chosen: ChosenAddresses
    folder: ProfileFolder
    setting: str | None = None

    @property
    def addresses(self) -> ServerAddresses:
        """The addresses before the API was asked."""
        return self.chosen.addresses

    @property
    def label(self) -> str:
        """The person and the server, for a question."""
        return f"{self.person or 'yours'} at {self.addresses.api}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A sign-in that was made: its profile, and a sentence about the broker's address, or none."""

    profile: Profile
    note: str


def prepare(person: str | None, options: AddressOptions, environment: Mapping[str, str]) -> SignIn:
    """Where, as whom and under which name to sign in: of options, environment and profiles.

    Raises Invalid for an address that is none, a profile of another server, or a folder where
    nothing can be written; Taken if the profile that is named is another person's.
    """
    folder = ProfileFolder.from_environment(environment)
    folder.prepare()
    name = environment.get(profiles.VARIABLE) or None
    former = None if name is None else _former(folder, name)
    if former is not None and person is not None:
        _check_principal(former, person)
    api_url = options.api or environment.get("TESTBED_API")
    setting = "--api" if options.api else "TESTBED_API" if api_url else None
    if former is not None and api_url and setting:
        former.check_server(api_url, setting)
    known = former
    if known is None and name is None and person is not None and not api_url:
        known = _former(folder, person)
    known = known or folder.newest(api_url, usable_only=True)
    return SignIn(
        person=person or (None if former is None else former.principal),
        profile=name,
        chosen=client_addresses.choose(options, environment, known),
        folder=folder,
        setting=setting,
    )


def _former(folder: ProfileFolder, name: str) -> Profile | None:
    """The profile that a sign-in renews, None for a new or damaged one; raises Invalid."""
    folder.file(name)
    return folder.find(name)


async def sign_in(wanted: SignIn, secret: str, clock: Clock) -> SignedIn:
    """Sign in with a password or a credential, and store the profile; returns it as stored.

    Raises CredentialRefused if the server does not accept it, Invalid if it is neither, Taken if
    the profile is another person's.
    """
    credential = _credential_in(secret, wanted.person)
    principal = wanted.person if credential is None else credential.principal
    if principal is None:
        raise Invalid(
            "this is no credential, and whose password it is was not said",
            hint="testbed sign-in PERSON; or give the whole credential, principal.secret",
        )
    name = wanted.profile or principal
    former = _former(wanted.folder, name)
    if former is not None:
        _check_principal(former, principal)
        _check_former(former, wanted)
    if credential is None:
        signed_in = await _with_password(wanted, principal, secret, clock.now_ns())
    else:
        signed_in = await _with_credential(wanted, credential, clock.now_ns())
    return replace(signed_in, profile=wanted.folder.store(signed_in.profile))


def _check_principal(former: Profile, principal: str) -> None:
    """Raise Taken if a sign-in would replace a profile by one of another principal."""
    if former.principal != principal:
        raise Taken(
            f"profile {former.name} is of {former.principal}, and a sign-in of {principal} would"
            " replace it",
            hint=f"store it under a name of its own: testbed sign-in {principal} --as {principal};"
            f" --as goes before {profiles.VARIABLE}",
        )


def _check_former(former: Profile, wanted: SignIn) -> None:
    """Raise Invalid if a sign-in would replace a profile by one of another server."""
    if wanted.setting is not None:
        former.check_server(wanted.addresses.api, wanted.setting)
    elif not former.addresses.is_of(wanted.addresses.api):
        raise Invalid(
            f"profile {former.name} is of {former.addresses.api}, and the last sign-in was at"
            f" {wanted.addresses.api}",
            hint=f"name the person: testbed sign-in {former.name}; or the server, with --api",
        )


def store_given(credential: Credential, addresses: ServerAddresses, now_ns: int) -> Profile:
    """Store a person's new credential that its server has just made; returns the profile.

    It is named by TESTBED_PROFILE, else after the person.  Raises Taken if that name is of another
    server or person, Invalid if the profile cannot be written.
    """
    folder = ProfileFolder.from_environment(os.environ)
    name = os.environ.get(profiles.VARIABLE) or credential.principal
    former = folder.find(name)
    if former is not None:
        _check_principal(former, credential.principal)
    if former is not None and not former.addresses.is_of(addresses.api):
        raise Taken(
            f"profile {name} is of {former.addresses.api}", hint="give another name: --as NAME"
        )
    profile = Profile(
        name=name,
        addresses=addresses,
        credential=credential,
        kind=CredentialKind.TOKEN,
        signed_in_ns=now_ns,
    )
    return folder.store(profile)


def _credential_in(secret: str, person: str | None) -> Credential | None:
    """The credential that a person typed, None for a password; raises Invalid for another's."""
    try:
        credential = Credential.parse(secret)
    except Invalid:
        return None
    if person in {None, credential.principal}:
        return credential
    if _MADE.fullmatch(secret):
        raise Invalid(
            f"this is the credential of another than {person}",
            hint="name the person that it was made for, or leave the name out",
        )
    return None


async def _with_password(wanted: SignIn, person: str, password: str, now_ns: int) -> SignedIn:
    body = {"person": person, "password": password}
    async with _connected(wanted, "") as connection:
        created = await connection.send("POST", "/sign-in", NewTokenResponse, body)
        chosen = await wanted.chosen.asked(connection)
    profile = Profile(
        name=wanted.profile or person,
        addresses=chosen.addresses,
        credential=Credential.parse(created.credential),
        kind=CredentialKind.PASSWORD,
        signed_in_ns=now_ns,
        expires_ns=None if created.expires is None else ns_of(created.expires),
        token=created.id,
    )
    return SignedIn(profile=profile, note=chosen.note)


async def _with_credential(wanted: SignIn, credential: Credential, now_ns: int) -> SignedIn:
    async with _connected(wanted, credential.text) as connection:
        me = await connection.get("/me", MeResponse)
        chosen = await wanted.chosen.asked(connection)
    is_person = me.kind is PrincipalKind.PERSON
    profile = Profile(
        name=wanted.profile or credential.principal,
        addresses=chosen.addresses,
        credential=credential,
        kind=CredentialKind.TOKEN if is_person else CredentialKind.MACHINE,
        signed_in_ns=now_ns,
        expires_ns=None if me.expires is None else ns_of(me.expires),
    )
    return SignedIn(profile=profile, note=chosen.note)


def _connected(wanted: SignIn, credential: str) -> AbstractAsyncContextManager[api_client.Api]:
    """A connection to the API of a sign-in, whose errors name the options."""
    own = wanted.addresses
    return api_client.connect(own.api, credential, ca=own.ca, names=OPTIONS)


def stored() -> list[Profile]:
    """The profiles on this computer, the last sign-in first."""
    folder = ProfileFolder.from_environment(os.environ)
    return sorted(folder.usable(), key=lambda profile: -profile.signed_in_ns)


def stored_of(principal: str, api_url: str) -> Profile | None:
    """The last sign-in of a person at a server on this computer, None without any."""
    of_person = (profile for profile in stored() if profile.principal == principal)
    return next((profile for profile in of_person if profile.addresses.is_of(api_url)), None)


async def sign_out(clock: Clock) -> str:
    """Remove the selected profile, and end the token that its sign-in made; sentences.

    After the profile in use nobody is signed in, until the next sign-in.  Raises Refused if there
    is no profile to remove.
    """
    folder = ProfileFolder.from_environment(os.environ)
    name = os.environ.get(profiles.VARIABLE)
    in_use = _in_use(folder)
    profile = folder.find(name) if name else in_use
    name = name or (None if profile is None else profile.name)
    if name is None:
        raise _nobody(folder)
    folder.remove(name)
    if profile is None or profile == in_use:  # no command could use another beside a damaged one
        folder.sign_out()
    ended = f"profile {name} is removed" if profile is None else await _ended(profile, clock)
    return f"{ended}{_remaining(folder)}"


def _in_use(folder: ProfileFolder) -> Profile | None:
    """The profile by which commands ask without `--as`, None after a sign-out."""
    if folder.is_signed_out:
        return None
    return folder.newest(os.environ.get("TESTBED_API"), usable_only=True)


def _nobody(folder: ProfileFolder) -> Refused:
    """The error of a sign-out where nobody is signed in."""
    if names := folder.names():
        return Refused(
            f"nobody is signed in here; the profiles here: {', '.join(names)}",
            hint=f"name the profile to remove: testbed sign-out --as {names[0]}",
        )
    return Refused("nobody is signed in here", hint="testbed sign-in PERSON")


def _remaining(folder: ProfileFolder) -> str:
    """The profile that commands use after a sign-out, as further lines; empty without any."""
    names = folder.names()
    if not names:
        return ""
    if in_use := _in_use(folder):
        return f"\ncommands use profile {in_use.name}, as before"
    return (
        f"\nnobody is signed in now; the profiles here: {', '.join(names)}"
        f"\nuse one by its name: testbed --as {names[0]} ...; or sign in: testbed sign-in PERSON"
    )


async def _ended(profile: Profile, clock: Clock) -> str:
    """End the token of a profile that was removed; a sentence."""
    signed_out = f"{profile.principal} is signed out of {profile.addresses.api}"
    if profile.expires_ns is not None and profile.expires_ns <= clock.now_ns():
        return signed_out
    if profile.token is None:
        return f"{signed_out}, and the credential itself still counts, until it is revoked"
    try:
        await _end_token(profile)
    except BedError as exc:
        return f"{signed_out}, and its token still counts, until {profile.end}: {exc.message}"
    return signed_out


async def _end_token(profile: Profile) -> None:
    """Revoke the token that a sign-in made."""
    own = profile.addresses
    async with api_client.connect(own.api, profile.credential.text, ca=own.ca) as connection:
        await connection.request("DELETE", f"/tokens/{profile.token}")


def print_signed_in(profile: Profile, out: Screen, notes: Screen) -> None:
    """Print as whom, where and until when; on `notes` what is set and goes before it."""
    until = "without an end" if profile.expires_ns is None else f"until {profile.end}"
    out.print(f"signed in as {profile.principal} at {profile.addresses.api}, {until}")
    out.print(f"profile {profile.name}; commands use it until the next sign-in, or with --as")
    for name in profiles.CREDENTIAL_VARIABLES:
        if os.environ.get(name):
            notes.print(f"{name} is set, and goes before it: unset {name}", style="yellow")
