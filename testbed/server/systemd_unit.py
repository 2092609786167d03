"""`testbed install-service`: the systemd service of a whole server."""

import shlex
from pathlib import Path

from broker.errors import Invalid
from testbed import systemd
from testbed.systemd import SystemdService
from testbed_api.security import certificates
from testbed_api.settings import DEVELOPMENT, ServerSettings

NAME = "testbed-server"
OPTIONS = {"host": "--host", "api_port": "--port", "mqtt_port": "--mqtt-port"}
"""Options of `testbed up` by the settings that they set; the others stand in the file."""

_SETTINGS = """\
# Settings of the server; `docs/reference/settings.md` lists all.  Only root may read this file.
#TESTBED_STORE=influxdb://127.0.0.1:8086/testbed/testbed
#TESTBED_STORE_TOKEN=
#TESTBED_NOTIFY_SMTP=smtp+starttls://mail.example:587
#TESTBED_NOTIFY_SMTP_FROM=testbed@factory.example
# certificates of a public authority, in place of --tls:
#TESTBED_TLS_CERT_FILE=/etc/testbed/fullchain.pem
#TESTBED_TLS_KEY_FILE=/etc/testbed/key.pem
"""


def service(
    own: ServerSettings,
    *,
    name: str = NAME,
    user: str | None = None,
    units: Path = systemd.UNITS,
    environments: Path = systemd.ENVIRONMENTS,
) -> SystemdService:
    """The service that runs a server with its data in `own.folder`.

    user: who runs it, None for the owner of that folder.  units, environments: folders of the unit
    and of its settings.  Raises Invalid where the server would not start: an address without TLS.
    Raises what `SystemdService` raises.
    """
    certificates.from_settings(own)
    folder = own.folder.absolute()
    advice = [f"its data, certificates and keys are in {folder}"]
    if user is None and _owner(folder) == "root":
        advice.append(
            f"it runs as root, who owns {folder}: give the folder to a user of its own, sudo chown"
            f" -R USER: {shlex.quote(str(folder))}, and repeat this"
        )
    return SystemdService(
        name=name,
        description="Server of the connected testbed",
        user=user or _owner(folder),
        folder=folder,
        command=("up", "--data", str(folder), *_options(own)),
        state=(folder,),
        settings=_SETTINGS,
        first_step="it needs no change for an embedded store",
        more=(
            "# its first lines hold the administrator's credential until one was used",
            "StandardOutput=null",
        ),
        advice=tuple(advice),
        units=units.absolute(),
        environments=environments.absolute(),
    )


def _options(own: ServerSettings) -> tuple[str, ...]:
    """The options of `testbed up` for the settings that differ from their defaults."""
    words = ["--tls"] if own.tls == DEVELOPMENT else []
    for name, option in OPTIONS.items():
        value = getattr(own, name)
        if value != ServerSettings.model_fields[name].default:
            words += [option, str(value)]
    return tuple(words)


def _owner(folder: Path) -> str:
    """The owner of a data folder; raises Invalid if it is not there yet."""
    if not folder.exists():
        raise Invalid(
            f"{folder} is not there yet, so nobody owns it who could run the server",
            hint="--run-as names the user",
        )
    return folder.owner()
