"""The addresses of a testbed that a command line, the environment, a profile or its API names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from broker import api_client
from broker.errors import BedError, Invalid
from broker.profiles import Profile
from broker.responses.operations import EntryPointResponse
from broker.server_addresses import DEFAULT_API, ServerAddresses


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressOptions:
    """The addresses that a command line names; None for those that it leaves out."""

    api: str | None = None
    broker: str | None = None
    ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenAddresses:
    """The addresses of a testbed, for a sign-in or an enrolment.

    is_broker_named: false while the broker's is only the usual port on the host of the API.
    """

    addresses: ServerAddresses
    is_broker_named: bool

    async def asked(self, connection: api_client.Api) -> "ChosenAddresses":
        """The same with the broker that the API names, where nobody else has named one."""
        if self.is_broker_named:
            return self
        try:
            entry_point = await connection.get("", EntryPointResponse)
        except BedError:  # `note` says it
            return self
        broker = entry_point.broker.url(self.addresses.api)
        return ChosenAddresses(
            addresses=replace(self.addresses, broker=broker), is_broker_named=True
        )

    @property
    def note(self) -> str:
        """A sentence where nobody has named the broker, the API neither; else empty."""
        if self.is_broker_named:
            return ""
        return (
            f"{self.addresses.api} did not say where its broker is: {self.addresses.broker} is"
            " taken, its usual port; if that is wrong, name it with --broker or TESTBED_BROKER"
        )


def choose(
    options: AddressOptions, environment: Mapping[str, str], known: Profile | None
) -> ChosenAddresses:
    """The addresses of options, else of the environment, else of a profile at the same server.

    known: None for the usual port of the broker on the API's host.  Raises Invalid.
    """
    api_url = options.api or environment.get("TESTBED_API")
    is_known = known is not None and (not api_url or known.addresses.is_of(api_url))
    if known is not None and is_known:
        base = known.addresses
    else:
        base = ServerAddresses.beside(api_url or DEFAULT_API)
    chosen = ServerAddresses.from_environment(environment, base)
    broker = options.broker or chosen.broker
    if broker != base.broker:
        _check_broker(broker)
    is_named = is_known or bool(options.broker or environment.get("TESTBED_BROKER"))
    return ChosenAddresses(
        addresses=replace(chosen, api=base.api, broker=broker, ca=options.ca or chosen.ca),
        is_broker_named=is_named,
    )


def _check_broker(broker: str) -> None:
    """Raise Invalid for a URL that is not a broker's."""
    from broker.settings import address_of  # noqa: PLC0415 - it loads pydantic-settings

    try:
        address_of(broker)
    except ValueError as exc:
        raise Invalid(str(exc), hint="correct --broker, or TESTBED_BROKER") from exc
