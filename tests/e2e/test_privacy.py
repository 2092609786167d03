"""Files and environments of the testbed's processes, as other users of the machine see them."""

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from broker import api_client
from broker.clock import WallClock
from tests.e2e.test_demo import run
from tests.e2e.test_tls import MAPPING, environment, process

STORE_TOKEN = "the-stores-token"


@pytest.fixture
def careless(tmp_path: Path) -> Iterator[Path]:
    """A folder that every user may enter, with a umask that lets them read new files."""
    former = os.umask(0)
    try:
        yield tmp_path
    finally:
        os.umask(former)


def readable(folder: Path) -> list[str]:
    """Files below a folder that other users may read, except certificates, which are public."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077
        if path.suffix != ".pem" or "key" in path.name
    ]


async def test_whatever_the_folder_nobody_else_reads_what_is_kept(careless: Path) -> None:
    data, gateway = careless / "data", careless / "gateway"
    data.mkdir()
    gateway.mkdir()
    up = ["up", "--tls", "--json", "--data", data, "--port", 0, "--mqtt-port", 0]
    async with process("server", *up, logs=careless) as server:
        ready = await server.wait_for("ready")
        mapping = yaml.safe_load(MAPPING.read_text())
        mapping["opcua"]["url"] = "opc.tcp://127.0.0.1:9"
        (careless / "mapping.yaml").write_text(yaml.safe_dump(mapping))
        async with api_client.connect(
            ready["api"], ready["administrator"], ca=Path(ready["ca"])
        ) as door:
            owner = await door.create_organisation(
                mapping["organisation"], owner="fay", kind="partner"
            )
        settings = {name: ready[name] for name in ("api", "broker", "ca")}
        (stream,) = mapping["streams"]
        created = await asyncio.to_thread(
            run,
            *("credential", "create", "gate", "--json", "--writes"),
            f"{mapping['organisation']}/{mapping['equipment']}/{stream}",
            environment=environment(credential=owner, **settings),
        )
        assert created.returncode == 0, created.stderr
        settings |= {"credential": yaml.safe_load(created.stdout)["credential"], "spool": gateway}
        command = ["gateway", "run", careless / "mapping.yaml"]
        async with process("gateway", *command, logs=careless, **settings):
            async with asyncio.timeout(30):
                while not list(gateway.glob("*.sqlite")):
                    await WallClock().sleep(0.1)
    for folder, file in (
        (data, "registry.sqlite"),
        (data, "samples.duckdb"),
        (gateway, "*.sqlite"),
    ):
        assert list(folder.glob(file))
    assert (readable(data), readable(gateway)) == ([], [])


async def test_only_who_needs_a_secret_is_given_it(tmp_path: Path) -> None:
    settings = {"store_token": STORE_TOKEN, "credential": "somebody.AAAAAAAAAAAAAAAAAAAAAAAAAA"}
    command = ["demo", "--json", "--folder", tmp_path / "demo"]
    async with process("demo", *command, logs=tmp_path, **settings):
        async with asyncio.timeout(60):
            while len(environments := children()) < 5:
                await WallClock().sleep(0.1)
    assert {name for name, text in environments.items() if STORE_TOKEN in text} == {"up"}
    assert {name for name, text in environments.items() if settings["credential"] in text} <= {"up"}


def children() -> dict[str, str]:
    """The environment of each process below the demo, by its command."""
    environments = {}
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            words = child.cmdline()
            names = [name for name in ("up", "simulate", "gateway") if name in words]
            names += [Path(word).stem for word in words if "nats" in word or "detector" in word]
            if names:
                environments[names[0]] = str(child.environ())
    return environments
