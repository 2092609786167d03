"""Several gateways of one command: each for itself, and one that fails stops no other."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import yaml

from broker import api_client
from broker.clock import WallClock
from tests.e2e.test_demo import run
from tests.e2e.test_tls import MAPPING, environment, process
from tests.services import free_port

CLOCK = WallClock()


async def test_one_gateway_that_cannot_go_on_stops_no_other(tmp_path: Path) -> None:
    up = ["up", "--json", "--data", tmp_path / "data", "--port", 0, "--mqtt-port", 0]
    rig = ["simulate", "pump-rig", "--port", 0, "--json"]
    async with (
        process("server", *up, logs=tmp_path) as server,
        process("machine", *rig, logs=tmp_path) as machine,
    ):
        ready = await server.wait_for("ready")
        url = (await machine.wait_for("ready"))["url"]
        credential = await enrolled(tmp_path, ready, url)
        settings = {"api": ready["api"], "broker": ready["broker"], "credential": credential}
        files = [tmp_path / "rig.yaml", tmp_path / "press.yaml"]
        async with (
            process("gateways", "gateway", "run", *files, logs=tmp_path, **settings),
            asyncio.timeout(60),
        ):
            lines = await log_with(
                tmp_path / "gateways.log", "server was connected", "gateway waits for a person"
            )
    refused = next(line for line in lines if line["event"] == "gateway could not go on")
    assert refused["equipment"] == "factory/press"
    assert "refuses factory/press to gate" in refused["reason"]
    connected = next(line for line in lines if line["event"] == "server was connected")
    assert connected["equipment"] == "factory/pump-rig"
    started = next(line for line in lines if line["event"] == "gateway is starting")
    assert f"spool in {tmp_path}/testbed-data/gateway" in started["state"]
    assert list((tmp_path / "testbed-data" / "gateway").glob("factory.pump-rig.live.sqlite"))


async def enrolled(folder: Path, ready, url: str) -> str:
    """A credential for the rig alone; mappings of the rig and of a press are in the folder."""
    mapping = yaml.safe_load(MAPPING.read_text())
    mapping["opcua"]["url"] = url
    (folder / "rig.yaml").write_text(yaml.safe_dump(mapping))
    (folder / "press.yaml").write_text(yaml.safe_dump(mapping | {"equipment": "press"}))
    async with api_client.connect(ready["api"], ready["administrator"]) as door:
        owner = await door.create_organisation("factory", owner="fay", kind="partner")
    created = await asyncio.to_thread(
        run,
        *("credential", "create", "gate", "--json", "--writes", "factory/pump-rig/rig"),
        environment=environment(api=ready["api"], credential=owner),
    )
    assert created.returncode == 0, created.stderr
    return str(json.loads(created.stdout)["credential"])


async def log_with(file: Path, *events: str) -> list[dict[str, str]]:
    """The lines of a log once each of these events is in it."""
    while True:
        lines = [
            json.loads(line)
            for line in (await asyncio.to_thread(file.read_text)).splitlines()
            if line[-1:] == "}"
        ]
        if {line["event"] for line in lines} >= set(events):
            return lines
        await CLOCK.sleep(0.2)


def test_all_that_cannot_go_on_end_the_command(tmp_path: Path) -> None:
    mapping = yaml.safe_load(MAPPING.read_text())
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(mapping))
    done = run("gateway", "run", tmp_path / "rig.yaml", tmp_path / "no.yaml", timeout_s=60)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "the gateway of factory/pump-rig is not enrolled" in done.stderr
    assert f"there is no mapping {tmp_path}/no.yaml" in done.stderr
    assert "2 of 2 gateways cannot go on before a person helps" in done.stderr
    done = run("gateway", "run", tmp_path / "rig.yaml", tmp_path / "rig.yaml")
    assert (done.returncode, "2 of these mappings are of factory/pump" in done.stderr) == (2, True)


def test_a_damaged_identity_needs_a_person(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text(MAPPING.read_text())
    folder = tmp_path / "testbed-data" / "gateway-identity"
    folder.mkdir(parents=True)
    (folder / "credential").write_text("garbage")
    done = run("gateway", "run", tmp_path / "rig.yaml")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert f"error: {folder}/credential holds no credential" in done.stderr
    assert "enrol the gateway again" in done.stderr


async def test_sigterm_ends_all_of_them_in_order(tmp_path: Path) -> None:
    files = []
    for name in ("rig", "press"):
        mapping = yaml.safe_load(MAPPING.read_text()) | {"equipment": name}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(mapping))
        files.append(str(tmp_path / f"{name}.yaml"))
    away = {"api": f"http://127.0.0.1:{free_port()}", "credential": f"gate.{'A' * 43}"}
    log = tmp_path / "log"
    with log.open("wb") as errors:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "testbed", "gateway", "run", *files),
            stderr=errors,
            env=environment(**away),
        )
    try:
        async with asyncio.timeout(60):
            while log.read_text().count("registration waits for the API") < 2:
                await CLOCK.sleep(0.2)
            child.send_signal(signal.SIGTERM)
            assert await child.wait() == 0
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
