"""`testbed gateway install-service`: a systemd unit of gateways, and the file of its settings.

Source: systemd.exec(5), systemd.service(5) and systemd.syntax(7).
"""

import getpass
import os
import pwd
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from broker.errors import Invalid, Refused, Unknown
from broker.process import files as private_files
from gateway.mapping import file as mapping_file
from gateway.settings import GatewaySettings, SourceSettings
from gateway.state import layout
from testbed.terminal.options import settings
from testbed.terminal.run import Exit

UNITS = Path("/etc/systemd/system")
ENVIRONMENTS = Path("/etc/testbed")
NAME = "testbed-gateway"
READABLE = 0o644
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)

_SETTINGS = """\
# Settings of the gateway; `docs/reference/settings.md` lists all.  Only root may read this file.
TESTBED_API=https://testbed.example:8600
TESTBED_BROKER=mqtts://testbed.example:8883
#TESTBED_CA=/etc/testbed/ca.pem
# not needed after `testbed gateway enrol`:
#TESTBED_CREDENTIAL=principal.secret
#TESTBED_SOURCE_PASSWORD=
"""

_UNIT = """\
[Unit]
Description=Gateway of the connected testbed: {equipment}
Wants=network-online.target
After=network-online.target
# it is started again for ever, but for exit code 2
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
WorkingDirectory={folder}
EnvironmentFile={environment}
ExecStart={command}
Restart=always
RestartSec=5
# only a person can help: see the log
RestartPreventExitStatus={prevented}
# the first process ends the others in order
KillMode=mixed
TimeoutStopSec=60

UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={state}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayService:
    """A systemd service that runs the gateways of some mapping files, with absolute paths.

    state: folders that it writes to.
    """

    name: str
    user: str
    mappings: tuple[Path, ...]
    equipment: tuple[str, ...]
    state: tuple[Path, ...]
    units: Path
    environments: Path

    @property
    def unit_file(self) -> Path:
        """The file of the unit."""
        return self.units / f"{self.name}.service"

    @property
    def environment_file(self) -> Path:
        """The file of the settings, which holds secrets."""
        return self.environments / f"{self.name}.env"

    @property
    def unit(self) -> str:
        """The text of the unit."""
        python = Path(sys.executable).absolute()
        command = [python, "-P", "-m", "testbed", "gateway", "run", *self.mappings]
        return _UNIT.format(
            equipment=", ".join(self.equipment),
            user=self.user,
            folder=_specifiers(str(self.mappings[0].parent)),
            environment=_specifiers(str(self.environment_file)),
            command=" ".join(_word(str(part)) for part in command),
            prevented=int(Exit.INPUT),
            state=" ".join(_path(str(folder)) for folder in self.state),
        )


def service(
    mappings: Sequence[Path],
    *,
    name: str = NAME,
    user: str | None = None,
    units: Path = UNITS,
    environments: Path = ENVIRONMENTS,
) -> GatewayService:
    """The service that runs the gateways of these mapping files.

    user: who runs it, None for the owner of the first mapping.  units, environments: folders of the
    unit and of its settings.  Raises Refused for a mapping that is not right, an unknown user, or a
    name or path that systemd does not take.
    """
    if _NAME.fullmatch(name) is None:
        raise Invalid(f"{name!r} is no name of a service", hint="letters, digits, '-', '_' and '.'")
    equipment = [str(mapping_file.load(file).equipment) for file in mappings]
    own, source = settings(GatewaySettings), settings(SourceSettings)
    folders: set[Path] = set()
    for file in mappings:
        kept_in = layout.folders(own, source, mapping=file)
        folders |= {kept_in.spool, kept_in.identity, kept_in.pki}
    paths = tuple(file.absolute() for file in mappings)
    for path in (*paths, *folders):
        if not str(path).isprintable():
            raise Invalid(f"the path {str(path)!r} has control characters", hint="rename it")
    return GatewayService(
        name=name,
        user=_known_user(user or paths[0].owner()),
        mappings=paths,
        equipment=tuple(equipment),
        state=tuple(sorted(folders)),
        units=units.absolute(),
        environments=environments.absolute(),
    )


def install(unit: GatewayService, out: Console) -> None:
    """Write the unit, its settings if there are none, and its state's folders; say what is next.

    Raises Refused if this user may not write them.
    """
    try:
        new = _write_settings(unit.environment_file)
        for folder in unit.state:
            _make_folder(folder, unit.user)
        private_files.replace(unit.unit_file, unit.unit.encode(), mode=READABLE)
    except OSError as exc:
        raise Refused(
            f"{exc.filename or unit.unit_file} cannot be written: {exc.strerror}",
            hint="as root: sudo with the same command; or --print, and put it there yourself",
        ) from exc
    out.print(f"wrote {unit.unit_file}, which runs as {unit.user}")
    if new:
        out.print(f"wrote {unit.environment_file}; set the addresses of the testbed there")
    print_next(unit, out)


def print_next(unit: GatewayService, out: Console) -> None:
    """Print the commands that come next."""
    out.print("next:")
    for line in (
        f"sudoedit {unit.environment_file}",
        "sudo systemctl daemon-reload",
        f"sudo systemctl enable --now {unit.name}",
        f"journalctl -fu {unit.name}",
    ):
        out.print(f"  {line}")
    out.print(f"after exit code {int(Exit.INPUT)}: mend what the log says, then")
    out.print(f"  sudo systemctl restart {unit.name}")


def _write_settings(file: Path) -> bool:
    """Write the settings' file for its owner alone, unless there is one; True if it was written."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with private_files.create_private(file) as opened:
            opened.write(_SETTINGS.encode())
    except FileExistsError:
        file.chmod(private_files.PRIVATE)
        return False
    return True


def _make_folder(folder: Path, user: str) -> None:
    """Make a folder, with those above it that are missing, for the user who runs the gateway."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=private_files.PRIVATE_FOLDER)
        if user != getpass.getuser():
            entry = pwd.getpwnam(user)
            os.chown(each, entry.pw_uid, entry.pw_gid)


def _known_user(user: str) -> str:
    try:
        return pwd.getpwnam(user).pw_name
    except KeyError as exc:
        raise Unknown(f"there is no user {user!r} here", hint="--run-as another one") from exc


def _specifiers(text: str) -> str:
    """Text with systemd's specifiers switched off."""
    return text.replace("%", "%%")


def _path(text: str) -> str:
    """A path in a list of paths."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_specifiers(escaped)}"'


def _word(text: str) -> str:
    """A word of a command line, quoted where systemd would read it otherwise."""
    if re.fullmatch(r"[A-Za-z0-9_./:=@+-]+", text):
        return text
    return _path(text).replace("$", "$$")
