"""Runs that are handed over to a testbed: compared, with evidence, and kept where it is away."""

import asyncio
import json
import os
import sys

import pytest

from broker.responses.run_document import RunDocument
from broker.runs import checks
from tests.e2e.test_scenarios import ECHO, PROGRAMS, Ran, scenario
from tests.e2e.town import ready_event
from tests.services import free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    yield from ready_event(tmp_path_factory.mktemp("runs"), "up", "--port", "0", "--mqtt-port", "0")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "echo.py").write_text(PROGRAMS["echo.py"])
    return tmp_path


@pytest.fixture
def testbed(server, folder):
    """A function that runs `testbed` with some words, in the folder, as the administrator."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("TESTBED_")
    }
    environment["XDG_CONFIG_HOME"] = str(folder / "config")

    async def run(*words, api=server["api"]):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "testbed", *map(str, words)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=folder,
            env=environment | {"TESTBED_API": api, "TESTBED_CREDENTIAL": server["administrator"]},
        )
        out, errors = await process.communicate()
        return Ran(process.returncode, out, errors)

    return run


@pytest.mark.timeout(180)
async def test_two_runs_are_handed_over_compared_and_traced(server, folder, testbed):
    file = scenario(folder, ECHO)
    for seed, report in ((1, "first.html"), (2, "second.html")):
        words = ("--seed", seed, "--server", server["api"], "--report", report)
        run = await testbed("run", file, "--fast", *words)
        assert run.code == 0, run.errors
        assert f"is run {seed} of testbed" in run.errors
    listed = json.loads((await testbed("runs", "list", "--json")).out)["items"]
    assert [(each["id"], each["seed"], each["passed"]) for each in listed] == [
        (2, 2, True),
        (1, 1, True),
    ]
    compared = json.loads((await testbed("runs", "compare", 1, 2, "--json")).out)
    differing = {each["name"] for each in compared["inputs"] if each["differs"]}
    assert differing == {"seed"}
    hashes = next(each for each in compared["figures"] if each["name"] == "hash of all samples")
    assert hashes["differs"]
    page = await testbed("runs", "compare", 1, 2)
    assert page.code == 0
    assert "*" in page.out.partition("seed")[0]
    await trace(folder, testbed)


async def trace(folder, testbed):
    """Follow a figure of the first run to what it was computed from."""
    run = json.loads((await testbed("runs", "show", 1, "--json")).out)
    document = RunDocument.model_validate(run["record"])
    assert checks.sha256(document) == run["sha256"]
    evidence = json.loads((await testbed("runs", "evidence", 1, "--json")).out)["items"]
    count = next(each for each in evidence if each["id"] == "expectation/1/count")
    (used,) = count["samples"]
    assert (used["stream"], used["samples"], used["source"]) == ("echo/out", 20, "simulated")
    (code,) = count["code"]
    program = await asyncio.create_subprocess_exec(
        "sha256sum", "echo.py", cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    assert code["sha256"] == (await program.communicate())[0].split()[0].decode()
    written = await testbed("runs", "report", 1, "--output", "again.html")
    assert written.code == 0, written.errors
    again = (folder / "again.html").read_text()
    assert all(f'data-figure="{each["id"]}"' in again for each in evidence)
    refused = await testbed("runs", "delete", 1)
    assert refused.code == 2
    assert (await testbed("runs", "delete", 1, "--yes")).code == 0
    assert (await testbed("runs", "show", 1)).code == 2


@pytest.mark.timeout(120)
async def test_a_run_that_cannot_be_handed_over_stays_as_a_file(folder, testbed):
    away = f"http://127.0.0.1:{free_port()}"
    run = await testbed("run", scenario(folder, ECHO), "--fast", "--seed", 5, "--server", away)
    assert run.code == 3
    assert "All 1" in run.out or "The expectation passed" in run.out
    (record,) = folder.glob("testbed-run-short-5-*.json")
    assert f"testbed runs add {record.name} --server {away}" in run.errors
    added = await testbed("runs", "add", record)
    assert added.code == 0, added.errors
    record.write_text(record.read_text().replace('"seed":5', '"seed":6'))
    changed = await testbed("runs", "add", record)
    assert changed.code == 2
    assert "the SHA-256 of what came is" in changed.errors


@pytest.mark.parametrize("address", ["testbed.example", "ftp://x", "http://a:b@x"])
async def test_a_server_that_is_none_is_refused_before_anything_runs(folder, testbed, address):
    run = await testbed("run", scenario(folder, ECHO), "--fast", "--server", address)
    assert run.code == 2
    assert "address of" in run.errors
    assert not list(folder.glob("testbed-run-*"))
