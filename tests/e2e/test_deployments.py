"""Prototypes as they are deployed: the examples, unchanged, through all stages at a real site."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.settings import child_environment
from tests.e2e import town as towns
from tests.e2e.test_demo import run
from tests.e2e.test_example_prototypes import project
from tests.e2e.town import Town

WITHIN_S = 60.0
LIVE = {
    "rig": ("factory/pump-rig/rig", {"simulator": "pump-rig", "period_s": 0.2}),
    "press": ("factory/press/strokes", {"simulator": "press", "period_s": 0.2}),
}
"""Inputs of the examples: their streams, and the machines that stand in for the real ones."""
INPUT = {"anomaly-detector": "rig", "hydraulic-power": "rig", "quality-model": "press"}
OUTPUT = {"anomaly-detector": "score", "hydraulic-power": "power", "quality-model": "quality"}


@contextmanager
def machine(town: Town, name: str) -> Iterator[None]:
    """A machine of the factory, published by a program in the place of a gateway."""
    stream, order = LIVE[name]
    entries = [{"space": "live", "stream": stream}]
    created = town.create("fay", "/credentials", principal=name, reads=[], writes=entries)
    environment = child_environment(os.environ) | {
        "TESTBED_API": town.api,
        "TESTBED_BROKER": town.broker,
        "TESTBED_CREDENTIAL": created["credential"],
        "TESTBED_OUTPUTS": f"{name}={stream}",
    }
    command = [sys.executable, "-m", "testbed.deployment_source"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
        try:
            process.stdin.write(json.dumps({"kind": "simulated", "inputs": {name: order}}).encode())
            process.stdin.close()
            yield
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A server with a site, and a factory whose two machines the company may read."""
    folder = tmp_path_factory.mktemp("town")
    with (
        towns.founded(folder, "factory", "company", secure=False) as town,
        machine(town, "rig"),
        machine(town, "press"),
    ):
        streams = [stream for stream, _ in LIVE.values()]
        until_stored(town, "fay", "live", *streams)
        entries = [{"space": "live", "stream": stream} for stream in streams]
        town.create("fay", "/grants", company="company", streams=entries)
        yield town


def until_stored(town: Town, who: str, space: str, *streams: str) -> None:
    """Wait until each stream has samples in a space."""
    deadline_s = time.monotonic() + WITHIN_S
    for stream in streams:
        path, query = f"/streams/{stream}/history", {"format": "csv", "space": space}
        while True:
            answer = town.ask(who, "GET", path, params=query)
            if answer.is_success and len(answer.text.splitlines()) > 3:
                break
            assert time.monotonic() < deadline_s, f"{stream}: {answer.text}"
            time.sleep(0.3)  # noqa: TID251 - processes act in real time


def command(town: Town, *words: str | Path, code: int = 0) -> Any:
    """The JSON that a command of cora prints, which ends with an exit code."""
    done = run(*words, "--json", environment=town.environment("cora"))
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout) if done.stdout else None


def deployed(town: Town, *words: str | Path) -> dict[str, Any]:
    """A deployment that runs."""
    deployment = command(town, *words)
    assert deployment["state"] == "running", deployment
    return deployment


def published(town: Town, deployment: dict[str, Any]) -> None:
    """Wait until all outputs of a deployment are stored."""
    until_stored(town, "cora", deployment["space"], *deployment["outputs"].values())


@pytest.mark.parametrize("name", sorted(INPUT))
def test_the_examples_go_through_all_stages_unchanged(name, town, tmp_path):
    folder = project(name, tmp_path)
    closed = command(town, "deploy", folder, "--stage", "live", code=1)
    assert not closed["open"]
    assert [gate["gate"] for gate in closed["gates"] if not gate["open"]] == ["trial"]

    simulated = deployed(town, "deploy", folder, "--stage", "simulated")
    assert simulated["inputs"] == {INPUT[name]: f"company/{name}-simulated/{INPUT[name]}"}
    published(town, simulated)
    stream, space = simulated["inputs"][INPUT[name]], simulated["space"]
    recorded = command(
        town,
        *("recording", "create", name, "--on-server", "--stream", stream, "--space", space),
    )
    tested = command(town, "prototype", "test", folder, "--hand-over")
    assert tested["passed"]

    number = recorded["recording"]
    promoted = deployed(
        town, *("deployment", "promote", str(simulated["id"])), "--recording", number, "--repeat"
    )
    assert (promoted["stage"], promoted["promoted_from"]) == ("recorded", simulated["id"])
    published(town, promoted)

    live = deployed(town, "deployment", "promote", str(promoted["id"]))
    assert (live["stage"], live["space"]) == ("live", "live")
    assert live["inputs"] == {INPUT[name]: LIVE[INPUT[name]][0]}
    assert live["outputs"] == {OUTPUT[name]: f"company/{name}/{OUTPUT[name]}"}
    published(town, live)
    assert {each["digest"] for each in (simulated, promoted, live)} == {live["digest"]}
    deployment = command(town, "deployment", "show", str(live["id"]))
    assert [each["state"] for each in deployment["events"]][-1] == "running"
    assert messages_in(town, live["id"]) > 0
    for each in (simulated, promoted, live):
        assert command(town, "deployment", "stop", str(each["id"]))["state"] == "ended"


def messages_in(town: Town, number: int) -> int:
    """The batches that a deployment has received, once its site has reported any."""
    deadline_s = time.monotonic() + WITHIN_S
    while True:
        answer = town.ask("cora", "GET", f"/deployments/{number}/metrics")
        if answer.is_success and answer.json()["messages_in"]:
            return command(town, "deployment", "metrics", str(number))["messages_in"]
        assert time.monotonic() < deadline_s, answer.text
        time.sleep(0.3)  # noqa: TID251 - processes act in real time


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_why_says_what_failed_and_rollback_brings_back_what_ran(town, tmp_path):
    folder = project("hydraulic-power", tmp_path)
    first = deployed(town, "deploy", folder, "--stage", "simulated")
    change(folder / "prototype.yaml", "when: on-failure, most: 5", "when: never")
    main = "async def main() -> None:\n"
    change(folder / "prototype.py", main, f"{main}    raise SystemExit('no pump here')\n")
    second = command(town, "deploy", folder, "--stage", "simulated", code=1)
    assert (second["state"], second["end"]["cause"]) == ("ended", "failed")
    assert second["replaces"] == first["id"]
    why = command(town, "deployment", "why", str(second["id"]))
    assert why["end"]["exit_code"] == 1
    assert "no pump here" in "".join(line["text"] for line in why["last_lines"])
    assert why["todo"]
    done = run("deployment", "logs", str(second["id"]), environment=town.environment("cora"))
    assert "no pump here" in done.stdout
    back = deployed(town, "deployment", "rollback", str(second["id"]))
    assert (back["digest"], back["stage"]) == (first["digest"], "simulated")
    listed = command(town, "deployments", "--all", "--prototype", "hydraulic-power")["items"]
    assert listed[0]["id"] == back["id"]
    assert command(town, "deployment", "stop", str(back["id"]))["end"]["cause"] == "stopped"


def test_secrets_and_images_are_set_listed_and_deleted(town, tmp_path):
    (tmp_path / "key.txt").write_text("correct horse\n")
    command(town, "secret", "set", "CLOUD_KEY", "--value-file", tmp_path / "key.txt")
    listed = run("secret", "list", "--json", environment=town.environment("cora"))
    assert "horse" not in listed.stdout
    assert [each["name"] for each in json.loads(listed.stdout)["items"]] == ["CLOUD_KEY"]
    command(town, "secret", "delete", "CLOUD_KEY")
    folder = project("anomaly-detector", tmp_path)
    (folder / "extra.txt").write_text("another image")
    command(town, "deploy", folder, "--stage", "simulated", "--no-wait")
    (image, *_) = command(town, "image", "list")["items"]
    (number,) = image["deployments"]
    refused = run("image", "delete", image["digest"], environment=town.environment("cora"))
    assert refused.returncode == 2
    assert command(town, "deployment", "stop", str(number))["state"] == "ended"
    assert command(town, "image", "delete", image["digest"][7:20])["digest"] == image["digest"]
    command(town, "image", "prune", "--unused-for", "1s", "--yes")
