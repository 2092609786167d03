"""The modules that a gateway loads: OPC UA code only if its mapping names an OPC UA server."""

import json
import subprocess
import sys
from pathlib import Path

from tests import sources

MAPPING = """
organisation: factory
equipment: press
kind: real
mqtt: {url: "mqtt://127.0.0.1:1883"}
streams:
  s:
    signals:
      warm: {topic: press/warm}
"""
BUILD_GATEWAY = """
import json, sys
from pathlib import Path

from broker.clock import WallClock
from broker.settings import BusSettings
from gateway import service
from gateway.state import identity
from gateway.mapping import file as mapping_file
from gateway.pipeline.pipeline import Pipeline
from gateway.settings import GatewaySettings
from testbed.commands import gateway

mapping = mapping_file.load(Path(sys.argv[1]))
specs = [stream.spec for stream in mapping.streams]
clock = WallClock()
pipeline = Pipeline(mapping, specs, clock=clock, space="live", most_waiting=1_000)
service.build_link(mapping, pipeline, clock, Path("pki"), waiting_messages=1_000)
print(json.dumps(sorted(sys.modules)))
"""
LOAD_MAPPING = """
import json, pkgutil, sys, importlib

import gateway.mapping

for module in pkgutil.iter_modules(gateway.mapping.__path__, "gateway.mapping."):
    importlib.import_module(module.name)
print(json.dumps(sorted(sys.modules)))
"""


def modules_after(script: str, *arguments: str) -> set[str]:
    """The modules that a new process has loaded at the end of a script."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, cwd=sources.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_a_gateway_with_mqtt_alone_loads_no_opc_ua_code(tmp_path: Path):
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(MAPPING)
    modules = modules_after(BUILD_GATEWAY, str(mapping))
    assert "gateway.links.mqtt.link" in modules
    assert not {"asyncua", "gateway.links.opcua"} & modules


def test_a_gateway_with_opc_ua_loads_no_mqtt_link(tmp_path: Path):
    mapping = tmp_path / "mapping.yaml"
    source = 'opcua: {url: "opc.tcp://127.0.0.1:4840", security: sign-and-encrypt}'
    text = MAPPING.replace('mqtt: {url: "mqtt://127.0.0.1:1883"}', source)
    mapping.write_text(text.replace("topic: press/warm", "node: i=1"))
    modules = modules_after(BUILD_GATEWAY, str(mapping))
    assert "gateway.links.opcua.link" in modules
    assert "gateway.links.mqtt" not in modules


def test_a_mapping_loads_neither_asyncua_nor_a_link():
    modules = modules_after(LOAD_MAPPING)
    assert "gateway.mapping.file" in modules
    assert not {"asyncua", "gateway.links"} & modules
