"""The modules that a command loads before it does anything: a help text needs no database."""

import json
import os
import socket
import subprocess
import sys

import pytest

from testbed_api import data_folder
from tests import sources

HEAVY = {
    *("numpy", "duckdb", "asyncua", "fastapi", "sqlalchemy", "pyarrow", "jinja2", "pandas"),
    *("alembic", "uvicorn", "nats", "cryptography", "pydantic", "pydantic_settings"),
    *("pygments", "markdown_it", "rich.markdown", "rich.progress", "rich.syntax", "click"),
}
ANSWERS = {"pydantic"}
"""The models of answers are made with it."""
NETWORK = {"httpx", "asyncio", "structlog"}
LOGS = {"structlog"}
HELP_TEXTS = {"pygments", "markdown_it", "rich.markdown", "rich.syntax"}
"""typer's help of one command loads them, and so does structlog, for tracebacks in colour."""
READERS = {"numpy", "pydantic", "pydantic_settings"} | HELP_TEXTS
"""Samples are columns of numpy; the settings of the SDK are read with pydantic-settings."""
RUN = """
import json, sys
from testbed import cli

try:
    cli.app(json.loads(sys.argv[1]), standalone_mode=False)
except SystemExit:
    pass
print()
print(json.dumps(sorted(sys.modules)))
"""
AWAY = {"TESTBED_API": "http://127.0.0.1:9", "TESTBED_CREDENTIAL": f"fay.{'A' * 43}"}
IMPORT = """
import importlib, json, sys

importlib.import_module(sys.argv[1])
print(json.dumps(sorted(sys.modules)))
"""
BUILT = """
import importlib, json, sys
from broker.responses.base import ApiResponse

answers = importlib.import_module(sys.argv[1])
answers.GapPage.model_validate({"items": [], "next": None})
known = [each for each in vars(answers).values() if isinstance(each, type)]
built = [each for each in known if issubclass(each, ApiResponse) and each.__pydantic_complete__]
print(json.dumps([each.__name__ for each in built]))
"""
ROOT = [["--version"], ["--help"]]
HELP = [
    ["up", "--help"],
    ["demo", "--help"],
    ["try", "--help"],
    ["run", "--help"],
    ["scenario", "init", "--help"],
    ["gateway", "run", "--help"],
    ["history", "--help"],
    ["sign-in", "--help"],
]
LIGHT = [
    ["status"],
    ["alarms"],
    ["stream", "list"],
    ["stream", "show", "factory/rig/s"],
    ["deletions", "factory/rig/s"],
    ["stream", "gaps", "factory/rig/s"],
    ["stream", "dead-letters", "factory/rig/s"],
    ["history", "factory/rig/s"],
    ["credential", "list"],
    ["credential", "create", "detector"],
    ["token", "create"],
    ["token", "list"],
    ["member", "list"],
    ["organisation", "list"],
    ["grant", "list"],
    ["grant", "show", "7"],
    ["grant", "approve", "7"],
    ["listing", "list"],
    ["access", "factory/rig"],
    ["pause", "--company", "company"],
    ["resume", "--company", "company"],
    ["retention", "list"],
    ["audit", "list"],
    ["audit", "verify"],
    ["sign-in", "fay", "--password", "correct horse battery"],
    ["whoami"],
    ["status", "--as", "fay"],
    ["gateway", "code", "factory/rig"],
    ["gateway", "show", "factory/rig"],
    ["gateway", "lock-out", "factory/rig"],
]
OF_SAMPLES = [["tap", "factory/rig/s"]]
OFFLINE = [
    ["simulate", "list"],
    ["scenario", "schema"],
    ["scenario", "init", "{folder}/new", "--from-model", "pump-rig"],
    ["run", "--check", "examples/scenarios/drift-missed.yaml"],
]
WRONG_SETTING = [
    ["up", "--port", "99999"],
    ["up", "--tls", "--insecure"],
    ["up", "--registry", "mysql://x"],
    ["api", "--port", "99999"],
    ["backup", "new", "--data", "here", "--store", "nonsense"],
    ["restore", "here", "--store", "nonsense"],
    ["backup", "new", "--data", "no-such-folder"],
    ["administrator", "renew", "--data", "no-such-folder"],
]
SETTINGS = {"pydantic", "pydantic_settings"}
CERTIFICATES = {"cryptography"}
REFUSED_STARTS = [
    ("--port {port}", {}),
    ("--mqtt-port {port}", {}),
    ("--tls --mqtt-port {port}", {}),
    ("--data {folder}", {}),
    ("--host 0.0.0.0", {}),
    ("", {"TESTBED_BROKER_SERVER": "nats://127.0.0.1:4222"}),
    ("", {"TESTBED_BROKER_BACKEND": "mosquitto"}),
]
SERVER = {"alembic", "duckdb", "fastapi", "nats", "sqlalchemy", "uvicorn"}
GATEWAY = {"asyncua", "gateway.service", "prometheus_client"}
OF_OTHERS = {"testbed_sdk", "gateway", "simulators", "testbed_scenarios", "asyncua", "jinja2"}
"""What no server needs."""
WRONG_SOURCE = [
    ["gateway", "run", "no-such.yaml"],
    ["gateway", "check", "no-such.yaml"],
    ["gateway", "browse", "opc.tcp://127.0.0.1:9"],
    ["gateway", "browse", "opc.tcp://127.0.0.1:9", "--security", "none", "--user", "fay"],
]
WRONG_MACHINE = [
    ["simulate", "pump-rig", "--fault", "leak@1..2"],
    ["simulate", "csv", "no-such.csv"],
    ["simulate", "fmu", "no-such.fmu"],
    ["demo", "--times", "never"],
]
WITHOUT_OPC_UA = [
    ["demo", "--prototype", "no-such-program"],
    ["try", "--", "no-such-program"],
    ["gateway", "browse", "mqtt://127.0.0.1:9", "--listen-s", "1"],
]


def modules_after(words, **variables):
    """The modules that a process of its own has loaded after a command."""
    return modules_of(RUN, json.dumps(words), **variables)


def modules_of(script, *arguments, **variables):
    """The modules that a process of its own has loaded at the end of a script."""
    own = {"PATH": "", "XDG_CONFIG_HOME": os.environ["XDG_CONFIG_HOME"], **AWAY}
    environment = own | variables
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(
        command, cwd=sources.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("words", ROOT, ids=" ".join)
def test_the_version_and_the_list_of_commands_load_no_command(words):
    modules = modules_after(words)
    assert modules & (HEAVY | NETWORK | {"rich"}) == set()
    assert not any(name.startswith("testbed.commands.") for name in modules)


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_the_help_of_a_command_loads_nothing_that_it_runs_on(words):
    modules = modules_after(words) - HELP_TEXTS
    assert modules & (HEAVY | NETWORK - {"asyncio"}) == set()  # clocks know asyncio


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_a_request_to_the_api_loads_no_server_and_no_database(words):
    modules = modules_after(words)
    assert "httpx" in modules
    assert modules & (HEAVY | LOGS) <= ANSWERS


@pytest.mark.parametrize("words", OF_SAMPLES, ids=" ".join)
def test_a_reader_of_samples_loads_no_server(words):
    modules = modules_after(words)
    assert modules & HEAVY - READERS == set()


@pytest.mark.parametrize("words", OFFLINE, ids=" ".join)
def test_what_needs_no_testbed_loads_neither_server_nor_gateway_nor_network(tmp_path, words):
    modules = modules_after([word.format(folder=tmp_path) for word in words])
    assert modules & HEAVY - READERS == set()
    assert modules & (SERVER | GATEWAY | LOGS | {"httpx"}) == set()


@pytest.mark.parametrize("words", WRONG_SETTING, ids=" ".join)
def test_a_wrong_setting_is_said_before_the_server_is_loaded(words):
    modules = modules_after(words)
    assert modules & HEAVY - SETTINGS - HELP_TEXTS == set()


@pytest.mark.parametrize("words", WRONG_SOURCE, ids=" ".join)
def test_a_mapping_or_source_that_is_wrong_is_said_before_the_gateway_is_loaded(words):
    assert modules_after(words) & (SERVER | GATEWAY | {"numpy"}) == set()


@pytest.mark.parametrize("words", WRONG_MACHINE, ids=" ".join)
def test_a_wrong_machine_is_said_before_the_simulator_is_loaded(words):
    assert modules_after(words) & (SERVER | GATEWAY) == set()


def test_an_answer_that_nobody_reads_gets_no_validator():
    assert modules_of(BUILT, "broker.responses.streams") == {"GapPage"}


@pytest.fixture
def taken(tmp_path):
    """A port that is listened on, and a data folder that a server has locked."""
    with socket.socket() as listener, data_folder.locked(tmp_path / "taken"):
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield {"port": listener.getsockname()[1], "folder": tmp_path / "taken"}


@pytest.mark.parametrize(("options", "variables"), REFUSED_STARTS)
def test_a_start_that_cannot_succeed_is_refused_before_the_server_is_loaded(
    tmp_path, taken, options, variables
):
    words = ["up", "--data", str(tmp_path / "new"), *options.format(**taken).split()]
    modules = modules_after(words, **variables)
    assert modules & HEAVY - SETTINGS - HELP_TEXTS - CERTIFICATES == set()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", WITHOUT_OPC_UA, ids=" ".join)
def test_what_starts_the_server_elsewhere_or_reads_mqtt_loads_neither_server_nor_opc_ua(words):
    assert modules_after(words) & (SERVER | {"asyncua"}) == set()


def test_a_server_loads_neither_gateway_nor_sdk_nor_a_store_that_it_does_not_use():
    modules = modules_of(IMPORT, "testbed.server.up")
    assert modules >= {"fastapi", "sqlalchemy"}
    assert modules & (OF_OTHERS | {"testbed_api.stores.influxdb", "duckdb"}) == set()
