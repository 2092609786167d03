"""The systemd unit of a gateway: absolute paths, few rights, no restart where people must help."""

import configparser
import getpass
import io
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from broker.errors import Invalid, Refused, Unknown
from testbed.commissioning import systemd_unit

MAPPING = Path(__file__).parents[2] / "examples/pump-rig/mapping.yaml"
ODD = 'a "b" $c %d'


def installed(folder: Path, *, odd: bool = False) -> systemd_unit.GatewayService:
    maps = folder / (ODD if odd else "maps")
    maps.mkdir()
    shutil.copy(MAPPING, maps / "rig.yaml")
    unit = systemd_unit.service(
        [maps / "rig.yaml"], units=folder / "units", environments=folder / "settings"
    )
    unit.units.mkdir()
    systemd_unit.install(unit, Console(file=io.StringIO()))
    return unit


def fields(unit: systemd_unit.GatewayService) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    parser.read_string(unit.unit_file.read_text())
    return dict(parser["Unit"]) | dict(parser["Service"])


def test_a_unit_is_started_again_but_where_a_person_must_help(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    written = fields(unit)
    assert written["Restart"] == "always"
    assert written["RestartPreventExitStatus"] == "2"
    assert written["User"] == getpass.getuser()
    assert written["NoNewPrivileges"] == "yes"
    assert written["ExecStart"].endswith(f"-m testbed gateway run {tmp_path}/maps/rig.yaml")
    assert written["EnvironmentFile"] == str(unit.environment_file)
    for folder in ("gateway", "gateway-identity", "gateway-pki"):
        assert f'"{tmp_path}/maps/testbed-data/{folder}"' in written["ReadWritePaths"]
        assert (tmp_path / "maps" / "testbed-data" / folder).stat().st_mode & 0o777 == 0o700


def test_its_settings_are_for_their_owner_alone_and_stay_as_they_are(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    file = unit.environment_file
    assert file.stat().st_mode & 0o777 == 0o600
    assert unit.unit_file.stat().st_mode & 0o777 == 0o644
    file.write_text("TESTBED_API=https://mine\n")
    file.chmod(0o644)
    out = io.StringIO()
    systemd_unit.install(unit, Console(file=out, width=200))
    assert file.read_text() == "TESTBED_API=https://mine\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "sudo systemctl enable --now testbed-gateway" in out.getvalue()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("odd", [False, True])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, *, odd: bool) -> None:
    unit = installed(tmp_path, odd=odd)
    command = ["systemd-analyze", "verify", "--man=no", str(unit.unit_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    own = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, own) == (0, []), done.stderr


def test_who_may_not_write_there_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    unit = systemd_unit.service([MAPPING], units=tmp_path, environments=tmp_path / "file")
    with pytest.raises(Refused, match="cannot be written") as raised:
        systemd_unit.install(unit, Console(file=io.StringIO()))
    assert "--print" in raised.value.hint


def test_what_systemd_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no name of a service"):
        systemd_unit.service([MAPPING], name="../x")
    with pytest.raises(Unknown, match="no user 'nobody-of-that-name'"):
        systemd_unit.service([MAPPING], user="nobody-of-that-name")
    with pytest.raises(Unknown, match="there is no mapping"):
        systemd_unit.service([tmp_path / "no.yaml"])
