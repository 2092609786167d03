"""The compose file keeps its promises: what is published, checked, kept, and secret."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from broker.settings import PREFIX, BusSettings
from testbed.server import secret_files
from testbed_api.security.system_secrets import SharedSecrets
from testbed_api.settings import ServerSettings
from tests.services import influxd

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
LASTING = {name: each for name, each in SERVICES.items() if name != "init"}
CERTIFICATES = {
    "ca.pem": "${TLS_CA:-./certificates/ca.pem}",
    "api.pem": "${TLS_CERT:-./certificates/api.pem}",
    "api-key.pem": "${TLS_KEY:-./certificates/api-key.pem}",
    "broker.pem": "${TLS_CERT:-./certificates/broker.pem}",
    "broker-key.pem": "${TLS_KEY:-./certificates/broker-key.pem}",
}
OURS = ("init", "api", "recorder")
SETTINGS = (BusSettings, ServerSettings, SharedSecrets)


def test_only_two_doors_are_published_and_on_loopback_unless_asked():
    ports = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    where = "${PUBLISH_ADDRESS:-127.0.0.1}"
    assert ports == {"nats": [f"{where}:8883:8883"], "api": [f"{where}:8600:8600"]}


def test_all_else_is_on_a_network_without_a_way_out():
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    outside = {name for name, each in LASTING.items() if each["networks"] != ["inside"]}
    assert outside == {"nats", "api"}
    assert SERVICES["init"]["network_mode"] == "none"


@pytest.mark.parametrize("name", LASTING)
def test_each_service_is_checked_restarted_and_bounded(name):
    service = LASTING[name]
    assert service["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "start_period", "retries"} <= set(service["healthcheck"])
    assert service["mem_limit"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["logging"]["options"]["max-size"]


def test_the_limits_of_memory_add_up_to_what_the_page_says():
    factors = {"m": 1, "g": 1024}
    limits = [
        re.sub(r"\$\{\w+:-(\w+)\}", r"\1", service["mem_limit"]) for service in LASTING.values()
    ]
    total = sum(int(limit[:-1]) * factors[limit[-1]] for limit in limits)
    page = (DEPLOY.parent / "docs/how-to/run-on-one-server.md").read_text()
    assert f"{total / 1024:g} GiB of memory for the five" in page


def test_influxd_is_deployed_as_it_is_measured():
    environment = SERVICES["influxdb"]["environment"]
    assert environment["GOGC"] == influxd.GARBAGE_PERCENT
    assert environment["INFLUXD_PPROF_DISABLED"] == "true"


@pytest.mark.parametrize("name", OURS)
def test_ours_may_write_nothing_and_have_no_privilege(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_every_variable_of_ours_is_a_setting():
    known = {f"{PREFIX}{name.upper()}" for kind in SETTINGS for name in kind.model_fields}
    known |= {f"{name}_FILE" for name in known if is_secret(name)}
    used = {name for each in OURS for name in SERVICES[each].get("environment", {})}
    assert used
    assert used <= known


def is_secret(variable: str) -> bool:
    name = variable.removeprefix(PREFIX).lower()
    return any(
        "Secret" in str(kind.model_fields[name].annotation)
        for kind in SETTINGS
        if name in kind.model_fields
    )


def test_no_secret_stands_in_an_environment():
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|CREDENTIAL|KEY|SECRET", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert value.startswith("/run/secrets/")
                assert value.removeprefix("/run/secrets/") in service["secrets"]


def test_every_secret_is_made_by_init_and_given_to_whom_needs_it():
    of_mosquitto = {"reconciler-credential"}
    generated = {*secret_files.GENERATORS, secret_files.BROKER_CONFIG} - of_mosquitto
    files = {name: secret["file"] for name, secret in COMPOSE["secrets"].items()}
    assert files == {name: f"./secrets/{name}" for name in generated} | CERTIFICATES
    generated |= set(CERTIFICATES)
    given = [name for each in SERVICES.values() for name in each.get("secrets", [])]
    assert set(given) == generated
    assert "broker-signing-key" not in SERVICES["recorder"]["secrets"]


def test_each_door_has_a_key_that_no_other_service_sees_and_the_authoritys_stays_outside():
    for key, owner in (("api-key.pem", "api"), ("broker-key.pem", "nats")):
        assert [name for name, each in SERVICES.items() if key in each.get("secrets", ())] == [
            owner
        ]
    assert "ca-key" not in str(COMPOSE["secrets"])


def test_every_door_of_ours_has_tls():
    api = SERVICES["api"]["environment"]
    for service in ("api", "recorder"):
        environment = SERVICES[service]["environment"]
        assert environment["TESTBED_BROKER"] == "mqtts://nats:8883"
        assert environment["TESTBED_CA"] == "/run/secrets/ca.pem"
        assert "TESTBED_TLS" not in environment
    assert api["TESTBED_BROKER_SERVER"] == "tls://nats:4222"
    assert "ssl" in "".join(SERVICES["api"]["healthcheck"]["test"])


@pytest.mark.timeout(60)  # four commands, each a process of its own
def test_init_makes_what_the_services_are_given(tmp_path, monkeypatch):
    """The very lines that the container runs, in folders of their own."""
    shell, how, lines = SERVICES["init"]["entrypoint"]
    lines = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", lines)
    for folder in ("/secrets", "/certificates"):
        lines = lines.replace(f" {folder}", f" {tmp_path}{folder}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    done = subprocess.run([shell, how, lines], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for file in CERTIFICATES:
        assert (tmp_path / "certificates" / file).exists()
    modes = {
        each.name: each.stat().st_mode & 0o777 for each in (tmp_path / "certificates").iterdir()
    }
    assert (modes["api-key.pem"], modes["ca-key.pem"]) == (0o444, 0o600)
    config = json.loads((tmp_path / "secrets" / "nats.conf").read_text())
    assert config["mqtt"]["listen"] == "0.0.0.0:8883"
    for door in (config, config["mqtt"]):
        names = {Path(door["tls"][each]).name for each in ("cert_file", "key_file")}
        assert names <= set(SERVICES["nats"]["secrets"])


def test_every_volume_is_declared_and_used():
    used = {volume.split(":")[0] for each in LASTING.values() for volume in each.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_the_image_is_made_of_what_is_there():
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (DEPLOY.parent / source).exists(), source
