"""Systemd services of the testbed's processes: a unit of few rights, and a file of its settings.

Source: systemd.exec(5), systemd.service(5) and systemd.syntax(7).
"""

import getpass
import os
import pwd
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from broker.errors import Invalid, Refused, Unknown
from broker.process import files as private_files

UNITS = Path("/etc/systemd/system")
ENVIRONMENTS = Path("/etc/testbed")
READABLE = 0o644
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", re.ASCII)

_UNIT = """\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target
# it is started again for ever
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
WorkingDirectory={folder}
EnvironmentFile={environment}
ExecStart={command}
Restart=always
RestartSec=5
{more}# the first process ends the others in order
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
class SystemdService:
    """A systemd service that runs a command of `testbed`; all paths are absolute.

    user: who runs it.  folder: that it is started in.  command: words after `testbed`.  state:
    folders that it writes to.  settings: text of a new file of settings.  first_step: what to do
    with that file, printed behind its name.  more: lines of its own for the unit's section
    `Service`.  advice: lines that are printed last.  units, environments: folders of the unit and
    of the file of settings.  Raises Invalid for a name or path that systemd does not take, Unknown
    for a user that is none.
    """

    name: str
    description: str
    user: str
    folder: Path
    command: tuple[str, ...]
    state: tuple[Path, ...]
    settings: str
    first_step: str
    more: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    units: Path = UNITS
    environments: Path = ENVIRONMENTS

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise Invalid(
                f"{self.name!r} is no name of a service",
                hint="letters, digits, '-', '_' and '.'",
            )
        for text in (*self.command, str(self.folder), *map(str, self.state)):
            if not text.isprintable():
                raise Invalid(f"the path {text!r} has control characters", hint="rename it")
        try:
            pwd.getpwnam(self.user)
        except KeyError as exc:
            raise Unknown(
                f"there is no user {self.user!r} here", hint="--run-as another one"
            ) from exc

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
        words = [str(python), "-P", "-m", "testbed", *self.command]
        return _UNIT.format(
            description=_specifiers(self.description),
            user=self.user,
            folder=_specifiers(str(self.folder)),
            environment=_specifiers(str(self.environment_file)),
            command=" ".join(map(_word, words)),
            more="".join(f"{line}\n" for line in self.more),
            state=" ".join(_path(str(folder)) for folder in self.state),
        )


def print_or_install(service: SystemdService, out: Console, *, print_only: bool) -> None:
    """Print the unit on standard output, or install it; raises Refused as `install` does."""
    if print_only:
        print(service.unit, end="")  # noqa: T201 - a file's text, unchanged
    else:
        install(service, out)


def install(service: SystemdService, out: Console) -> None:
    """Write the unit, its settings if there are none, and its state's folders; say what is next.

    Raises Refused if this user may not write them.
    """
    try:
        new = _write_settings(service)
        for folder in service.state:
            _make_folder(folder, service.user)
        private_files.replace(service.unit_file, service.unit.encode(), mode=READABLE)
    except OSError as exc:
        raise Refused(
            f"{exc.filename or service.unit_file} cannot be written: {exc.strerror}",
            hint="as root: sudo with the same command; or --print, and put it there yourself",
        ) from exc
    out.print(f"wrote {service.unit_file}, which runs as {service.user}")
    if new:
        out.print(f"wrote {service.environment_file}; {service.first_step}")
    out.print("next:")
    for line in (
        f"sudoedit {service.environment_file}",
        "sudo systemctl daemon-reload",
        f"sudo systemctl enable --now {service.name}",
        f"journalctl -fu {service.name}",
    ):
        out.print(f"  {line}")
    for line in service.advice:
        out.print(line)


def _write_settings(service: SystemdService) -> bool:
    """Write the settings' file for its owner alone, unless there is one; True if it was written."""
    file = service.environment_file
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with private_files.create_private(file) as opened:
            opened.write(service.settings.encode())
    except FileExistsError:
        file.chmod(private_files.PRIVATE)
        return False
    return True


def _make_folder(folder: Path, user: str) -> None:
    """Make a folder, with those above it that are missing, for the user who runs the service."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=private_files.PRIVATE_FOLDER)
        if user != getpass.getuser():
            entry = pwd.getpwnam(user)
            os.chown(each, entry.pw_uid, entry.pw_gid)


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
