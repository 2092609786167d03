"""Requests of the commands to the API, as the person of the environment or of a profile."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from broker import api_client, profiles, server_addresses
from broker.api_client import CredentialRefused, SettingNames
from broker.clock import WallClock
from broker.errors import Invalid
from broker.process import files
from broker.profiles import Profile
from broker.server_addresses import ServerAddresses

MOST_CREDENTIAL = 1024
VARIABLES = SettingNames()
OF_A_PROFILE = SettingNames("--api of `testbed sign-in`", "--ca of `testbed sign-in`")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """Addresses of the testbed and the caller's credential; profile: that holds it, if one does.

    names: of the settings that hold the addresses.  Read without pydantic-settings, which takes
    long to load beside a short request.
    """

    addresses: ServerAddresses
    credential: str = field(default="", repr=False)
    profile: Profile | None = None
    names: SettingNames = VARIABLES

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read TESTBED_CREDENTIAL or the file of it, else the profile that is selected.

        The credential wins over its file, and both over a profile; TESTBED_API, TESTBED_BROKER and
        TESTBED_CA win over a profile's addresses.  An empty variable counts as one that is not set.
        Raises Invalid or Unknown.
        """
        profile = profiles.selected(environment)
        if profile is not None:
            addresses = ServerAddresses.from_environment(environment, profile.addresses)
            names = _names(environment)
            credential = profile.credential.text
            return cls(addresses=addresses, credential=credential, profile=profile, names=names)
        addresses = ServerAddresses.from_environment(environment)
        return cls(addresses=addresses, credential=_credential(environment))


def _names(environment: Mapping[str, str]) -> SettingNames:
    """The settings that hold the addresses beside a profile: a variable that is set goes first."""
    pairs = zip(VARIABLES, OF_A_PROFILE, strict=True)
    return SettingNames(*(name if environment.get(name) else option for name, option in pairs))


def _credential(environment: Mapping[str, str]) -> str:
    """The credential of the environment, empty without one; raises Invalid."""
    credential, file = (environment.get(name, "") for name in profiles.CREDENTIAL_VARIABLES)
    if credential or not file:
        return credential
    what = f"TESTBED_CREDENTIAL_FILE: the secret in {file}"
    if text := files.read_secret(Path(file), what, most=MOST_CREDENTIAL):
        return text
    raise Invalid(f"{what} is empty", hint="write the credential into it, principal.secret")


def settings_for(server: str | None = None) -> ApiSettings:
    """The settings of the environment, for the API at the URL `server` if it is given.

    A profile is used at its own server alone.  Raises Invalid without a credential for it, and if
    `server` is no address of an API.
    """
    if server is not None:
        server_addresses.server_of(server)
    environment = os.environ if server is None else {**os.environ, "TESTBED_API": server}
    settings = ApiSettings.from_environment(environment)
    if not settings.credential:
        raise profiles.no_credential(environment)
    return settings


@asynccontextmanager
async def connect(
    timeout_s: float = 10.0, server: str | None = None
) -> AsyncIterator[api_client.Api]:
    """Open a connection to the API for several requests.

    server: URL of the API in the place of the environment's, see `settings_for`.
    Raises Invalid without a credential, Forbidden if the sign-in of a profile has ended.
    """
    settings = settings_for(server)
    profile = settings.profile
    if profile is not None:
        profile.check_expiry(WallClock().now_ns())
    try:
        async with api_client.connect(
            settings.addresses.api,
            settings.credential,
            ca=settings.addresses.ca,
            timeout_s=timeout_s,
            names=settings.names,
        ) as connection:
            yield connection
    except CredentialRefused as exc:
        if profile is None:
            raise
        raise refused_sign_in(profile) from exc


def refused_sign_in(profile: Profile) -> CredentialRefused:
    """The error of a stored sign-in that the server does not accept any more."""
    return CredentialRefused(
        f"{profile.addresses.api} does not accept the sign-in of {profile.principal} any more:"
        f" it was revoked, or its roles are not yours now (profile {profile.name})",
        hint=profile.renewal_hint,
    )


async def send(
    method: str, path: str, answer: type[api_client.Answer], json: object = None
) -> api_client.Answer:
    """The answer to one request with a JSON body."""
    async with connect() as connection:
        return await connection.send(method, path, answer, json)


async def get(
    path: str, answer: type[api_client.Answer], params: api_client.Params | None = None
) -> api_client.Answer:
    """The answer to one GET."""
    async with connect() as connection:
        return await connection.get(path, answer, params)


async def whole(
    path: str,
    page: type[api_client.Page],
    params: api_client.Params | None = None,
    *,
    most: int | None = None,
) -> api_client.Page:
    """A listing as one page with the items of all; most: of so many at most, None for all."""
    async with connect() as connection:
        return await connection.whole(path, page, params, most=most)


async def request(method: str, path: str, json: object = None) -> None:
    """Send one request whose answer is empty."""
    async with connect() as connection:
        await connection.request(method, path, json=json)
