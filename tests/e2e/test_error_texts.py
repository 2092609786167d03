"""The errors that users meet most, word for word, raised by the code that raises them in use.

The commands run in this process against one server with TLS; a text that changes here is a change
that every user sees.
"""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import structlog
from typer.testing import CliRunner

from broker.batch import Batch, Source, Wide
from broker.errors import Unavailable
from gateway.spool import spool
from gateway.spool.spool import SpoolSettings
from testbed import cli
from testbed_api.actions.passwords import SIGN_IN_HINT

MAPPING = Path(__file__).parents[2] / "examples/pump-rig/mapping.yaml"
FREE_PORTS = ("--port", "0", "--mqtt-port", "0")
REFUSED = "Connect call failed ('127.0.0.1', 9)"
"""How the system says that nothing listens on port 9."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The environment of a client of a server with TLS; `folder` is the server's data folder."""
    folder = tmp_path_factory.mktemp("errors")
    command = [sys.executable, "-m", "testbed", "up", "--tls", "--json", "--data", "data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *FREE_PORTS], cwd=folder, stdout=subprocess.PIPE, stderr=log, env=clean()
        )
    try:
        ready = json.loads(process.stdout.readline())
        yield {
            "TESTBED_API": ready["api"],
            "TESTBED_BROKER": ready["broker"],
            "TESTBED_CA": str(folder / ready["ca"]),
            "TESTBED_CREDENTIAL": ready["administrator"],
            "folder": str(folder / "data"),
        }
    finally:
        process.terminate()
        process.communicate()


def clean():
    """The environment without settings of the testbed, with this checkout to import from."""
    environment = {name: value for name, value in os.environ.items() if "TESTBED_" not in name}
    return environment | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture
def text_of(server, tmp_path, monkeypatch):
    """A function that runs a command, and returns its exit code and its text on standard error."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("TESTBED_"):
            monkeypatch.delenv(name)

    def run(*arguments, **changed):
        settings = {name: value for name, value in server.items() if name.isupper()} | changed
        words = [argument.format(**server, **ports(server)) for argument in arguments]
        result = CliRunner().invoke(cli.app, words, env=settings)
        logged = re.compile(r"^\{.*\n", re.MULTILINE)  # log events stand there as well
        return result.exit_code, logged.sub("", result.stderr)

    umask = os.umask(0o077)
    yield run
    os.umask(umask)
    structlog.reset_defaults()


def ports(server):
    return {
        "api_port": server["TESTBED_API"].rpartition(":")[2],
        "mqtt_port": server["TESTBED_BROKER"].rpartition(":")[2],
    }


UP = ("up", "--data", "new", *FREE_PORTS)
NO_CA = {"TESTBED_CA": ""}
ERRORS = {
    "no credential": (
        ("status",),
        {"TESTBED_CREDENTIAL": ""},
        2,
        (
            "error: no credential is set\n"
            "hint: sign in: testbed sign-in PERSON; or set TESTBED_CREDENTIAL. `testbed up` shows"
            " the administrator's credential, and `testbed organisation create` an owner's\n"
        ),
    ),
    "wrong credential": (
        ("status",),
        {"TESTBED_CREDENTIAL": f"fay.{'A' * 43}"},
        2,
        (
            "error: the credential is not right\n"
            "hint: is it complete, not revoked or expired, and are its roles still yours?\n"
        ),
    ),
    "empty file of a credential": (
        ("status",),
        {"TESTBED_CREDENTIAL": "", "TESTBED_CREDENTIAL_FILE": "/dev/null"},
        2,
        (
            "error: TESTBED_CREDENTIAL_FILE: the secret in /dev/null is empty\n"
            "hint: write the credential into it, principal.secret\n"
        ),
    ),
    "unknown profile": (
        ("status", "--as", "nobody"),
        {},
        2,
        (
            "error: there is no profile 'nobody'; there are: none\n"
            "hint: make it: testbed --as nobody sign-in PERSON\n"
        ),
    ),
    "address without a scheme": (
        ("status",),
        {"TESTBED_API": "testbed.example", "TESTBED_CA": ""},
        2,
        (
            "error: TESTBED_API is not the address of an API: 'testbed.example'\n"
            "hint: write http://host:port, or https://host:port with TLS\n"
        ),
    ),
    "port that is none": (
        ("status",),
        {"TESTBED_API": "https://127.0.0.1:99999"},
        2,
        (
            "error: TESTBED_API is not the address of an API: 'https://127.0.0.1:99999'\n"
            "hint: write http://host:port, or https://host:port with TLS\n"
        ),
    ),
    "authority without TLS": (
        ("status",),
        {"TESTBED_API": "http://127.0.0.1:9"},
        2,
        (
            "error: TESTBED_CA is set, and http://127.0.0.1:9 would be reached without TLS\n"
            "hint: write https:// into TESTBED_API, or take TESTBED_CA out\n"
        ),
    ),
    "folder of an export away": (
        ("history", "factory/none/none", "--output", "nowhere/rig.csv"),
        {},
        2,
        (
            "error: nowhere/rig.csv cannot be written: No such file or directory\n"
            "hint: name a file in a folder of yours\n"
        ),
    ),
    "folder of a mapping away": (
        (
            *("gateway", "browse", "opc.tcp://127.0.0.1:9", "--security", "none"),
            *("--write", "nowhere/rig.yaml"),
        ),
        {},
        2,
        (
            "error: nowhere/rig.yaml cannot be written: there is no folder nowhere\n"
            "hint: name a new file in a folder of yours\n"
        ),
    ),
    "host of another machine": (
        ("up", "--data", "new", "--host", "203.0.113.1", "--insecure", *FREE_PORTS),
        NO_CA,
        2,
        (
            "error: cannot listen on 203.0.113.1:0: Cannot assign requested address\n"
            "hint: name an address of this machine with --host\n"
        ),
    ),
    "new gateway of nobody": (
        ("gateway", "run", str(MAPPING), "--enrol"),
        {"TESTBED_CREDENTIAL": "", "TESTBED_GATEWAY_IDENTITY": "identity"},
        2,
        (
            "error: no credential is set\n"
            "hint: sign in: testbed sign-in PERSON; or set TESTBED_CREDENTIAL. `testbed up` shows"
            " the administrator's credential, and `testbed organisation create` an owner's\n"
        ),
    ),
    "wrong password": (
        ("sign-in", "fay", "--password", "wrong wrong wrong"),
        {},
        2,
        f"error: the person or the password is not right\nhint: {SIGN_IN_HINT}\n",
    ),
    "server away": (
        ("status",),
        {"TESTBED_API": "https://127.0.0.1:9"},
        3,
        (
            "error: the API at https://127.0.0.1:9 did not answer:"
            " ConnectError('All connection attempts failed')\n"
            "hint: is the server up? `testbed up` starts one\n"
        ),
    ),
    "unknown authority": (
        ("status",),
        NO_CA,
        2,
        (
            "error: the certificate of the API at {TESTBED_API} is of no authority that we trust:"
            " unable to get local issuer certificate\n"
            "hint: set TESTBED_CA to the PEM file of its authority\n"
        ),
    ),
    "no such authority file": (
        ("status",),
        {"TESTBED_CA": "nowhere.pem"},
        2,
        (
            "error: TESTBED_CA: nowhere.pem cannot be used: No such file or directory\n"
            "hint: name the PEM file of the authority, such as ca.pem of `testbed pki init`\n"
        ),
    ),
    "unknown stream": (
        ("history", "factory/none/none"),
        {},
        2,
        (
            "error: there is no stream factory/none/none in space live that you may read\n"
            "hint: TESTBED_SPACE, --space of a command or `space` over HTTP names another space\n"
        ),
    ),
    "address of a stream": (
        ("tap", "rig"),
        {},
        2,
        "error: 'rig' is not the address of a stream\nhint: write organisation/equipment/stream\n",
    ),
    "instant": (
        ("history", "factory/none/none", "--from", "monday"),
        {},
        2,
        (
            "error: 'monday' is not an instant\n"
            "hint: write -10m, -2h or -1d for so long before now (+1d after it), now, today,"
            " yesterday, tomorrow, a date such as 2026-11-23, or 2026-11-23T12:00:00Z; days begin"
            " at midnight UTC\n"
        ),
    ),
    "width of a window": (
        ("history", "factory/none/none", "--every", "1M"),
        {},
        2,
        (
            "error: '1M' is not the width of a window\n"
            "hint: write a whole number with ms, s, min or m, h or d, such as 1s or 15min\n"
        ),
    ),
    "broker away": (
        ("tap", "factory/none/none"),
        {"TESTBED_BROKER": "mqtts://127.0.0.1:9"},
        3,
        f"error: the broker at 127.0.0.1:9 did not answer: {REFUSED}\nhint: is it running?\n",
    ),
    "stream that is not granted, or not there": (
        ("tap", "factory/none/none"),
        {},
        2,
        (
            "error: there is no stream factory/none/none in space live that you may read\n"
            "hint: TESTBED_SPACE, --space of a command or `space` over HTTP names another space\n"
        ),
    ),
    "port of the API taken": (
        ("up", "--data", "new", "--port", "{api_port}", "--mqtt-port", "0"),
        NO_CA,
        2,
        (
            "error: cannot listen on 127.0.0.1:{api_port}: Address already in use\n"
            "hint: choose another port with --port\n"
        ),
    ),
    "port of the broker taken": (
        ("up", "--data", "new", "--port", "0", "--mqtt-port", "{mqtt_port}"),
        NO_CA,
        2,
        (
            "error: the broker cannot listen on 127.0.0.1:{mqtt_port}: Address already in use\n"
            "hint: is another broker running there? choose another port with --mqtt-port\n"
        ),
    ),
    "data folder taken": (
        ("up", "--data", "{folder}", *FREE_PORTS),
        NO_CA,
        2,
        (
            "error: a server is running on {folder}\n"
            "hint: stop it, or choose another folder with --data\n"
        ),
    ),
    "store away": (
        (*UP, "--store", "influxdb://127.0.0.1:9/testbed/testbed"),
        NO_CA | {"TESTBED_STORE_TOKEN": "token"},
        3,
        (
            "error: InfluxDB at http://127.0.0.1:9 did not answer:"
            " ConnectError('All connection attempts failed')\n"
            "hint: is influxd running there?\n"
        ),
    ),
    "registry away": (
        (*UP, "--registry", "postgresql://testbed@127.0.0.1:9/testbed"),
        NO_CA,
        3,
        (
            "error: the registry at postgresql://testbed@127.0.0.1:9/testbed did not answer:"
            f" [Errno 111] {REFUSED}\n"
            "hint: is PostgreSQL running there, and reachable from here?\n"
        ),
    ),
    "mapping away": (
        ("gateway", "run", "nowhere.yaml"),
        {},
        2,
        (
            "error: there is no mapping nowhere.yaml\n"
            "hint: `testbed gateway browse URL` writes a first one\n"
        ),
    ),
    "gateway without an identity": (
        ("gateway", "run", str(MAPPING)),
        {"TESTBED_CREDENTIAL": "", "TESTBED_GATEWAY_IDENTITY": "/nowhere"},
        2,
        (
            "error: the gateway of factory/pump-rig is not enrolled: there is no credential in"
            " /nowhere/factory.pump-rig, and TESTBED_CREDENTIAL is not set\n"
            "hint: have a code made: testbed gateway code factory/pump-rig; then here: testbed"
            " gateway enrol CODE --mapping FILE\n"
        ),
    ),
    "gateway that was revoked": (
        ("gateway", "run", str(MAPPING)),
        {"TESTBED_CREDENTIAL": f"gate.{'A' * 43}"},
        2,
        (
            "error: the testbed does not accept the credential of gate for factory/pump-rig: it was"
            " revoked, has expired, was locked out, or is not complete\n"
            "hint: have a new code made, `testbed gateway code factory/pump-rig`; then here, in the"
            " mapping's folder: testbed gateway enrol CODE, which moves the old identity aside; or"
            " set another TESTBED_CREDENTIAL\n"
        ),
    ),
    "machine away": (
        ("gateway", "browse", "opc.tcp://127.0.0.1:9", "--security", "none"),
        {},
        3,
        (
            f"error: opc.tcp://127.0.0.1:9 did not answer: [Errno 111] {REFUSED}\n"
            "hint: is the server running, and the address right?\n"
        ),
    ),
    "security of a machine": (
        ("gateway", "browse", "opc.tcp://127.0.0.1:9"),
        {},
        2,
        (
            "error: how opc.tcp://127.0.0.1:9 is to be secured is not said\n"
            "hint: --security sign-and-encrypt; or --security none, where the server cannot, and"
            " only on a network of its own\n"
        ),
    ),
    "code of a gateway": (
        ("gateway", "enrol", "AAAAA-BBBBB-CCCCC-DDDDD"),
        {"TESTBED_GATEWAY_IDENTITY": "identity"},
        2,
        (
            "error: the code is not right, was used, or its hour is over\n"
            "hint: have a new one made: testbed gateway code\n"
        ),
    ),
    "deletion without a yes": (
        ("delete", "factory/rig/rig"),
        {},
        2,
        (
            "error: nothing was deleted of factory/rig/rig in live: its beginning to now\n"
            "hint: say --yes if that is what you want; no backup is made\n"
        ),
    ),
    "no backup": (
        ("restore", "nowhere", "--data", "new"),
        {},
        2,
        "error: there is no backup in nowhere\nhint: it has a manifest.json, written last\n",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_the_text_of_an_error(name, text_of, server):
    arguments, settings, code, text = ERRORS[name]
    assert text_of(*arguments, **settings) == (code, text.format(**server, **ports(server)))


def test_the_text_of_a_setting_that_is_not_right(text_of):
    code, text = text_of("up", TESTBED_API_PORT="abc")
    assert code == 2
    assert text == (
        "error: a setting is not right: TESTBED_API_PORT is no whole number; write one such as 12\n"
        "hint: see docs/reference/settings.md\n"
    )


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("TESTBED_API_PORT", "99999", "TESTBED_API_PORT must be 65535 or less"),
        ("TESTBED_TLS", "some", "TESTBED_TLS must be one of '', 'none' or 'development'"),
        ("TESTBED_REQUEST_S", "soon", "TESTBED_REQUEST_S is no number"),
        ("TESTBED_STORE", "influxdb://a:secret@b/c/d", "set TESTBED_STORE_TOKEN"),
        ("TESTBED_TIMEOUT_S", "soon", "a setting is not right: TESTBED_TIMEOUT_S is no number"),
        ("TESTBED_KEEPALIVE_S", "1", "a setting is not right: TESTBED_KEEPALIVE_S must be 2 or"),
    ],
)
def test_a_setting_that_is_not_right_is_told_in_our_words_without_its_value(
    text_of, setting, value, sentence
):
    code, text = text_of("up", **{setting: value})
    assert code == 2
    assert sentence in text
    assert "Input should" not in text
    assert "secret" not in text


SECRET = "qwertyuiopasdfghjklzxcvbnm0123456789"
NOT_CREDENTIALS = (
    f"fay.{SECRET}\nkeep it: it is not shown again.",
    f"fay.{SECRET}\r",
    f"f\u00e4y.{SECRET}",
    SECRET,
    f"{SECRET}.",
)


@pytest.mark.parametrize("text", NOT_CREDENTIALS, ids=range(len(NOT_CREDENTIALS)))
@pytest.mark.parametrize("words", [("status",), ("tap", "a/b/c"), ("gateway", "run", str(MAPPING))])
def test_no_error_repeats_a_credential_that_is_none(text_of, tmp_path, words, text):
    state = {"TESTBED_GATEWAY_STATE": str(tmp_path)}  # another test may run this gateway
    code, output = text_of(*words, TESTBED_CREDENTIAL=text, **state)
    assert code == 2
    assert "the credential is not one" in output
    assert SECRET not in output


def test_no_error_repeats_a_token_of_influxdb_that_is_none(text_of):
    store = ("--store", "influxdb://127.0.0.1:9/testbed/testbed")
    code, output = text_of(*UP, *store, TESTBED_STORE_TOKEN=f"{SECRET}\nmore", TESTBED_CA="")
    assert code == 2
    assert "the token for InfluxDB is not one" in output
    assert SECRET not in output


def test_standard_output_has_the_credential_alone(server, text_of, monkeypatch):  # noqa: ARG001
    for name, value in server.items():
        if name.isupper():
            monkeypatch.setenv(name, value)
    result = CliRunner().invoke(cli.app, ["token", "create", "notebook"])
    assert re.fullmatch(r"administrator\.[\w-]{43}\n", result.stdout)
    assert "it is not shown again" in result.stderr


def test_the_text_of_a_mapping_with_a_wrong_key(text_of, tmp_path):
    (tmp_path / "rig.yaml").write_text(MAPPING.read_text().replace("  trigger:", "  triger:"))
    code, text = text_of("gateway", "run", "rig.yaml")
    assert code == 2
    assert text == (
        "error: 1 mistake in the mapping:\n"
        "  rig.yaml:14:5: streams.rig.triger: there is no such field; did you mean 'trigger'?\n"
    )


def test_an_answer_that_is_none_of_the_api_is_said(text_of):
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as elsewhere:
        thread = threading.Thread(target=elsewhere.handle_request)
        thread.start()
        api = f"http://127.0.0.1:{elsewhere.server_port}"
        code, text = text_of("status", TESTBED_API=api, TESTBED_CA="")
        thread.join()
    assert code == 3
    assert text == (
        f"error: {api}/api/v1/status?within_s=3600.0 answered 200, and not as the API does\n"
        "hint: is TESTBED_API right? a proxy before the API answers so while the API is away\n"
    )


class Page(http.server.BaseHTTPRequestHandler):
    """A web page where somebody looks for an API."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("credential", "create", "Detector"), "principal 'Detector' is not an id"),
        (("credential", "create", "d", "--reads", "rig"), "'rig' is not the address of a stream"),
        (("credential", "create", "d", "--reads", "lab:a/b/c"), "space 'lab' is not a space"),
        (("credential", "create", "d", "--expires-in", "3"), "'3' is no duration"),
        (("credential", "create", "d", "--expires-in", f"{'9' * 400}d"), "is no duration"),
        (("credential", "create", "d", "--expires-in", "9999d"), "expires_in_s"),
        (("member", "add", "Fay", "--role", "owner"), "person 'Fay' is not an id"),
        (("member", "add", "fay", "--role", "king"), "'king' is not one of"),
        (("organisation", "create", "A", "--owner", "a", "--kind", "partner"), "'A' is not an id"),
        (("organisation", "create", "a", "--owner", "a", "--kind", "club"), "'club' is not one of"),
        (("audit", "verify", "--key", "xyz"), "--key 'xyz' is no public key"),
        (
            ("sign-in", "fay", "--password", "x" * 201),
            "password: it is too long; the greatest length is 200",
        ),
        (("token", "revoke", "first"), "'first' is not a valid int"),
        (("token", "revoke", "99999999999999999999"), "number"),
        (("token", "create", "y" * 500), "label"),
        (("grant", "show", "0"), "number"),
        (("grant", "ask", "a/b/c", "--purpose", "\udcff"), "no Unicode"),
        (
            ("grant", "ask", "a/b/c", "--purpose", "x", "--until", "soon"),
            "'soon' is not an instant",
        ),
        (("audit", "list", "--from", "noon"), "'noon' is not an instant"),
        (("audit", "verify", "--anchor", "nowhere"), "anchors in nowhere cannot be read: No such"),
        (("audit", "verify", "--anchor", "."), "anchors in . cannot be read: Is a directory"),
        (("status", "--within", "0s"), "'0s' is no duration"),
        (("history", "a/b/c", "--output", "x.txt"), "x.txt has no known ending"),
        (("history", "a/b/c", "--space", "lab"), "space 'lab' is not a space"),
        (("stream", "gaps", "a/b/c", "--from", "noon"), "'noon' is not an instant"),
        (("gateway", "code", "rig"), "'rig' is not the address of an equipment"),
        (("gateway", "run", "."), "mapping . cannot be read"),
        (("gateway", "check", "/dev/null"), "mapping"),
        (("gateway", "browse", "http://h", "--security", "none"), "http://h"),
        (("gateway", "browse", "mqtt://h:port"), "is no URL"),
        (("gateway", "trust", "nowhere.yaml"), "there is no mapping nowhere.yaml"),
        (("simulate", "csv", "nowhere.csv"), "there is no recording nowhere.csv"),
        (("simulate", "pump-rig", "--port", "99999"), "99999"),
        (
            ("simulate", "pump-rig", "--port", "0", "--ledger", "no/x"),
            "no folder no for the ledger",
        ),
        (("up", "--host", "a..b", "--insecure", *FREE_PORTS), "name an address of this machine"),
        (("up", "--data", "/dev/null", *FREE_PORTS), "the data folder /dev/null cannot be used"),
        (("pki", "init", "/dev/null"), "/dev/null cannot be written"),
        (("secrets", "init", "/dev/null"), "/dev/null cannot be written"),
        (("broker-config", "nowhere", "--insecure"), "cannot be read: No such file"),
        (("backup", "/dev/null"), "/dev/null"),
        (("restore", "/dev/null", "--data", "new"), "/dev/null"),
        (("administrator", "renew", "--data", "nowhere"), "there is no data in nowhere"),
    ],
)
def test_each_wrong_name_time_file_and_address_is_named(text_of, words, sentence):
    code, text = text_of(*words, TESTBED_CA="") if words[0] == "up" else text_of(*words)
    assert code in {2, 3}, text
    assert "x" * 30 not in text  # no password is repeated
    assert sentence in " ".join(text.split()), text


async def test_the_text_of_a_full_spool(tmp_path):
    times = np.arange(3, dtype=np.int64)
    batch = Batch(1, (Wide(times, {"a": times * 0.5}),), Source.LIVE)
    settings = SpoolSettings(
        most_bytes=2**30, keep_marked_s=0.0, least_free_bytes=2**60
    )  # more than any disk has
    async with spool.open(tmp_path / "rig.sqlite", epoch="new", settings=settings) as opened:
        with pytest.raises(Unavailable) as raised:
            await opened.commit([("factory/rig/rig", batch)], 0)
    assert raised.value.message == (
        "the spool is full: 0 batches wait for their marks, and to drop the oldest makes no room"
    )
    assert (
        raised.value.hint == "does the recorder answer? give the spool more bytes, or a larger disk"
    )
