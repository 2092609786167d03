"""Say as whom commands ask, and list the sign-ins that are stored on this computer."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker import profiles
from broker.profiles import Profile
from broker.responses.credentials import MeResponse
from testbed.client import api
from testbed.client.api import ApiSettings
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The caller as the API knows it, with the place that its credential comes from."""

    me: MeResponse
    settings: ApiSettings
    source: str

    @property
    def as_json(self) -> dict[str, Any]:
        """The API's answer, with the addresses and the source beside it."""
        addresses, profile = self.settings.addresses, self.settings.profile
        return self.me.as_json() | {
            "api": addresses.api,
            "broker": addresses.broker,
            "profile": None if profile is None else profile.name,
            "source": self.source,
        }


async def fetch(*, by_option: bool) -> Identity:
    """The caller as the API knows it; by_option: whether `--as` named the profile."""
    settings = ApiSettings.from_environment(os.environ)
    return Identity(
        me=await api.get("/me", MeResponse),
        settings=settings,
        source=_source(settings, by_option=by_option),
    )


def _source(settings: ApiSettings, *, by_option: bool) -> str:
    """The place that the credential comes from, in words."""
    if settings.profile is None:
        text, file = profiles.CREDENTIAL_VARIABLES
        return text if os.environ.get(text) else f"{file}={os.environ.get(file)}"
    named = profiles.VARIABLE if os.environ.get(profiles.VARIABLE) else "the last sign-in"
    return f"profile {settings.profile.name}, by {'--as' if by_option else named}"


def print_identity(identity: Identity, out: Screen) -> None:
    """Print the caller's name, roles and server, and where its credential comes from."""
    tables.print_record(identity, _IDENTITY, out)


def print_profiles(stored_profiles: Sequence[Profile], out: Screen) -> None:
    """Print a row for each profile."""
    tables.print_rows(stored_profiles, _PROFILES, out)


_IDENTITY: list[TableColumn[Identity]] = [
    TableColumn(heading="principal", cell=lambda identity: identity.me.principal),
    TableColumn(heading="kind", cell=lambda identity: str(identity.me.kind)),
    TableColumn(heading="organisation", cell=lambda identity: identity.me.organisation),
    TableColumn(heading="roles", cell=lambda identity: tables.text(identity.me.roles)),
    TableColumn(heading="server", cell=lambda identity: identity.settings.addresses.api),
    TableColumn(heading="broker", cell=lambda identity: identity.settings.addresses.broker),
    TableColumn(heading="from", cell=lambda identity: identity.source),
    TableColumn(
        heading="until", cell=lambda identity: tables.text(identity.me.expires or "no end")
    ),
]
_PROFILES: list[TableColumn[Profile]] = [
    TableColumn(heading="profile", cell=lambda profile: profile.name),
    TableColumn(heading="principal", cell=lambda profile: profile.principal),
    TableColumn(heading="kind", cell=lambda profile: str(profile.kind)),
    TableColumn(heading="server", cell=lambda profile: profile.addresses.api),
    TableColumn(heading="until", cell=lambda profile: profile.end),
]
