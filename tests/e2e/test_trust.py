"""The guide to a server with security, typed by a newcomer on one machine."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.e2e.test_demo import TESTBED


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The `ready` event of a simulator with security."""
    with simulated(tmp_path, "--secure") as ready:
        yield ready


@contextmanager
def simulated(folder: Path, *options: str) -> Iterator[dict[str, str]]:
    """The `ready` event of a simulator that runs until the block ends."""
    command = [*TESTBED, "simulate", "pump-rig", "--port", "0", *options, "--json"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(30)


def typed(folder: Path, *arguments, answer: str = "", code: int = 0) -> str:
    """The output of a command, standard output and standard error."""
    return "".join(outputs(folder, *arguments, answer=answer, code=code))


def typed_json(folder: Path, *arguments) -> str:
    """The standard output of a command with --json."""
    return outputs(folder, *arguments, "--json")[0]


def outputs(folder: Path, *arguments, answer: str = "", code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of a command."""
    done = subprocess.run(
        [*TESTBED, "gateway", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"TESTBED_SOURCE_PKI": str(folder / "pki")},
        input=answer,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = done.stdout + done.stderr
    assert (done.returncode, "Traceback" in output) == (code, False), output
    return done.stdout, done.stderr


def test_a_server_is_read_once_its_certificate_is_trusted(tmp_path: Path, machine) -> None:
    url, sha256 = machine["url"], machine["sha256"]
    browse = ["browse", url, "--security", "sign-and-encrypt"]
    refused = typed(tmp_path, *browse, code=2)
    assert f"is not trusted: SHA-256 {sha256}" in refused
    assert f"`testbed gateway trust {url}`" in refused
    unsecured = typed(tmp_path, "browse", url, "--security", "none", code=2)
    assert "wants security: it offers sign-and-encrypt" in unsecured
    assert "hint: --security sign-and-encrypt" in unsecured
    assert f"`testbed gateway trust {url}`" in unsecured

    assert "nobody answered" in typed(tmp_path, "trust", url, code=2)
    assert "nothing was pinned" in typed(tmp_path, "trust", url, answer="n\n", code=2)
    wrong = typed(tmp_path, "trust", url, "--sha256", "00" * 32, code=2)
    assert f"shows SHA-256 {sha256}" in wrong
    assert "is not trusted" in typed(tmp_path, *browse, code=2)

    output = typed(tmp_path, "trust", url, answer="y\n")
    for line in ("urn:connected-testbed:simulator", "localhost, 127.0.0.1", sha256, "pinned in"):
        assert line in output
    assert str(tmp_path / "pki/own/certificate.der") in output

    again = json.loads(typed_json(tmp_path, "trust", url, "--sha256", sha256))
    assert again["sha256"] == sha256
    assert Path(again["pinned_in"]).parent == tmp_path / "pki/pinned"
    nodes = json.loads(typed_json(tmp_path, *browse))["nodes"]
    assert {"Pressure"} <= {node["name"] for node in nodes if node["type"] == "Double"}

    assert "Pressure" in typed(tmp_path, *browse, "--write", "m.yaml", "--kind", "simulated")
    assert "kind: simulated  #" in (tmp_path / "m.yaml").read_text()
    assert yaml.safe_load((tmp_path / "m.yaml").read_text())["opcua"] == {
        "url": url,
        "security": "sign-and-encrypt",
        "policy": "Basic256Sha256",
    }
    assert "nothing is wrong" in typed(tmp_path, "check", "m.yaml")
    (note,) = json.loads(typed_json(tmp_path, "check", "m.yaml"))["findings"]
    assert note["severity"] == "note"
    assert "nobody is signed in here" in note["sentence"]

    next((tmp_path / "pki/pinned").iterdir()).unlink()
    assert "is not trusted" in typed(tmp_path, "check", "m.yaml", code=2)
    typed(tmp_path, "trust", "m.yaml", "--sha256", sha256.replace(":", "").lower())
    assert "nothing is wrong" in typed(tmp_path, "check", "m.yaml")


def test_a_server_without_security_has_nothing_to_trust(tmp_path: Path) -> None:
    with simulated(tmp_path) as ready:
        url = ready["url"]
        refused = typed(tmp_path, "trust", url, code=2)
        assert f"{url} offers no security, so there is nothing to trust" in refused
        assert "--security none" in refused
        no_mapping = typed(tmp_path, "browse", url, "--security", "sign-and-encrypt", code=2)
        assert "it offers none" in no_mapping
        assert "--security none" in no_mapping


def test_a_taken_port_of_a_simulator_names_the_option(tmp_path: Path) -> None:
    with simulated(tmp_path) as ready:
        port = ready["url"].rpartition(":")[2]
        command = [*TESTBED, "simulate", "pump-rig", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode != 0
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
        assert "hint: --port" in done.stderr
