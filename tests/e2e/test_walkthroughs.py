"""Every block of README and of the guides is typed as it stands, by the one whom it is for.

A page that is not named here is read in the shared town by the factory's owner.
"""

import configparser
import functools
import getpass
import json
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from broker.clock import WallClock, ns_of
from broker.responses.streams import GapResponse
from testbed.server import pki
from tests import services
from tests.docs import blocks
from tests.docs.blocks import ROOT, SHELL
from tests.docs.walking import API, BROKER, Walk, inherited, walking
from tests.e2e import town as towns
from tests.e2e.test_demo import run
from tests.e2e.town import MAPPING, RIG, TRIAL, Town
from tests.services import mqtt_js, node_red, telegraf

README = ROOT / "README.md"
HOW_TO = ROOT / "docs/how-to"
FIRST = HOW_TO / "first-reader.md"
OPEN, USE = HOW_TO / "open-a-machine.md", HOW_TO / "use-a-machine.md"
BACK_UP, KEEP = HOW_TO / "back-up-and-restore.md", HOW_TO / "keep-and-delete.md"
CONNECT, ONE_SERVER = HOW_TO / "connect-a-machine.md", HOW_TO / "run-on-one-server.md"
WITH_MOSQUITTO = HOW_TO / "run-with-mosquitto.md"
GRAFANA = HOW_TO / "recipes/grafana.md"
DASHBOARD = ROOT / "examples/grafana/dashboard.json"
TRAINING = ROOT / "examples/training"
KEEPING = ("Keep a stream", "Delete a span", "The proof")
WITH_DOCKER = ("1. Create secrets", "2. Start", "3. Create", "4. The owner", "all buckets")
WITHOUT_DOCKER = (
    *("Install", "First start", "Use the credential", "As a service", "Firewall"),
    *("Back up", "Upgrade"),
)
"""The steps of the page about one server, in its two ways."""
WATCH = HOW_TO / "watch-it-run.md"
IDEA = HOW_TO / "from-idea-to-live-machine.md"
OWN_TEST = {
    README,
    FIRST,
    IDEA,
    OPEN,
    USE,
    BACK_UP,
    KEEP,
    CONNECT,
    ONE_SERVER,
    WITH_MOSQUITTO,
    WATCH,
}
"""Pages that begin without a town, or that change it."""
PUBLISH = """
import logging
import sys
import paho.mqtt.publish as publish
logging.disable()  # it warns of its own disconnecting
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
publish.single(options["-t"], options["-m"], hostname="127.0.0.1", port=int(sys.argv[1]))
"""
"""What `mosquitto_pub -t TOPIC -m MESSAGE` does, at the port in front of these options."""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """The reader of a page in the town.

    person: whose credential the first shell has, "" for none: the page says how to sign in.
    others: of other shells, by their names.  variables: of the first shell, beside.
    """

    person: str = "fay"
    others: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


READERS = {
    "connect-mqtt-sensors": Reader(person=""),
    "audit": Reader(person="", others={"owner": "administrator"}),
    "where-your-program-runs": Reader(
        person="cora",
        others={"factory": "fay", "laptop": ""},
        variables={"TESTBED_INPUTS": f"rig={RIG}"},
    ),
    "write-a-prototype": Reader(
        person="trial",
        variables={"TESTBED_INPUTS": f"rig={RIG}", "TESTBED_OUTPUTS": f"score={TRIAL}"},
    ),
    **dict.fromkeys(
        (
            "grafana",
            "javascript",
            "make-a-prototype",
            "node-red",
            "pandas",
            "record-and-replay",
            "telegraf",
        ),
        Reader(person="cora"),
    ),
}


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """One town for all pages that leave it as it is."""
    with towns.serve(tmp_path_factory.mktemp("town")) as running:
        yield running


@pytest.fixture
def sensors(tmp_path: Path) -> Iterator[int]:
    """The port of a broker that lets everybody in, as sensors have it."""
    port = services.free_port()
    command = [services.found("mosquitto", Path("/usr/sbin/mosquitto")), "-p", str(port)]
    with services.running(command, folder=tmp_path, ready=lambda: services.accepts(port)):
        yield port


@pytest.mark.parametrize(
    "page", [page for page in blocks.guides() if page not in OWN_TEST], ids=lambda page: page.stem
)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path, town: Town, request) -> None:
    _read_in(town, page, tmp_path, request)


def test_who_watches_a_town_that_nobody_else_has_been_in_sees_no_alarm(
    tmp_path: Path, request
) -> None:
    with towns.serve(tmp_path / "town") as town:
        _read_in(town, WATCH, tmp_path, request)


def _read_in(town: Town, page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Type every block of a page in a town, as its reader."""
    reader, folder = READERS.get(page.stem, Reader()), tmp_path / "reader"
    needs = NEEDS.get(page.stem, lambda *_: ({}, {}))
    tools, addresses = needs(folder, request)
    _hand_over(folder, town)
    others = {shell: town.environment(person) for shell, person in reader.others.items()}
    own = {"person": town.environment(reader.person, **reader.variables)}
    walk = town.walk(
        folder, reader.person, environments=others | own, tools=tools, addresses=addresses
    )
    with walking(walk):
        walk.page(page)


def _hand_over(folder: Path, town: Town) -> None:
    """Put into a reader's folder and home the files that others hand over."""
    home = folder / "homes/person"
    home.mkdir(parents=True)
    (head,) = town.ask("administrator", "GET", "/audit/heads?newest=true").json()["items"]
    anchors = folder / "factory.pump-rig.live.anchors.jsonl"  # a gateway gets one a minute
    anchors.write_text(json.dumps(head) + "\n")
    for name in ("ca.pem", "testbed-ca.pem"):
        for place in (folder, home):
            shutil.copy(town.ca, place / name)
    credential = folder / "detector-credential"
    credential.write_text(town.credentials["trial"] + "\n")
    credential.chmod(0o600)


Tools = Mapping[str, Sequence[str]]
Needs = Callable[[Path, pytest.FixtureRequest], tuple[Tools, Mapping[str, str]]]


def _sensors(_folder: Path, request: pytest.FixtureRequest) -> tuple[Tools, Mapping[str, str]]:
    """The command that publishes, and the address of the sensors' broker."""
    port = request.getfixturevalue("sensors")
    publish = [sys.executable, "-c", PUBLISH, str(port)]
    return {"mosquitto_pub": publish}, {"mqtt://127.0.0.1:1883": f"mqtt://127.0.0.1:{port}"}


def _node_red(_folder: Path, _request: pytest.FixtureRequest) -> tuple[Tools, Mapping[str, str]]:
    """Node-RED, on a port that is free."""
    port = services.free_port()
    addresses = {"--port 1880": f"--port {port}", "127.0.0.1:1880": f"127.0.0.1:{port}"}
    return {"node-red": node_red.command()}, addresses


def _mqtt_js(folder: Path, _request: pytest.FixtureRequest) -> tuple[Tools, Mapping[str, str]]:
    """Node, and mqtt.js in the reader's folder."""
    modules, node = mqtt_js.modules(), services.found("node")
    folder.mkdir()
    (folder / "node_modules").symlink_to(modules)
    return {"node": [node]}, {}


def _telegraf(_folder: Path, _request: pytest.FixtureRequest) -> tuple[Tools, Mapping[str, str]]:
    """Telegraf."""
    return {"telegraf": [str(telegraf.binary())]}, {}


def _training(folder: Path, _request: pytest.FixtureRequest) -> tuple[Tools, Mapping[str, str]]:
    """A copy of the example that trains, as the page asks for."""
    shutil.copytree(TRAINING, folder)
    return {}, {}


NEEDS: Mapping[str, Needs] = {
    "connect-mqtt-sensors": _sensors,
    "javascript": _mqtt_js,
    "learn-a-detector": _training,
    "node-red": _node_red,
    "telegraf": _telegraf,
}
"""Tools and addresses of a page that not every page has."""


FREE_PORTS = {"testbed up": "testbed up --port 0 --mqtt-port 0"}
MOST_COMMANDS = 12


def test_readme_from_nothing_to_a_live_stream(tmp_path: Path) -> None:
    with walking(Walk(folder=tmp_path / "reader", addresses=dict(FREE_PORTS))) as walk:
        walk.page(README)


def test_from_nothing_to_a_first_approved_reader_in_twelve_commands_and_no_setting(
    tmp_path: Path,
) -> None:
    shells = [
        block
        for block in blocks.of(FIRST)
        if block.language in SHELL and not block.section.startswith("0.")
    ]
    typed = [command.text for block in shells for command in blocks.commands(block)]
    assert len(typed) <= MOST_COMMANDS
    assert "twelve commands after the installation" in FIRST.read_text()
    assert not [command for command in typed if "export" in command or "TESTBED_" in command]
    with walking(Walk(folder=tmp_path / "here", addresses=dict(FREE_PORTS))) as walk:
        walk.page(FIRST)
        profiles = sorted(path.name for path in walk.folder.rglob("profiles/*"))
        assert profiles == ["administrator.json", "cora.json", "fay.json"]
        assert "paused" not in walk.run_line("testbed grant show 1 --as cora")
        own = walk.folder / "own"
        own.mkdir()
        program = (ROOT / "examples/ten_lines.py").read_text()
        (own / "ten_lines.py").write_text(program.replace('"rig"', f'"{RIG}"'))
        walk.run_line("python own/ten_lines.py")  # as the last sign-in: cora
        walk.waits_for(-1, r"^\[-?[\d. ]+\]$")


@pytest.mark.alone
def test_from_an_idea_to_a_live_machine_on_one_computer(tmp_path: Path) -> None:
    with walking(Walk(folder=tmp_path / "reader", addresses=dict(FREE_PORTS))) as walk:
        walk.page(IDEA)


def test_the_ten_lines_of_readme_are_the_example() -> None:
    (program,) = [block.text for block in blocks.of(README) if block.language == "python"]
    example = (ROOT / "examples/ten_lines.py").read_text()
    assert example.partition('"""\n\n')[2] == program


def test_a_factory_opens_a_machine_and_a_company_uses_it(tmp_path: Path) -> None:
    with (
        towns.founded(tmp_path / "town", "factory", "company", secure=False) as town,
        towns.started(tmp_path, "simulate", "pump-rig", "--port", "0") as machine,
        walking(town.walk(tmp_path / "factory", "")) as factory,
        walking(town.walk(tmp_path / "company", "")) as company,
    ):
        mapping = yaml.safe_load(MAPPING.read_text())
        mapping["opcua"]["url"] = machine["url"]
        (factory.folder / "mapping.yaml").write_text(yaml.safe_dump(mapping))

        assert "profile fay, by the last sign-in" in factory.step(OPEN, "1. Sign in")
        assert "finn" in factory.step(OPEN, "2. Add your people")
        enrolled = factory.step(OPEN, "3. Enrol")
        key = factory.folder / "testbed-data/gateway-identity/factory.pump-rig/key.pem"
        assert key.stat().st_mode & 0o777 == 0o600
        (fingerprint,) = [
            line.removeprefix("fingerprint ")
            for line in enrolled.splitlines()
            if line.startswith("fingerprint ")
        ]
        assert enrolled.count(fingerprint) == 2

        company.step(USE, "1. Sign in")
        assert "factory/pump-rig" not in company.run_line("testbed listing list")
        listed = factory.step(OPEN, "4. List")
        assert "ask before you publish" in listed
        assert "Pressure [bar]" in company.step(USE, "2. Find")
        assert "asked" in company.step(USE, "3. Ask")

        answered = factory.step(OPEN, "5. Answer")
        assert "would read factory/pump-rig/rig in live" in answered
        assert "may read factory/pump-rig/rig in live" in answered
        read = company.step(USE, "4. Read")
        assert "time,Accelerometer1RMS" in read
        company.waits_for(0, r"^\[-?[\d. ]+\]$")

        watched = factory.step(OPEN, "6. Watch")
        for words in ("company cora ", " history ", "to find out why the pump stalls"):
            assert words in " ".join(watched.split())
        assert "count again" in factory.step(OPEN, "7. Stop it")
        company.waits_for(0, "is paused by factory|the broker refused to subscribe")
        assert "is locked out" in factory.step(OPEN, "A gateway is lost")
        factory.waits_for(0, "broker was not reached")
        assert factory.unvisited(OPEN) + company.unvisited(USE) == []


def test_a_machine_is_connected_and_then_one_with_security(tmp_path: Path) -> None:
    with towns.founded(tmp_path / "town", "factory", "company") as town:
        walk = town.walk(tmp_path / "reader", "")
        shutil.copy(town.ca, walk.folder / "ca.pem")
        with walking(walk):
            walk.page(CONNECT)


def test_a_server_is_set_up_from_the_files_that_init_made(tmp_path: Path) -> None:
    with towns.founded(tmp_path / "town") as town:
        walk = town.walk(tmp_path / "reader", "")
        secrets, certificates = walk.folder / "secrets", walk.folder / "certificates"
        secrets.mkdir()
        certificates.mkdir()
        (secrets / "administrator-credential").write_text(town.credentials["administrator"])
        shutil.copy(town.ca, certificates / "ca.pem")
        with walking(walk):
            for step in WITH_DOCKER:
                walk.step(ONE_SERVER, step)


def test_a_server_without_docker_is_set_up_and_its_unit_runs_it(tmp_path: Path) -> None:
    api, mqtt = services.free_port(), services.free_port()
    options = f"--tls --host localhost --port {api} --mqtt-port {mqtt}"
    address, data = f"https://localhost:{api}", tmp_path / "reader/srv/testbed"
    with ExitStack() as service:
        walk = Walk(
            folder=tmp_path / "reader",
            addresses={
                "/srv/testbed": str(data),
                "--tls --host 0.0.0.0": options,
                API: address,
                BROKER: f"mqtts://localhost:{mqtt}",
            },
            acts={
                "the first start is ended with Ctrl-C": lambda: walk.end(),  # noqa: PLW0108 - it is made here
                "the service runs": lambda: service.enter_context(
                    _unit_runs(walk, f"--data {data} {options}", api)
                ),
            },
        )
        data.mkdir(parents=True)
        with walking(walk):
            for step in WITHOUT_DOCKER:
                walk.step(ONE_SERVER, step)
        assert (walk.folder / "safe-place/audit.key").exists()


def test_every_block_about_one_server_is_typed_by_one_of_two_readers() -> None:
    sections = {block.section for block in blocks.of(ONE_SERVER)}
    steps = (*WITH_DOCKER, *WITHOUT_DOCKER)
    assert [section for section in sections if not section.startswith(steps)] == []


@contextmanager
def _unit_runs(walk: Walk, options: str, port: int) -> Iterator[None]:
    """Run the command of the unit that `install-service` prints, until the API accepts."""
    unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
    unit.read_string(walk.run_line(f"testbed install-service {options} --print"))
    ready = functools.partial(services.accepts, port)
    with services.running(
        shlex.split(unit["Service"]["ExecStart"]),
        folder=walk.folder,
        ready=ready,
        environment=inherited(),
    ):
        yield


def test_samples_are_deleted_and_a_backup_is_made_and_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "reader"
    with towns.serve(folder, secure=False) as town:
        with walking(town.walk(tmp_path / "owner", "fay")) as owner:
            output = "".join(owner.step(KEEP, step) for step in KEEPING)
            assert owner.unvisited(KEEP) == []
            assert _gap_of(output) == _samples_of(output)
        ports = {
            f"TESTBED_{name}_PORT": url.rpartition(":")[2]
            for name, url in (("API", town.api), ("MQTT", town.broker))
        }
        walk = town.walk(
            folder,
            "administrator",
            environments={"person": town.environment("administrator", **ports)},
            acts={"the server is stopped": lambda: _stop_after_tls(town, folder)},
        )
        with walking(walk):
            walk.page(BACK_UP)


def test_a_page_about_deleting_shows_the_gap_where_its_samples_were() -> None:
    page = KEEP.read_text()
    assert _gap_of(page) == _samples_of(page)


def _samples_of(text: str) -> tuple[int, ...]:
    """The first and the last sample that were deleted, as a proof names them."""
    (ends,) = set(re.findall(r"^  samples (\S+) to (\S+)$", text, re.MULTILINE))
    return tuple(map(ns_of, ends))


def _gap_of(text: str) -> tuple[int, ...]:
    """The ends of the gap that a table shows as deleted."""
    (ends,) = re.findall(r"^[│ ]*(\S+Z)[│ ]+(\S+Z)[│ ]+deleted", text, re.MULTILINE)
    return tuple(map(ns_of, ends))


def _stop_after_tls(town: Town, folder: Path) -> None:
    """Stop the server, and leave the authority that an earlier start with --tls would have made."""
    town.stop.close()
    pki.init(folder / "testbed-data" / "pki", [], WallClock().now_ns())


def test_mosquitto_starts_from_the_files_and_the_unit_of_its_page(tmp_path: Path) -> None:
    tools = {"mosquitto": [services.found("mosquitto", Path("/usr/sbin/mosquitto"))]}
    port, folder = services.free_port(), tmp_path / "reader"
    state = folder / "var/lib/testbed-mosquitto"
    state.mkdir(parents=True)
    (folder / "etc").mkdir()
    places = {
        "/etc/testbed": str(folder / "etc/testbed"),
        "/var/lib/testbed-mosquitto": str(state),
        "--mqtt-port 8883": f"--mqtt-port {port}",
        "--run-as testbed": f"--run-as {getpass.getuser()}",
        "User=testbed": f"User={getpass.getuser()}",
        "--host 0.0.0.0": "--host 127.0.0.1",
    }
    with walking(Walk(folder=folder, addresses=places, tools=tools)) as walk:
        walk.page(WITH_MOSQUITTO)
        unit = configparser.RawConfigParser(strict=False, delimiters=("=",))
        text = (folder / "mosquitto.service").read_text()
        unit.read_string(re.sub(r"^ExecStartPre=.*\n", "", text, flags=re.MULTILINE))
        for line in re.findall(r"^ExecStartPre=(.*)$", text, re.MULTILINE):
            walk.run_line(line)
        walk.run_line(unit["Service"]["ExecStart"])
        deadline_s = time.monotonic() + 10
        while not services.accepts(port):
            assert time.monotonic() < deadline_s, walk.running[-1].output
            time.sleep(0.1)  # noqa: TID251 - a broker starts in real time


def test_grafana_gets_what_its_dashboard_asks_for(town: Town) -> None:
    """The very requests that Infinity sends, with its header, are answered with those columns."""
    (text,) = [block.text for block in blocks.of(GRAFANA) if block.language == "yaml"]
    (source,) = yaml.safe_load(text.replace(API, town.api))["datasources"]
    assert (source["url"], source["jsonData"]["auth_method"]) == (town.api, "bearerToken")
    assert set(source["secureJsonData"]) == {"bearerToken", "tlsCACert"}
    health = source["jsonData"]["customHealthCheckUrl"].removeprefix(f"{town.api}/api/v1")
    assert town.ask("trial", "GET", health).status_code == 200
    dashboard = json.loads(DASHBOARD.read_text())
    targets = [target for panel in dashboard["panels"] for target in panel["targets"]]
    assert {target["type"] for target in targets} == {"csv", "json"}
    for target in targets:
        assert target["datasource"]["uid"] == source["uid"]
        url = target["url"].replace("${__from:date:iso}", f"{town.begin:%Y-%m-%dT%H:%M:%S}.000Z")
        url = url.replace("&to=${__to:date:iso}", "")
        assert "$" not in url
        answer = town.ask("trial", "GET", url.removeprefix("/api/v1"))
        assert answer.status_code == 200, answer.text
        selectors = [column["selector"] for column in target["columns"]]
        if target["type"] == "csv":
            head, *rows = answer.text.splitlines()
            assert head.split(",") == selectors
            assert rows
            assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z,", rows[0])
        else:
            assert answer.json()[target["root_selector"]] == []
            assert set(selectors) <= set(GapResponse.example())


def test_who_audits_gives_a_report_a_token_of_that_role_alone(town: Town) -> None:
    """The token of the page's report may do what an auditor may, and no more."""
    organisation = town.ask("administrator", "GET", "/me").json()["organisation"]
    members = f"/organisations/{organisation}/members"
    bob = town.create("administrator", members, person="bob", roles=["auditor"])["credential"]
    environment = town.environment("fay") | {"TESTBED_CREDENTIAL": bob}
    created = run("token", "create", "--role", "auditor", "--json", environment=environment)
    assert created.returncode == 0, created.stderr
    environment["TESTBED_CREDENTIAL"] = json.loads(created.stdout)["credential"]
    for arguments in (["member", "add", "finn", "--role", "owner"], ["token", "create"]):
        done = run(*arguments, environment=environment)
        assert (done.returncode, "this token holds auditor alone" in done.stderr) == (2, True)
    done = run("token", "create", "--role", "boss", environment=environment)
    assert (done.returncode, "'auditor'" in done.stderr) == (2, True)
