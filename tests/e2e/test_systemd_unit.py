"""The systemd units of a gateway and of a server: absolute paths, few rights, started again."""

import configparser
import getpass
import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from broker.errors import Invalid, Refused, Unknown
from testbed import systemd
from testbed.commissioning import systemd_unit as gateway_unit
from testbed.server import systemd_unit as server_unit
from testbed.systemd import SystemdService
from testbed_api.settings import DEVELOPMENT, ServerSettings

MAPPING = Path(__file__).parents[2] / "examples/pump-rig/mapping.yaml"
ODD = 'a "b" $c %d'
EVERY = "0.0.0.0"  # noqa: S104 - of a unit that is not run


def installed(folder: Path, *, odd: bool = False) -> SystemdService:
    """The service of a gateway whose mapping is in a folder below this one."""
    maps = folder / (ODD if odd else "maps")
    maps.mkdir()
    shutil.copy(MAPPING, maps / "rig.yaml")
    places = {"units": folder / "units", "environments": folder / "settings"}
    return written(gateway_unit.service([maps / "rig.yaml"], **places))


def server_installed(folder: Path, *, odd: bool = False) -> SystemdService:
    """The service of a server whose data is in a folder below this one."""
    own = ServerSettings(folder=folder / (ODD if odd else "data"), host=EVERY, tls=DEVELOPMENT)
    places = {"units": folder / "units", "environments": folder / "settings"}
    return written(server_unit.service(own, user=getpass.getuser(), **places))


def written(service: SystemdService) -> SystemdService:
    service.units.mkdir()
    systemd.install(service, Console(file=io.StringIO()))
    return service


def fields(unit: SystemdService) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read_string(unit.unit_file.read_text())
    return dict(parser["Unit"]) | dict(parser["Service"])


def test_a_unit_is_started_again_but_where_a_person_must_help(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    values = fields(unit)
    assert values["Restart"] == "always"
    assert values["RestartPreventExitStatus"] == "2"
    assert values["User"] == getpass.getuser()
    assert values["NoNewPrivileges"] == "yes"
    assert values["ExecStart"].endswith(f"-m testbed gateway run {tmp_path}/maps/rig.yaml")
    assert values["EnvironmentFile"] == str(unit.environment_file)
    for folder in ("gateway", "gateway-identity", "gateway-pki"):
        assert f'"{tmp_path}/maps/testbed-data/{folder}"' in values["ReadWritePaths"]
        assert (tmp_path / "maps" / "testbed-data" / folder).stat().st_mode & 0o777 == 0o700


def test_a_server_is_always_started_again_and_shows_no_secret(tmp_path: Path) -> None:
    unit = server_installed(tmp_path)
    values = fields(unit)
    assert (values["Restart"], values["RestartSec"]) == ("always", "5")
    assert "RestartPreventExitStatus" not in values
    assert values["StandardOutput"] == "null"  # the first lines hold a credential
    command = f"-m testbed up --data {tmp_path}/data --tls --host {EVERY}"
    assert values["ExecStart"].endswith(command)
    assert values["ReadWritePaths"] == f'"{tmp_path}/data"'
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert "TESTBED_STORE_TOKEN" in unit.environment_file.read_text()
    assert unit.environment_file.stat().st_mode & 0o777 == 0o600


def test_a_server_that_would_not_start_gets_no_unit(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="nobody owns it who could run the server"):
        server_unit.service(ServerSettings(folder=tmp_path / "data"))
    assert server_unit.service(ServerSettings(folder=tmp_path)).user == getpass.getuser()
    with pytest.raises(Invalid, match=r"open on 10\.0\.0\.5 without TLS"):
        server_unit.service(ServerSettings(folder=tmp_path, host="10.0.0.5"))


def test_its_settings_are_for_their_owner_alone_and_stay_as_they_are(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    file = unit.environment_file
    assert file.stat().st_mode & 0o777 == 0o600
    assert unit.unit_file.stat().st_mode & 0o777 == 0o644
    file.write_text("TESTBED_API=https://mine\n")
    file.chmod(0o644)
    out = io.StringIO()
    systemd.install(unit, Console(file=out, width=200))
    assert file.read_text() == "TESTBED_API=https://mine\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "sudo systemctl enable --now testbed-gateway" in out.getvalue()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("install", [installed, server_installed])
def test_systemd_finds_nothing_wrong_with_it(
    tmp_path: Path, install: Callable[..., SystemdService], *, odd: bool
) -> None:
    unit = install(tmp_path, odd=odd)
    command = ["systemd-analyze", "verify", "--man=no", str(unit.unit_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    own = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, own) == (0, []), done.stderr


def test_who_may_not_write_there_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    unit = gateway_unit.service([MAPPING], units=tmp_path, environments=tmp_path / "file")
    with pytest.raises(Refused, match="cannot be written") as raised:
        systemd.install(unit, Console(file=io.StringIO()))
    assert "--print" in raised.value.hint


def test_what_systemd_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no name of a service"):
        gateway_unit.service([MAPPING], name="../x")
    with pytest.raises(Unknown, match="no user 'nobody-of-that-name'"):
        gateway_unit.service([MAPPING], user="nobody-of-that-name")
    with pytest.raises(Unknown, match="there is no mapping"):
        gateway_unit.service([tmp_path / "no.yaml"])


def test_a_server_that_would_run_as_root_is_told_how_it_would_not(tmp_path: Path) -> None:
    own = ServerSettings(folder=tmp_path)
    by_owner = server_unit.service(own).advice[-1]
    assert by_owner.startswith(f"it runs as root, who owns {tmp_path}: ") is (
        getpass.getuser() == "root"
    )
    assert "as root" not in server_unit.service(own, user=getpass.getuser()).advice[-1]
