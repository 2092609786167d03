"""The chain as processes, TLS on every listener between them."""

import asyncio
import contextlib
import json
import os
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from broker import api_client
from broker.backends.nats.child_process import _binary
from broker.clock import WallClock
from broker.namespace import StreamAddress
from broker.settings import BusSettings
from broker.streams import Signal
from testbed.processes.child_process import start_child
from testbed.server import pki
from testbed_api.security import certificates as testbed_api_certificates
from testbed_sdk import PrototypeSettings, connect
from tests import services
from tests.e2e.test_demo import run
from tests.services import influxd, postgresql

CLOCK = WallClock()
SCORE = StreamAddress("company", "detector", "score")
MAPPING = Path(__file__).parents[2] / "examples" / "pump-rig" / "mapping.yaml"
SECRETS = ("api-credential", "recorder-credential", "administrator-credential")
KEYS = ("broker-callout-password", "broker-system-password", "broker-signing-key")


def environment(**settings):
    """Ours, without what this shell may be set to."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("TESTBED_")
    }
    return inherited | {f"TESTBED_{name.upper()}": str(value) for name, value in settings.items()}


def process(name, *command, logs, **settings):
    return start_child(
        name,
        ["-m", "testbed", *map(str, command)],
        log=logs / f"{name}.log",
        environment=environment(**settings),
    )


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_gateway_and_the_command_line_come_in_with_the_authoritys_file_alone(
    tmp_path, trusted
):
    pki.init(tmp_path / "stranger", (), CLOCK.now_ns())
    up = ["up", "--tls", "--json", "--data", tmp_path / "data", "--port", 0, "--mqtt-port", 0]
    rig = ["simulate", "pump-rig", "--port", 0, "--json"]
    async with (
        process("server", *up, logs=tmp_path) as server,
        process("machine", *rig, logs=tmp_path) as machine,
    ):
        ready = await server.wait_for("ready")
        mapping = yaml.safe_load(MAPPING.read_text())
        mapping["opcua"]["url"] = (await machine.wait_for("ready"))["url"]
        (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(mapping))
        (stream,) = mapping["streams"]
        address = f"{mapping['organisation']}/{mapping['equipment']}/{stream}"
        async with api_client.connect(
            ready["api"], ready["administrator"], ca=Path(ready["ca"])
        ) as door:
            owner = await door.create_organisation(
                mapping["organisation"], owner="fay", kind="partner"
            )
        settings = {
            "api": ready["api"],
            "broker": ready["broker"],
            "ca": ready["ca"],
            "credential": owner,
            "spool": tmp_path / "spool",
        }
        created = await asyncio.to_thread(
            run,
            *("credential", "create", "gate", "--writes", address, "--json"),
            environment=environment(**settings),
        )
        assert created.returncode == 0, created.stderr
        settings["credential"] = json.loads(created.stdout)["credential"]
        if not trusted:
            settings["ca"] = tmp_path / "stranger" / "ca.pem"
            done = await asyncio.to_thread(
                run,
                "gateway",
                "run",
                tmp_path / "mapping.yaml",
                environment=environment(**settings),
                timeout_s=30,
            )
            assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
            assert "of no authority that we trust" in done.stderr
            assert "hint: set TESTBED_CA" in done.stderr
            return
        asking = environment(**settings | {"credential": owner})
        gateway = ["gateway", "run", tmp_path / "mapping.yaml"]
        async with process("gateway", *gateway, logs=tmp_path, **settings), asyncio.timeout(60):
            rows = []
            while len(rows) < 2:  # a header, and at least one time stamp
                await CLOCK.sleep(0.5)
                done = await asyncio.to_thread(run, "history", address, environment=asking)
                assert "Traceback" not in done.stderr
                rows = done.stdout.splitlines()


@pytest.mark.influxd
async def test_processes_of_their_own_have_tls_between_them_and_their_products(tmp_path):
    certificates = tmp_path / "pki"
    pki.init(certificates, (), CLOCK.now_ns())
    ca, certificate = (
        certificates / "ca.pem",
        testbed_api_certificates.certificate_in(certificates, testbed_api_certificates.BROKER),
    )
    with contextlib.ExitStack() as stack:
        data = stack.enter_context(postgresql.data_folder())
        database = stack.enter_context(postgresql.serve(data, certificate=certificate))
        (tmp_path / "influxd").mkdir()
        store = stack.enter_context(
            influxd.serve(tmp_path / "influxd", certificate=certificate, ca=ca)
        )
        broker = stack.enter_context(nats(tmp_path, certificate))
        secrets = {
            f"{name.replace('-', '_')}_file": tmp_path / "secrets" / name for name in SECRETS + KEYS
        }
        shared = {
            "registry": database.new_database("testbed"),
            "registry_password": postgresql.PASSWORD,
            "registry_ca": ca,
            "store": store.url.replace("https", "influxdb+https")
            + f"/{store.organisation}/{store.bucket}",
            "store_token": store.token,
            "store_ca": ca,
            "folder": tmp_path / "data",
            "ca": ca,
            "broker": broker["mqtt"],
        }
        own = {
            "broker_server": broker["inner"],
            "tls_cert_file": certificates / "api.pem",
            "tls_key_file": certificates / "api-key.pem",
        }
        recorders = {"credential_file": tmp_path / "secrets" / "recorder-credential"}
        async with (
            process(
                "api", "api", "--json", "--port", 0, logs=tmp_path, **shared, **secrets, **own
            ) as server,
            process("recorder", "recorder", logs=tmp_path, **shared, **recorders),
        ):
            ready = await server.wait_for("ready")
            assert ready["broker"] == broker["mqtt"]
            administrator = (tmp_path / "secrets" / "administrator-credential").read_text().strip()
            await published_and_stored(ready, administrator, ca)


async def published_and_stored(ready, administrator, ca):
    async with api_client.connect(ready["api"], administrator, ca=ca) as door:
        owner = await door.create_organisation(SCORE.organisation, owner="eve", kind="company")
    async with api_client.connect(ready["api"], owner, ca=ca) as door:
        entry = {"space": "run-tls", "stream": str(SCORE)}
        body = {"principal": "detector", "writes": [entry], "reads": [entry]}
        key = (await door.request("POST", "/credentials", json=body))["credential"]
    sdk_settings = PrototypeSettings(
        api=ready["api"], space="run-tls", inputs={}, outputs={"score": SCORE}
    )
    bus = BusSettings(broker=ready["broker"], ca=ca, credential=SecretStr(key))
    async with connect(sdk_settings, bus) as sdk:
        score = await sdk.output("score", [Signal("score")])
        await score.publish(CLOCK.now_ns(), {"score": 1.5})
        async with asyncio.timeout(30):
            await score.wait_drained()
        assert (await sdk.history("score"))["score"].values.tolist() == [1.5]


@contextlib.contextmanager
def nats(folder, certificate):
    """A server as `testbed broker-config` tells it, with TLS on its internal listener too."""
    inner, mqtt, health = (services.free_port() for _ in range(3))
    created = run("secrets", "init", folder / "secrets")
    assert created.returncode == 0, created.stderr
    given = {
        "--host": "0.0.0.0",  # noqa: S104 - so that its internal listener has TLS
        "--port": inner,
        "--mqtt-port": mqtt,
        "--health-port": health,
        "--data": folder / "jetstream",
        "--tls-cert": certificate.chain,
        "--tls-key": certificate.key,
    }
    created = run(
        "broker-config", folder / "secrets", *(part for option in given.items() for part in option)
    )
    assert created.returncode == 0, created.stderr
    command = [_binary(), "--config", str(folder / "secrets" / "nats.conf")]
    ready = [inner, mqtt]
    with services.running(command, folder=folder, ready=lambda: all(map(services.accepts, ready))):
        yield {"inner": f"tls://127.0.0.1:{inner}", "mqtt": f"mqtts://127.0.0.1:{mqtt}"}
