"""Profiles: sign-ins stored on this computer, each in a file that its owner alone may read.

A profile holds a credential with the addresses of the server that it is for; it is shown to no
other server.  In the folder `connected-testbed` of the user's configuration (XDG) lie
`profiles/NAME.json`, and copies of the certificate authorities in `authorities`.  The file
`signed-out` lies there after a sign-out, until the next sign-in: no profile is then used unless it
is named.
"""

import hashlib
import os
import shlex
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import orjson

from broker.clock import ns_of, text_of
from broker.credential import Credential
from broker.errors import Forbidden, Invalid, Unknown
from broker.namespace import checked_id, is_id
from broker.process import files
from broker.server_addresses import ServerAddresses

VARIABLE = "TESTBED_PROFILE"
CREDENTIAL_VARIABLES = ("TESTBED_CREDENTIAL", "TESTBED_CREDENTIAL_FILE")
VERSION = 1
ADMINISTRATOR = "administrator"
"""The first person of a testbed: only its server has a way back for one without a credential."""
MOST_BYTES = 64 * 1024
OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Permissions that a profile must not have."""

_FOLDER = "connected-testbed"
_ENDING = ".json"
_SIGNED_OUT = "signed-out"


class CredentialKind(StrEnum):
    """Kind of a stored credential: made by a password, or a token or machine's that was given."""

    PASSWORD = "password"  # noqa: S105 - a word
    TOKEN = "token"  # noqa: S105 - a word
    MACHINE = "machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A stored sign-in.

    addresses: of the one testbed that the credential is for.  token: id of the token that the
    sign-in made, None for a credential that was given.  expires_ns: None for no end.
    """

    name: str
    addresses: ServerAddresses
    credential: Credential
    kind: CredentialKind
    signed_in_ns: int
    expires_ns: int | None = None
    token: int | None = None

    @property
    def principal(self) -> str:
        """The person or machine that signed in."""
        return self.credential.principal

    @property
    def end(self) -> str:
        """The instant at which the credential ends, for people, or `no end`."""
        return "no end" if self.expires_ns is None else f"{text_of(self.expires_ns)[:19]}Z"

    @property
    def renewal(self) -> str:
        """The command that signs in again under this name."""
        return f"testbed sign-in --as {self.name}"

    @property
    def renewal_hint(self) -> str:
        """The next step where the credential counts no more, by its kind."""
        again = f"sign in again: {self.renewal}"
        if self.kind is CredentialKind.PASSWORD:
            return again
        if self.kind is CredentialKind.MACHINE:
            return f"{again}, with a new credential: testbed credential create"
        if self.principal == ADMINISTRATOR:
            return (
                f"{again}, with your password or another credential; without one, on the server"
                " itself: testbed administrator renew --data DIR"
            )
        return (
            f"{again}, with your password or another credential; without one, an owner of your"
            f" organisation makes a new one: testbed member remove {self.principal}, then testbed"
            f" member add {self.principal} --role ROLE"
        )

    def check_expiry(self, now_ns: int) -> None:
        """Raise Forbidden if the credential has ended."""
        if self.expires_ns is not None and self.expires_ns <= now_ns:
            raise Forbidden(
                f"the sign-in of {self.principal} at {self.addresses.api} ended at {self.end}"
                f" (profile {self.name})",
                hint=self.renewal_hint,
            )

    def check_server(self, api: str, setting: str) -> None:
        """Raise Invalid unless the URL of an API is of this profile's server.

        setting: that holds the URL.
        """
        if not self.addresses.is_of(api):
            raise Invalid(
                f"profile {self.name} is of {self.addresses.api}, and {setting} is {api}",
                hint=f"take {setting} out, or sign in there under another name: testbed --as NAME"
                f" sign-in --api {api}",
            )

    def as_json(self) -> dict[str, Any]:
        """The profile for scripts, without its secret."""
        addresses = self.addresses
        return {
            "profile": self.name,
            "principal": self.principal,
            "kind": str(self.kind),
            "api": addresses.api,
            "broker": addresses.broker,
            "ca": None if addresses.ca is None else str(addresses.ca),
            "signed_in": text_of(self.signed_in_ns),
            "expires": None if self.expires_ns is None else text_of(self.expires_ns),
        }


@dataclass(frozen=True, slots=True)
class ProfileFolder:
    """The profiles of this computer's user.  path: the folder, which need not exist."""

    path: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """The folder below XDG_CONFIG_HOME, or below `.config` in the home folder."""
        base = environment.get("XDG_CONFIG_HOME", "")
        if Path(base).is_absolute():  # the specification says to pass over a relative one
            return cls(Path(base) / _FOLDER)
        try:
            return cls(Path.home() / ".config" / _FOLDER)
        except RuntimeError as exc:
            raise Invalid(
                "this user has no home folder for profiles",
                hint="set XDG_CONFIG_HOME to a folder, or TESTBED_CREDENTIAL",
            ) from exc

    def file(self, name: str) -> Path:
        """The file of a profile; raises Invalid for a name that is no id."""
        return self.path / "profiles" / f"{checked_id(name, 'profile')}{_ENDING}"

    def names(self) -> list[str]:
        """The names of the profiles, in alphabetical order."""
        try:
            entries = list((self.path / "profiles").iterdir())
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise Invalid(f"the profiles in {self.path} cannot be read: {exc.strerror}") from exc
        stems = (file.stem for file in entries if file.suffix == _ENDING)
        return sorted(stem for stem in stems if is_id(stem))

    def load(self, name: str) -> Profile:
        """Read a profile; raises Unknown if there is none of that name.

        Raises Invalid if others may read its file, or if it is damaged.
        """
        file = self.file(name)
        try:
            with file.open("rb") as opened:
                mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
                content = opened.read(MOST_BYTES)
        except FileNotFoundError as exc:
            known = ", ".join(self.names()) or "none"
            raise Unknown(
                f"there is no profile {name!r}; there are: {known}",
                hint=f"make it: testbed --as {name} sign-in PERSON",
            ) from exc
        except OSError as exc:
            raise Invalid(f"the profile {file} cannot be read: {exc.strerror}") from exc
        if mode & OTHERS:
            raise Invalid(
                f"the profile {file} may be read by others: its mode is {mode:o}",
                hint=f"chmod 600 {shlex.quote(str(file))}; if somebody did read it, sign out and"
                " end its token",
            )
        return self._parsed(name, content)

    def find(self, name: str) -> Profile | None:
        """The profile of a name, None if there is none that can be used."""
        try:
            return self.load(name)
        except (Invalid, Unknown):
            return None

    def newest(self, api: str | None = None, *, usable_only: bool = False) -> Profile | None:
        """The profile of the last sign-in, None without any.

        api: of this server, None for any.  usable_only: pass over profiles that cannot be read,
        instead of raising Invalid for the first of them.
        """
        profiles = self.usable() if usable_only else [self.load(name) for name in self.names()]
        of_server = [profile for profile in profiles if not api or profile.addresses.is_of(api)]
        return max(of_server, key=lambda profile: profile.signed_in_ns, default=None)

    def usable(self) -> list[Profile]:
        """The profiles that can be used, by name; one that has ended is among them."""
        profiles = (self.find(name) for name in self.names())
        return [profile for profile in profiles if profile is not None]

    @property
    def is_signed_out(self) -> bool:
        """Whether nobody signed in here since the profile in use was signed out."""
        return (self.path / _SIGNED_OUT).exists()

    def sign_out(self) -> None:
        """Use no profile that is not named, until one is stored; raises Invalid."""
        try:
            files.replace(self.path / _SIGNED_OUT, b"", shared=True)
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def prepare(self) -> None:
        """Create the folders; raises Invalid if a profile could not be written there."""
        try:
            for folder in (self.path, self.path / "profiles", self.path / "authorities"):
                folder.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
                if not os.access(folder, os.W_OK):
                    raise PermissionError(None, "Permission denied")
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def store(self, profile: Profile) -> Profile:
        """Write a profile in place of one of its name, whole or not at all; returns it as stored.

        The file of its authority is copied, so that it may be moved afterwards.  Raises Invalid.
        """
        self.prepare()
        ca = profile.addresses.ca
        sha256 = None if ca is None else self._copy_authority(ca)
        document = profile.as_json() | {
            "v": VERSION,
            "credential": profile.credential.text,
            "broker_name": profile.addresses.broker_name,
            "ca": sha256,
            "token": profile.token,
        }
        try:
            files.replace(self.file(profile.name), orjson.dumps(document) + b"\n", shared=True)
            (self.path / _SIGNED_OUT).unlink(missing_ok=True)
        except OSError as exc:
            raise self._unwritable(exc) from exc
        if sha256 is None:
            return profile
        return replace(profile, addresses=replace(profile.addresses, ca=self._authority(sha256)))

    def remove(self, name: str) -> None:
        """Remove a profile, a damaged one too; raises Unknown if there is none."""
        file = self.file(name)
        try:
            file.unlink()
        except FileNotFoundError:
            self.load(name)  # which says what there is
        except OSError as exc:
            raise Invalid(f"the profile {file} cannot be removed: {exc.strerror}") from exc

    def _authority(self, sha256: str) -> Path:
        return self.path / "authorities" / f"{sha256}.pem"

    def _copy_authority(self, ca: Path) -> str:
        """Copy the file of an authority into the folder; its SHA-256, by which it is named."""
        try:
            content = ca.read_bytes()
        except OSError as exc:
            raise Invalid(f"the authority's file {ca} cannot be read: {exc.strerror}") from exc
        sha256 = hashlib.sha256(content).hexdigest()
        try:
            files.replace(self._authority(sha256), content, shared=True)
        except OSError as exc:
            raise self._unwritable(exc) from exc
        return sha256

    def _unwritable(self, exc: OSError) -> Invalid:
        return Invalid(
            f"no profile can be written in {self.path}: {exc.strerror}",
            hint="set XDG_CONFIG_HOME to a folder of yours, or set TESTBED_CREDENTIAL instead of"
            " signing in",
        )

    def _parsed(self, name: str, content: bytes) -> Profile:
        """The profile in the content of its file; raises Invalid."""
        try:
            document = orjson.loads(content)
            if document["v"] != VERSION:
                raise ValueError(f"its version is {document['v']!r}")
            return self._from_document(name, document)
        except (KeyError, TypeError, AttributeError) as exc:
            reason = f"{exc} is missing" if isinstance(exc, KeyError) else "it has another form"
        except (ValueError, OSError, Invalid) as exc:
            reason = str(exc).partition("\n")[0]
        raise Invalid(
            f"the profile {self.file(name)} is damaged: {reason}",
            hint=f"sign in again: testbed sign-in --as {name}; or remove it: testbed sign-out"
            f" --as {name}",
        )

    def _from_document(self, name: str, document: Any) -> Profile:
        """The profile that a file holds; raises what its damage raises."""
        sha256, token = document["ca"], document["token"]
        ca = None if sha256 is None else self._authority(sha256)
        if ca is not None and (not ca.is_file() or _sha256(ca) != sha256):
            raise ValueError(f"the copy of its authority, {ca}, is gone or was changed")
        texts = [document[key] for key in ("api", "broker", "broker_name", "credential")]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError(name)
        api, broker, broker_name, credential = texts
        expires = document["expires"]
        return Profile(
            name=name,
            addresses=ServerAddresses(api=api, broker=broker, broker_name=broker_name, ca=ca),
            credential=Credential.parse(credential),
            kind=CredentialKind(document["kind"]),
            signed_in_ns=ns_of(document["signed_in"]),
            expires_ns=None if expires is None else ns_of(expires),
            token=None if token is None else int(token),
        )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def selected(environment: Mapping[str, str]) -> Profile | None:
    """The profile by which a process asks; None if it has a credential, or nobody signed in.

    TESTBED_PROFILE names it; otherwise it is the last sign-in, at the server of TESTBED_API if that
    is set, and none after a sign-out.  Raises Invalid or Unknown if it cannot be used, or is of
    another server.
    """
    if any(environment.get(name) for name in CREDENTIAL_VARIABLES):
        return None
    folder = ProfileFolder.from_environment(environment)
    api, name = environment.get("TESTBED_API"), environment.get(VARIABLE)
    if not name:
        return None if folder.is_signed_out else folder.newest(api)
    profile = folder.load(name)
    if api:
        profile.check_server(api, "TESTBED_API")
    return profile


def no_credential(environment: Mapping[str, str]) -> Invalid:
    """The error of a process that has neither a credential nor a profile."""
    api, others = environment.get("TESTBED_API"), ""
    folder = ProfileFolder.from_environment(environment)
    names = folder.names()
    if folder.is_signed_out and names:
        return Invalid(
            f"nobody is signed in since the last sign-out; the profiles here: {', '.join(names)}",
            hint=f"use one by its name: testbed --as {names[0]} ... (in programs: set {VARIABLE});"
            " or sign in: testbed sign-in PERSON",
        )
    if api and names:
        others = f" for {api}; the profiles here are of other servers: {', '.join(names)}"
    return Invalid(
        f"no credential is set{others}",
        hint="sign in: testbed sign-in PERSON; or set TESTBED_CREDENTIAL. `testbed up` shows the"
        " administrator's credential, and `testbed organisation create` an owner's",
    )
