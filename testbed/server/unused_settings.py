"""Warns of TESTBED_… variables that no process reads, and of settings without an effect."""

import difflib
from collections.abc import Iterable, Iterator, Mapping

import structlog
from pydantic import SecretStr

from broker import profiles
from broker.settings import PREFIX, BusSettings, Settings
from testbed_api.security.system_secrets import SharedSecrets
from testbed_api.settings import ServerSettings

OWN: tuple[type[Settings], ...] = (BusSettings, ServerSettings, SharedSecrets)
"""Settings of a server's processes."""
NEEDED: Mapping[str, str] = {
    "notify_webhook_secret": "notify_webhook",
    "notify_smtp_from": "notify_smtp",
    "notify_smtp_user": "notify_smtp",
    "notify_smtp_password": "notify_smtp",
    "store_token": "store",
    "store_ca": "store",
    "registry_password": "registry",
    "registry_ca": "registry",
}
"""Settings that have no effect while another has its default."""

log = structlog.get_logger()


def warn(own: ServerSettings, environment: Mapping[str, str]) -> None:
    """Log a warning for each variable that nobody reads, and for each setting without effect."""
    for name, nearest in unread(environment):
        log.warning("variable is read by nobody", variable=name, did_you_mean=nearest)
    for name, needed in without_effect(own):
        log.warning("setting has no effect", setting=name, it_needs=needed)


def without_unused(own: ServerSettings, environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what `warn` names, for a child process, which would repeat it."""
    unused = {*dict(unread(environment)), *dict(without_effect(own))}
    return {
        name: value
        for name, value in environment.items()
        if name.removesuffix("_FILE") not in unused and name not in unused
    }


def unread(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The TESTBED_… variables that are of no setting, each with the nearest one, or none."""
    known = {profiles.VARIABLE, *profiles.CREDENTIAL_VARIABLES, *_variables(OWN)}
    unknown = sorted(name for name in environment if name.startswith(PREFIX) and name not in known)
    if unknown:
        known.update(_variables(_of_others()))
    for name in unknown:
        if name not in known:
            nearest = difflib.get_close_matches(name, sorted(known), 1, cutoff=0.8)
            yield name, "".join(nearest)


def without_effect(own: ServerSettings) -> Iterator[tuple[str, str]]:
    """The variables of settings that are set in vain, each with the one that they need."""
    fields = ServerSettings.model_fields
    for name, needed in NEEDED.items():
        value = getattr(own, name)
        is_set = bool(value.get_secret_value() if isinstance(value, SecretStr) else value)
        if is_set and getattr(own, needed) == fields[needed].default:
            yield f"{PREFIX}{name.upper()}", f"{PREFIX}{needed.upper()}"


def _of_others() -> tuple[type[Settings], ...]:
    """The settings of gateways and prototypes, which are loaded where a variable may be theirs."""
    from gateway.settings import GatewaySettings, SourceSettings  # noqa: PLC0415 - see above
    from testbed_sdk.settings import PrototypeSettings  # noqa: PLC0415

    return GatewaySettings, SourceSettings, PrototypeSettings


def _variables(kinds: Iterable[type[Settings]]) -> Iterator[str]:
    """Every variable that settings are read from."""
    for kind in kinds:
        for name, field in kind.model_fields.items():
            yield f"{PREFIX}{name.upper()}"
            if field.annotation is SecretStr:
                yield f"{PREFIX}{name.upper()}_FILE"
