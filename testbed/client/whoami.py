"""Say as whom commands ask, and list the sign-ins that are stored on this computer."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from broker import profiles
from broker.clock import Clock
from broker.errors import BedError
from broker.profiles import Profile, ProfileFolder
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProfile:
    """A profile as it lies on this computer.

    profile: None for one that cannot be used.  problem: why it cannot, or that it has ended, with
    what to do; empty for none.  active: whether commands use it without `--as`.
    """

    name: str
    profile: Profile | None
    problem: str
    active: bool

    @property
    def ended(self) -> bool:
        """Whether its credential has ended."""
        return self.profile is not None and bool(self.problem)

    @property
    def as_json(self) -> dict[str, Any]:
        """The profile for scripts, without its secret; of one that cannot be used only its name."""
        own = {"profile": self.name} if self.profile is None else self.profile.as_json()
        marks = {"active": self.active, "ended": self.ended, "problem": self.problem or None}
        return own | marks

    @property
    def state(self) -> str:
        """Its marks in words, empty without any."""
        words = ["active"] if self.active else []
        return ", ".join([*words, self.problem] if self.problem else words)


def stored(clock: Clock) -> list[StoredProfile]:
    """All profiles on this computer, the last sign-in first, and those that cannot be used last."""
    folder = ProfileFolder.from_environment(os.environ)
    active = _active_name()
    listed = [
        _stored(folder, name, clock.now_ns(), active=active == name) for name in folder.names()
    ]
    return sorted(listed, key=lambda each: -each.profile.signed_in_ns if each.profile else 0)


def _stored(folder: ProfileFolder, name: str, now_ns: int, *, active: bool) -> StoredProfile:
    """A profile of the folder, with what is wrong with it."""
    profile, problem = None, ""
    try:
        profile = folder.load(name)
        profile.check_expiry(now_ns)
    except BedError as exc:
        ended = None if profile is None else f"it has ended: {profile.renewal}"
        problem = ended or f"{exc.message} ({exc.hint})"
    return StoredProfile(name=name, profile=profile, problem=problem, active=active)


def _active_name() -> str | None:
    """The name of the profile that commands use, None if they use none."""
    try:
        profile = profiles.selected(os.environ)
    except BedError:
        return None
    return None if profile is None else profile.name


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


def print_profiles(stored_profiles: Sequence[StoredProfile], out: Screen) -> None:
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


def _of_profile(heading: str, cell: Callable[[Profile], str]) -> TableColumn[StoredProfile]:
    """A column of what a profile says, `-` for one that cannot be used."""
    return TableColumn(
        heading=heading,
        cell=lambda each: tables.NOTHING if each.profile is None else cell(each.profile),
    )


_PROFILES: list[TableColumn[StoredProfile]] = [
    TableColumn(heading="profile", cell=lambda each: each.name),
    _of_profile("principal", lambda profile: profile.principal),
    _of_profile("kind", lambda profile: str(profile.kind)),
    _of_profile("server", lambda profile: profile.addresses.api),
    _of_profile("until", lambda profile: profile.end),
    TableColumn(heading="state", cell=lambda each: tables.text(each.state), is_prose=True),
]
