"""`testbed gateway install-service`: the systemd service of gateways."""

from collections.abc import Sequence
from pathlib import Path

from gateway.mapping import file as mapping_file
from gateway.settings import GatewaySettings, SourceSettings
from gateway.state import layout
from testbed import systemd
from testbed.systemd import SystemdService
from testbed.terminal.options import settings
from testbed.terminal.run import Exit

NAME = "testbed-gateway"

_SETTINGS = """\
# Settings of the gateway; `docs/reference/settings.md` lists all.  Only root may read this file.
TESTBED_API=https://testbed.example:8600
TESTBED_BROKER=mqtts://testbed.example:8883
#TESTBED_CA=/etc/testbed/ca.pem
# not needed after `testbed gateway enrol`:
#TESTBED_CREDENTIAL=principal.secret
#TESTBED_SOURCE_PASSWORD=
"""

_MORE = (
    "# only a person can help: see the log",
    f"RestartPreventExitStatus={int(Exit.INPUT)}",
)
_ADVICE = (f"after exit code {int(Exit.INPUT)}: mend what the log says, then",)


def service(
    mappings: Sequence[Path],
    *,
    name: str = NAME,
    user: str | None = None,
    units: Path = systemd.UNITS,
    environments: Path = systemd.ENVIRONMENTS,
) -> SystemdService:
    """The service that runs the gateways of these mapping files.

    user: who runs it, None for the owner of the first mapping.  units, environments: folders of the
    unit and of its settings.  Raises Refused for a mapping that is not right, and what
    `SystemdService` raises.
    """
    equipment = [str(mapping_file.load(file).equipment) for file in mappings]
    paths = tuple(file.absolute() for file in mappings)
    return SystemdService(
        name=name,
        description=f"Gateway of the connected testbed: {', '.join(equipment)}",
        user=user or paths[0].owner(),
        folder=paths[0].parent,
        command=("gateway", "run", *map(str, paths)),
        state=_state(mappings),
        settings=_SETTINGS,
        first_step="set the addresses of the testbed there",
        more=_MORE,
        advice=(*_ADVICE, f"  sudo systemctl restart {name}"),
        units=units.absolute(),
        environments=environments.absolute(),
    )


def _state(mappings: Sequence[Path]) -> tuple[Path, ...]:
    """The folders that these gateways write to."""
    own, source = settings(GatewaySettings), settings(SourceSettings)
    folders: set[Path] = set()
    for file in mappings:
        state = layout.folders(own, source, mapping=file)
        folders |= {state.spool, state.identity, state.pki}
    return tuple(sorted(folders))
