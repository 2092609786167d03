"""`testbed gateway check` and `browse`: what a factory engineer does before a machine goes on the
bus.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from broker.clock import WallClock
from broker.errors import Invalid, Taken, Unknown
from broker.namespace import EquipmentAddress
from broker.settings import address_of
from gateway.commissioning import browse as browsing
from gateway.commissioning import check as checking
from gateway.commissioning import mqtt_browse
from gateway.commissioning.mqtt_browse import LISTEN_S
from gateway.links.opcua.security import Proof
from gateway.mapping import model as mappings
from gateway.mapping.model import Broker, Policy, Security, Server
from gateway.settings import SourceSettings

SECURITY = ("none", "sign-and-encrypt")


@dataclass(frozen=True, slots=True)
class Place:
    """What is looked at: a server or a broker, and how a server is secured."""

    url: str
    security: str | None = None
    policy: str = Policy.BASIC256_SHA256
    user: str = ""

    @property
    def server(self) -> Server:
        """The OPC UA server; raises Invalid, and never guesses that it needs no security."""
        host = mappings.host_of(self.url)
        if self.security not in SECURITY:
            told = "not said" if self.security is None else f"{self.security!r}, which is not known"
            raise Invalid(
                f"how {self.url} is to be secured is {told}",
                hint="--security sign-and-encrypt; or --security none, where the server cannot, and"
                " only on a network of its own",
            )
        if self.policy not in set(Policy):
            raise Invalid(
                f"policy {self.policy!r} is not known", hint=f"one of {', '.join(Policy)}"
            )
        if self.security == "none":
            if self.user:
                raise Invalid("a user needs --security sign-and-encrypt: a password is no secret")
            return browsing.server(self.url, None)
        policy = Policy(self.policy)
        return browsing.server(
            self.url, Security(policy, self.user, as_certificate=False, host=host)
        )


def proof() -> Proof:
    """What the gateway on this machine proves itself with."""
    return Proof.of(SourceSettings(), WallClock())


async def check(path: Path, show: Callable[[Any], None], *, as_json: bool) -> bool:
    """Print every finding; True if none is an error."""
    findings = await checking.check(mappings.load(path), proof())
    if as_json:
        show([asdict(one) for one in findings])
    elif not findings:
        show(f"{path}: nothing is wrong")
    else:
        for one in findings:
            show(str(one))
    return not any(one.severity is checking.Severity.ERROR for one in findings)


async def browse(place: Place, write: Path | None, equipment: str, out: Console) -> None:
    """Print the tree; with `write`, a first mapping as well."""
    address = EquipmentAddress.parse(equipment)
    if place.url.startswith("mqtt://"):
        text = await _overheard(place.url, address, out)
    else:
        server, shown = place.server, proof()
        for line in await browsing.tree(server, shown):
            out.print(line)
        if write is None:
            return
        text = await browsing.starting_mapping(server, address, shown)
    if write is None:
        return
    try:
        with write.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as exc:
        raise Taken(f"{write} is there already", hint="name a new file") from exc
    out.print(f"wrote {write}; edit it, then: testbed gateway check {write}")


async def _overheard(url: str, address: EquipmentAddress, out: Console) -> str:
    """Print what a broker's topics say for a while; a first mapping of it."""
    user, _, place = url.removeprefix("mqtt://").rpartition("@")
    plain = f"mqtt://{place}"
    try:
        broker = Broker(plain, user, timeout_s=LISTEN_S, keepalive_s=10)
        address_of(plain)
    except ValueError as exc:
        raise Invalid(str(exc)) from exc
    out.print(f"listening to {plain} for {LISTEN_S:g} s …")
    password = SourceSettings().source_password.get_secret_value()
    heard = await mqtt_browse.overheard(broker, password, ("#",), LISTEN_S)
    for line in mqtt_browse.lines(heard):
        out.print(line)
    if not heard:
        raise Unknown(f"nothing was published at {plain} in {LISTEN_S:g} s")
    names = (address.organisation, address.equipment)
    return mqtt_browse.starting_mapping(plain, user, heard, *names)
