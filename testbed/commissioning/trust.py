"""`testbed gateway trust`: a person holds a server's certificate against what its owner says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from broker.errors import Invalid, Refused
from gateway.links.opcua import certificate_trust, security
from gateway.links.opcua.certificate_trust import Shown, Trusted
from gateway.links.opcua.pki import Own
from gateway.mapping import model as mappings
from gateway.mapping.model import Server
from testbed.commissioning.check_browse import Place, proof


@dataclass(frozen=True, slots=True)
class Seen:
    """What a server shows, and what was trusted there before."""

    shown: Shown
    before: Trusted
    own: Own

    @property
    def is_pinned(self) -> bool:
        """Whether the very certificate is trusted already."""
        return self.before.pin == self.shown.certificate


async def look(where: str, place: Place) -> Seen:
    """Ask the server for its certificate; `where`: a mapping file, or the server's address.

    Raises Refused if no session could be opened with it whoever trusts it.
    """
    server = _server(where, place)
    if server.security is None:
        raise Invalid(
            f"{where} is read with security none, where nobody is trusted",
            hint="write opcua.security: sign-and-encrypt",
        )
    shows = proof()
    own = shows.pki.own()
    found = await security.shown(server, server.security)
    now_ns = shows.clock.now_ns()
    if (
        flaw := certificate_trust.flaw_of(found, host=server.security.host, now_ns=now_ns)
    ) is not None:
        raise flaw
    return Seen(found, shows.pki.trusted(server.url), own)


def _server(where: str, place: Place) -> Server:
    return place.server if where.startswith("opc.tcp://") else mappings.load(Path(where)).server


def show(seen: Seen, out: Console) -> None:
    """Print what the server shows, for somebody to compare."""
    one, shown = seen.shown.certificate, seen.shown
    lines = {
        "server": shown.url,
        "subject": one.subject.rfc4514_string(),
        "issuer": "itself" if one.issuer == one.subject else one.issuer.rfc4514_string(),
        "application": shown.application_uri,
        "hosts": ", ".join(certificate_trust.hosts_of(one)),
        "valid": f"{one.not_valid_before_utc:%Y-%m-%d} to {one.not_valid_after_utc:%Y-%m-%d}",
        "SHA-256": certificate_trust.sha256(one),
    }
    if seen.before.pin is not None and not seen.is_pinned:
        lines["pinned so far"] = certificate_trust.sha256(seen.before.pin)
    for name, text in lines.items():
        out.print(f"{name:<14}{certificate_trust.plain(text)}")


def accepted(seen: Seen, yes: str | None, ask: Callable[[str], bool]) -> str:
    """The SHA-256 that somebody accepts: told beforehand, pinned already, or asked for."""
    told = certificate_trust.sha256(seen.shown.certificate)
    if yes is not None:
        return yes
    if seen.is_pinned or ask("Does the server itself, or its owner, show this SHA-256?"):
        return told
    raise Refused("nothing was pinned", hint="ask the server's owner for its certificate's SHA-256")


def pin(seen: Seen, accepted: str, out: Console) -> None:
    """Trust the certificate if it is the accepted one; say what the server's owner has to do.

    accepted: its SHA-256.  Raises Refused if the server shows another.
    """
    one = seen.shown.certificate
    if not certificate_trust.is_sha256(accepted, one):
        raise Refused(
            f"{seen.shown.url} shows SHA-256 {certificate_trust.sha256(one)}, "
            f"and {accepted} was accepted",
            hint="nothing was pinned: ask the server's owner which is right",
        )
    file = proof().pki.pin(seen.shown.url, one)
    out.print(f"pinned in {file}")


def show_own(seen: Seen, out: Console) -> None:
    """Print what the server's owner must trust in turn."""
    own = seen.own
    out.print("The server's owner must trust the gateway in turn:")
    out.print(f"  {own.file}  ({own.application_uri})")
    out.print(f"  SHA-256 {certificate_trust.sha256(own.certificate)}")
