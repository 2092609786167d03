"""The modules that a command loads before it does anything: a help text needs no database."""

import json
import os
import subprocess
import sys

import pytest

from tests import sources

HEAVY = {
    *("numpy", "duckdb", "asyncua", "fastapi", "sqlalchemy", "pyarrow", "matplotlib", "pandas"),
    *("alembic", "uvicorn", "nats", "cryptography", "pydantic", "pydantic_settings"),
}
ANSWERS = {"numpy", "pydantic"}
"""Packages that the models of answers need."""
NETWORK = {"httpx", "asyncio", "structlog"}
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
ROOT = [["--version"], ["--help"]]
HELP = [
    ["up", "--help"],
    ["demo", "--help"],
    ["gateway", "run", "--help"],
    ["history", "--help"],
    ["sign-in", "--help"],
]
LIGHT = [
    ["status"],
    ["credential", "list"],
    ["credential", "create", "detector"],
    ["token", "create"],
    ["token", "list"],
    ["member", "list"],
    ["organisation", "list"],
    ["grant", "list"],
    ["grant", "approve", "7"],
    ["listing", "list"],
    ["access", "factory/rig"],
    ["pause", "--company", "company"],
    ["retention", "list"],
    ["sign-in", "fay", "--password", "correct horse battery"],
    ["whoami"],
    ["status", "--as", "fay"],
]


def modules_after(words):
    """The modules that a process of its own has loaded after a command."""
    environment = {"PATH": "", "XDG_CONFIG_HOME": os.environ["XDG_CONFIG_HOME"], **AWAY}
    command = [sys.executable, "-c", RUN, json.dumps(words)]
    done = subprocess.run(
        command, cwd=sources.ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("words", ROOT, ids=" ".join)
def test_the_version_and_the_list_of_commands_load_no_command(words):
    modules = modules_after(words)
    assert modules & (HEAVY | NETWORK) == set()
    assert not any(name.startswith("testbed.commands.") for name in modules)


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_the_help_of_a_command_loads_nothing_that_it_runs_on(words):
    assert modules_after(words) & (HEAVY | NETWORK - {"asyncio"}) == set()  # clocks know asyncio


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_a_request_to_the_api_loads_no_server_and_no_database(words):
    modules = modules_after(words)
    assert "httpx" in modules
    assert modules & HEAVY <= ANSWERS
