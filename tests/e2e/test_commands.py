"""Commands as people type them: wrong input is a sentence, and the exit code says whose fault."""

from pathlib import Path

import pytest

from tests import recorded
from tests.e2e.test_demo import recording, run

BROWSE = ["gateway", "browse", "opc.tcp://127.0.0.1:9"]
EXAMPLE = Path(__file__).parents[2] / "examples/pump-rig/mapping.yaml"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("2020-", "twenty-"), "is no time"),
        (lambda text: text[: text.index("\n") + 1], "has a header and no rows"),
        (lambda _: "", "is empty"),
    ],
)
def test_a_broken_recording_is_refused_in_a_sentence(tmp_path, change, sentence):
    data = recording(tmp_path / "rig.csv", 12)
    data.write_text(change(data.read_text()))
    done = run("simulate", "csv", data, "--port", "0")
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["gateway", "run", "nowhere.yaml"], 2, "there is no mapping nowhere.yaml"),
        (["simulate", "pump-rig", "--fault", "leak@1..2"], 2, "'leak@1..2' is no fault"),
        (["simulate", "press", "--set", "heatr=3"], 2, "did you mean 'heater'?"),
        (["simulate", "list", "pres"], 2, "did you mean 'press'?"),
        (["simulate", "fmu", "nowhere.fmu"], 2, "there is no FMU nowhere.fmu"),
        (["simulate", "press", "--mqtt", "127.0.0.1:9"], 3, "the broker at 127.0.0.1:9"),
        (["credential", "create", "detector"], 2, "no credential is set"),
        ([*BROWSE, "--security", "none"], 3, "opc.tcp://127.0.0.1:9 did not answer"),
        (BROWSE, 2, "--security sign-and-encrypt; or --security none"),
        ([*BROWSE, "--security", "sign"], 2, "is 'sign', which is not known"),
        ([*BROWSE, "--security", "none", "--user", "rig"], 2, "a user needs --security"),
        (["gateway", "trust", "opc.tcp://127.0.0.1:9"], 3, "opc.tcp://127.0.0.1:9 did not answer"),
        (["gateway", "trust", EXAMPLE], 2, "is read with security none"),
        (["up", "--store", "postgres://x"], 2, "'postgres://x' is no store"),
        (["up", "--registry", "mysql://x"], 2, "'mysql://x' is no registry"),
        (["up", "--host", "10.0.0.5"], 2, "open on 10.0.0.5 without TLS"),
        (["up", "--tls", "--insecure"], 2, "--tls and --insecure contradict each other"),
        (["pki", "init", "unmade", "--host", "a b"], 2, "'a b' is no host"),
        (["demo", "--recording", "nowhere.csv"], 2, "there is no recording nowhere.csv"),
        (["tap", "rig"], 2, "is not the address of a stream"),
        (["tap", "factory/rig/rig", "--space", "moon"], 2, "space 'moon' is not a space"),
        (["history", "factory/rig/rig", "--space", "moon"], 2, "space 'moon' is not a space"),
        (["history", "factory/rig/rig", "--from", "10m"], 2, "write -10m, -2h or -1d"),
        (["status", "--space", "moon"], 2, "space 'moon' is not a space"),
        (["alarms", "--space", "moon"], 2, "space 'moon' is not a space"),
        (["stream", "list", "--space", "moon"], 2, "space 'moon' is not a space"),
        (["restore", "nowhere", "--data", "unmade"], 2, "there is no backup in nowhere"),
        (["backup", "unmade", "--data", "nowhere"], 2, "there is no data in nowhere"),
        (["delete", "factory/rig/rig"], 2, "nothing was deleted of factory/rig/rig"),
        (["delete", "factory/rig/rig", "--from", "monday", "--yes"], 2, "is not an instant"),
        (["delete", "factory/rig/rig", "--from", "yesterday"], 2, "rig/rig in live: 20"),
        (["retention", "set", "rig", "--keep-for", "3d"], 2, "is not the address of a stream"),
        (["retention", "set", "factory/rig/p", "--keep-for", "3"], 2, "is no duration"),
        (["grant", "approve"], 2, "no grant is named"),
        (["listing", "set", "factory/rig"], 2, "to whom is not said"),
        (["listing", "show", "rig"], 2, "is not the address of an equipment"),
        (["access", "rig"], 2, "is not the address of an equipment"),
        (["grant", "ask", "rig", "--purpose", "x"], 2, "is not the address of a stream"),
        (["grant", "approve", "1", "--until", "soon"], 2, "'soon' is not an instant"),
        (["recording", "create", "x", "--stream", "rig"], 2, "is not the address of a stream"),
        (["recording", "import", "nowhere.zip", "x"], 2, "there is no file nowhere.zip"),
        (["recording", "replay", "nowhere"], 2, "there is no recording nowhere"),
    ],
)
def test_wrong_input_is_said_in_a_sentence(tmp_path, arguments, code, sentence):
    environment = {"TMPDIR": str(tmp_path)}
    done = run(*arguments, environment=environment, timeout_s=60)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert sentence in done.stderr


def test_a_changed_recording_is_a_negative_verdict_that_names_the_file(tmp_path):
    recording = recorded.labelled(tmp_path / "labelled")
    done = run("recording", "verify", recording.path)
    assert (done.returncode, recording.sha256 in done.stdout) == (0, True)
    (recording.path / "gaps.parquet").write_bytes(b"")
    done = run("recording", "verify", recording.path)
    assert (done.returncode, done.stderr) == (1, "")
    assert "labelled: gaps.parquet: its SHA-256 is" in done.stdout


def test_a_server_that_is_away_is_the_services_fault():
    environment = {
        "TESTBED_API": "http://127.0.0.1:9",
        "TESTBED_CREDENTIAL": "administrator.AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    }
    done = run("credential", "list", environment=environment)
    assert done.returncode == 3
    assert "did not answer" in done.stderr


def test_a_registry_that_is_away_is_named(tmp_path):
    registry = "postgresql://testbed@127.0.0.1:9/testbed"
    ports = ["--port", "0", "--mqtt-port", "0"]
    done = run("up", "--data", tmp_path, "--registry", registry, *ports)
    assert done.returncode == 3
    assert "testbed@127.0.0.1:9/testbed did not answer" in done.stderr
    assert "is PostgreSQL running there" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_password_of_the_registry_is_your_input(tmp_path, postgresql):
    file = tmp_path / "password"
    file.write_text("wrong\n")
    registry = f"postgresql://testbed@{postgresql.host}:{postgresql.port}/postgres"
    environment = {"TESTBED_REGISTRY_PASSWORD_FILE": str(file), "TESTBED_REGISTRY": registry}
    ports = ["--port", "0", "--mqtt-port", "0"]
    done = run("up", "--data", tmp_path / "data", *ports, environment=environment)
    assert done.returncode == 2
    assert "does not let us in" in done.stderr
    assert "set TESTBED_REGISTRY_PASSWORD" in done.stderr
    assert "Traceback" not in done.stderr
