"""The reference names everything there is: settings, commands, errors, topics, gap causes."""

import re
from pathlib import Path

import pytest

from broker import errors
from broker.namespace import Verb
from broker.settings import BusSettings
from gateway.settings import GatewaySettings, SourceSettings
from testbed import cli
from testbed_api.http.problems import STATUS
from testbed_api.recorder import lost_gaps
from testbed_api.retention.deletions import DELETED
from testbed_api.security.system_secrets import SharedSecrets
from testbed_api.settings import ServerSettings
from testbed_runner.settings import RunnerSettings
from testbed_sdk import PrototypeSettings

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def read(name):
    return (REFERENCE / name).read_text()


KINDS = [
    BusSettings,
    ServerSettings,
    SharedSecrets,
    GatewaySettings,
    SourceSettings,
    RunnerSettings,
    PrototypeSettings,
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_is_described_as_the_code_describes_it(kind):
    text = read("settings.md")
    for name, field in kind.model_fields.items():
        assert f"`TESTBED_{name.upper()}`" in text
        assert field.description in text


def test_every_command_is_listed():
    text = read("commands.md").replace("` · `", " ")
    for name, command in cli.loaded_root().commands.items():
        if command.hidden:
            continue
        for sub in getattr(command, "commands", {"": None}):
            assert re.search(rf"testbed {name} ?([\w-]+ )*{sub}", text), f"testbed {name} {sub}"


def test_every_error_has_its_code_and_its_status():
    text = read("commands.md")
    for kind, status in STATUS.items():
        assert f"| `{kind.code}` | {status} |" in text
    assert {kind.code for kind in STATUS} <= set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))
    assert issubclass(errors.Unknown, errors.Refused)


def test_every_verb_has_its_topic():
    text = read("messages.md")
    for verb in Verb:
        assert f"`tb1/{{space}}/{verb}/" in text


def test_every_cause_of_a_gap_is_told():
    text = read("messages.md")
    gateway = Path(__file__).parents[2] / "gateway"
    modules = [path for path in gateway.rglob("*.py") if path.parent.name != "state"]
    source = "\n".join(path.read_text() for path in modules)
    causes = set(re.findall(r'"((?:source|gateway|server|lost|spool)-[a-z]+)"', source))
    assert causes
    for cause in causes | {DELETED, *lost_gaps.CAUSES}:
        assert f"`{cause}`" in text
