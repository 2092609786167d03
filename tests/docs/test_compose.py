"""The compose file keeps its promises: what is published, checked, kept, and secret."""

import re
from pathlib import Path

import pytest
import yaml

from broker.settings import PREFIX, BusSettings
from testbed import secret_files
from testbed_api.settings import ServerSettings
from testbed_api.shared import SharedSecrets

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
LASTING = {name: one for name, one in SERVICES.items() if name != "init"}
OURS = ("init", "api", "recorder")
SETTINGS = (BusSettings, ServerSettings, SharedSecrets)


def test_only_two_doors_are_published_and_on_loopback_unless_asked():
    ports = {name: one["ports"] for name, one in SERVICES.items() if "ports" in one}
    where = "${PUBLISH_ADDRESS:-127.0.0.1}"
    assert ports == {"nats": [f"{where}:1883:1883"], "api": [f"{where}:8600:8600"]}


def test_all_else_is_on_a_network_without_a_way_out():
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    outside = {name for name, one in LASTING.items() if one["networks"] != ["inside"]}
    assert outside == {"nats", "api"}
    assert SERVICES["init"]["network_mode"] == "none"


@pytest.mark.parametrize("name", LASTING)
def test_each_service_is_checked_restarted_and_bounded(name):
    one = LASTING[name]
    assert one["restart"] == "unless-stopped"
    assert {"test", "interval", "timeout", "start_period", "retries"} <= set(one["healthcheck"])
    assert one["mem_limit"]
    assert "no-new-privileges:true" in one["security_opt"]
    assert one["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", OURS)
def test_ours_may_write_nothing_and_have_no_privilege(name):
    one = SERVICES[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]


def test_every_variable_of_ours_is_a_setting():
    known = {f"{PREFIX}{name.upper()}" for kind in SETTINGS for name in kind.model_fields}
    known |= {f"{name}_FILE" for name in known if is_secret(name)}
    used = {name for one in OURS for name in SERVICES[one].get("environment", {})}
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
    for name, one in SERVICES.items():
        for variable, value in one.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|CREDENTIAL|KEY|SECRET", variable):
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert value.startswith("/run/secrets/")
                assert value.removeprefix("/run/secrets/") in one["secrets"]


def test_every_secret_is_made_by_init_and_given_to_whom_needs_it():
    made = {*secret_files.MAKERS, secret_files.BROKER_CONFIG}
    assert set(COMPOSE["secrets"]) == made
    for name, told in COMPOSE["secrets"].items():
        assert told == {"file": f"./secrets/{name}"}
    given = [name for one in SERVICES.values() for name in one.get("secrets", [])]
    assert set(given) == made
    assert "broker-signing-key" not in SERVICES["recorder"]["secrets"]


def test_every_volume_is_declared_and_used():
    used = {volume.split(":")[0] for one in LASTING.values() for volume in one.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_the_image_is_made_of_what_is_there():
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (DEPLOY.parent / source).exists(), source
