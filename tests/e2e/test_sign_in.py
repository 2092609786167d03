"""Signing in on a computer: commands and programs need nothing set, and print no secret."""

import dataclasses
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from broker.credential import Credential
from broker.profiles import ProfileFolder
from broker.server_addresses import ServerAddresses
from testbed import cli
from tests.e2e.test_error_texts import FREE_PORTS, clean
from tests.e2e.town import started
from tests.services import free_port

CONNECT = """
import asyncio
from testbed_sdk import connect

async def main():
    async with connect() as testbed:
        print("connected")

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with TLS; its `ready` event, with the absolute path of its authority."""
    folder = tmp_path_factory.mktemp("server")
    with started(folder, "up", "--tls", *FREE_PORTS) as ready:
        yield ready | {"ca": str(folder / ready["ca"])}


@pytest.fixture
def computer(tmp_path, monkeypatch):
    """A function that runs a command on a computer where nobody is signed in at first.

    It returns exit code, standard output and standard error without log events.
    """
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("TESTBED_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    printed = []

    def run(line, typed="", **settings):
        result = CliRunner().invoke(cli.app, line.split(), input=typed, env=settings)
        assert "Traceback" not in result.output
        errors = re.sub(r"^\{.*\n", "", result.stderr, flags=re.MULTILINE)
        printed.append(result.stdout + result.stderr)
        return result.exit_code, result.stdout, errors

    run.printed = printed
    umask = os.umask(0o077)
    yield run
    os.umask(umask)
    structlog.reset_defaults()


@pytest.fixture
def addresses(server):
    return f"--api {server['api']} --ca {server['ca']}"


@pytest.fixture
def fay(server, tmp_path, request):
    """The first credential of a new owner, whose id is of this test alone."""
    number = abs(hash(request.node.nodeid)) % 10**9
    environment = {
        **clean(),
        "TESTBED_API": server["api"],
        "TESTBED_CA": server["ca"],
        "TESTBED_CREDENTIAL": server["administrator"],
    }
    words = f"organisation create factory-{number} --kind partner --owner fay-{number} --json"
    command = [sys.executable, "-m", "testbed", *words.split()]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return str(json.loads(done.stdout)["credential"])


def stored(tmp_path: Path, name: str):
    return ProfileFolder(tmp_path / "config/connected-testbed").load(name)


def test_a_first_credential_signs_in_and_commands_ask_as_its_person(
    computer, addresses, fay, server
):
    person = fay.partition(".")[0]
    code, _, errors = computer("whoami")
    assert (code, errors.splitlines()[0]) == (2, "error: no credential is set")
    code, output, errors = computer(f"sign-in {person} {addresses}", f"{fay}\n")
    assert (code, errors) == (0, "")
    assert output.startswith(f"signed in as {person} at {server['api']}, without an end\n")
    code, output, _ = computer("whoami")
    assert code == 0
    for line in (
        rf"principal: +{person}",
        "roles: +owner",
        rf"server: +{server['api']}",
        rf"broker: +{server['broker']}",  # not at its usual port: the API named it
        rf"from: +profile {person}, by the last sign-in",
        "until: +no end",
    ):
        assert re.search(f"^{line}$", output, re.MULTILINE), output
    assert computer("member list")[0] == 0
    Path(server["ca"]).rename(f"{server['ca']}.away")  # the profile has a copy of its own
    try:
        assert computer("member list")[0] == 0
    finally:
        Path(f"{server['ca']}.away").rename(server["ca"])
    document = json.loads(computer("whoami --all --json")[1])
    assert [each["principal"] for each in document["items"]] == [person]


def test_a_password_that_is_not_there_is_answered_with_who_helps(computer, addresses, fay):
    person = fay.partition(".")[0]
    code, _, errors = computer(f"sign-in {person} {addresses}", "no such password")
    assert (code, errors.splitlines()[0]) == (2, "error: the person or the password is not right")
    assert "sign in with the credential that you were given" in errors
    assert "an owner of your organisation makes a new one: `testbed member remove" in errors


def test_a_terminal_says_the_rule_of_a_password_before_it_is_typed(computer, addresses, fay):
    assert computer(f"sign-in {addresses}", fay)[0] == 0
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed", "password"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    screen_text = b""
    while b": " not in screen_text:
        screen_text += os.read(screen, 1024)
    process.kill()
    process.wait()
    os.close(screen)
    assert screen_text.decode().strip() == "new password, 12 to 200 characters:"


def test_a_password_gives_twelve_hours_and_signing_out_ends_them(
    computer, addresses, fay, tmp_path
):
    person = fay.partition(".")[0]
    computer(f"sign-in {addresses}", fay)
    assert computer(f"password --password {'x' * 12}")[0] == 0
    code, output, _ = computer(f"sign-in --as {person}", "x" * 12)
    assert code == 0, output
    assert re.search(r"until \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", output.splitlines()[0])
    token = stored(tmp_path, person)
    assert (token.kind, token.credential.text != fay) == ("password", True)
    settings = {"TESTBED_CREDENTIAL": token.credential.text, "TESTBED_API": token.addresses.api}
    settings["TESTBED_CA"] = str(token.addresses.ca)
    assert computer("member list", **settings)[0] == 0
    code, output, _ = computer("sign-out")
    assert (code, output) == (0, f"{person} is signed out of {token.addresses.api}\n")
    code, _, errors = computer("member list", **settings)
    assert (code, "the credential is not right" in errors) == (2, True)
    code, _, errors = computer("sign-out")
    assert (code, errors) == (
        2,
        "error: nobody is signed in here\nhint: testbed sign-in PERSON\n",
    )


def test_after_a_sign_out_no_other_profile_takes_its_place(computer, addresses, fay, server):
    person = fay.partition(".")[0]
    computer(f"sign-in administrator {addresses} --as other", server["administrator"])
    computer(f"sign-in {addresses}", fay)
    code, output, _ = computer("sign-out")
    assert code == 0
    lines = (
        "nobody is signed in now; the profiles here: other",
        "use one by its name: testbed --as other ...; or sign in: testbed sign-in PERSON",
    )
    assert tuple(output.splitlines()[1:]) == lines
    for words in ("whoami", "member list"):
        code, _, errors = computer(words)
        sentence = "error: nobody is signed in since the last sign-out; the profiles here: other"
        assert (code, errors.splitlines()[0]) == (2, sentence)
        assert "hint: use one by its name: testbed --as other ..." in errors
    code, _, errors = computer("sign-out")
    assert (code, "testbed sign-out --as other" in errors) == (2, True)
    assert json.loads(computer("whoami --json --as other")[1])["principal"] == "administrator"
    assert computer(f"sign-in {addresses}", fay)[0] == 0
    assert json.loads(computer("whoami --json")[1])["principal"] == person
    code, output, _ = computer("sign-out --as other")
    assert output.splitlines()[-1] == f"commands use profile {person}, as before"
    assert json.loads(computer("whoami --json")[1])["principal"] == person


def test_the_option_goes_before_the_environment_and_that_before_the_last_sign_in(
    computer, addresses, fay, server
):
    person = fay.partition(".")[0]
    computer(f"--as first sign-in {addresses}", fay)
    computer(f"sign-in administrator {addresses} --as second", server["administrator"])

    def asks_as(words="whoami", **settings):
        document = json.loads(computer(f"{words} --json", **settings)[1])
        return document["principal"], document["source"]

    environment = {
        "TESTBED_CREDENTIAL": fay,
        "TESTBED_API": server["api"],
        "TESTBED_CA": server["ca"],
    }
    assert asks_as() == ("administrator", "profile second, by the last sign-in")
    assert asks_as(TESTBED_PROFILE="first") == (person, "profile first, by TESTBED_PROFILE")
    assert asks_as(**environment) == (person, "TESTBED_CREDENTIAL")
    by_option = ("administrator", "profile second, by --as")
    assert asks_as("whoami --as second", **environment, TESTBED_PROFILE="first") == by_option
    assert asks_as("--as second whoami") == by_option
    assert "TESTBED_PROFILE" not in os.environ
    code, output, errors = computer(
        f"--as third sign-in {person}", fay, TESTBED_CREDENTIAL="x", TESTBED_CREDENTIAL_FILE=""
    )
    assert (code, errors) == (0, ""), output
    code, output, errors = computer(f"sign-in {person}", fay, TESTBED_CREDENTIAL=fay)
    assert (code, "goes before it: unset TESTBED_CREDENTIAL" in errors) == (0, True)


def test_a_program_reads_as_who_is_signed_in(computer, addresses, fay, tmp_path):
    def program():
        environment = clean() | {"XDG_CONFIG_HOME": str(tmp_path / "config")}
        command = [sys.executable, "-c", CONNECT]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert "no credential is set (sign in: testbed sign-in PERSON" in program().stderr
    computer(f"sign-in {addresses}", fay)
    done = program()
    assert (done.stdout, done.returncode) == ("connected\n", 0), done.stderr
    person = fay.partition(".")[0]
    folder = ProfileFolder(tmp_path / "config/connected-testbed")
    folder.store(dataclasses.replace(folder.load(person), expires_ns=1))
    assert (
        f"(profile {person}) (sign in again: testbed sign-in --as {person}, with"
        in program().stderr
    )


def test_a_sign_in_that_has_ended_or_was_revoked_says_how_to_renew_it(
    computer, addresses, fay, server, tmp_path
):
    person = fay.partition(".")[0]
    computer(f"sign-in {addresses}", fay)
    assert computer("token create other")[0] == 0
    number = json.loads(computer("token list --json")[1])["items"][0]["id"]
    assert computer(f"token revoke {number}")[0] == 0
    again = (
        f"sign in again: testbed sign-in --as {person}, with your password or another credential;"
        " without one, an owner of your organisation makes a new one: testbed member remove"
        f" {person}, then testbed member add {person} --role ROLE"
    )
    revoked = (
        f"error: {server['api']} does not accept the sign-in of {person} any more: it was revoked,"
        f" or its roles are not yours now (profile {person})\n"
        f"hint: {again}\n"
    )
    assert computer("member list")[::2] == (2, revoked)
    folder = ProfileFolder(tmp_path / "config/connected-testbed")
    folder.store(dataclasses.replace(folder.load(person), expires_ns=1))
    ended = (
        f"error: the sign-in of {person} at {server['api']} ended at 1970-01-01T00:00:00Z"
        f" (profile {person})\nhint: {again}\n"
    )
    for words in ("member list", "tap a/b/c", "whoami"):
        assert computer(words)[::2] == (2, ended)
    code, output, _ = computer("sign-out")
    assert (code, output) == (0, f"{person} is signed out of {server['api']}\n")


def test_all_profiles_are_listed_with_the_active_one_and_what_is_wrong_with_others(
    computer, addresses, fay, tmp_path
):
    for name in ("open", "old", "now"):
        computer(f"sign-in {addresses} --as {name}", fay)
    folder = ProfileFolder(tmp_path / "config/connected-testbed")
    folder.store(dataclasses.replace(folder.load("old"), expires_ns=1))

    def marks(**settings):
        listed = json.loads(computer("whoami --all --json", **settings)[1])["items"]
        return [(each["profile"], each["active"], each["ended"]) for each in listed]

    assert marks() == [("now", True, False), ("old", False, True), ("open", False, False)]
    assert marks(TESTBED_PROFILE="open")[2] == ("open", True, False)
    assert [active for _, active, _ in marks(TESTBED_CREDENTIAL=fay)] == [False] * 3
    folder.file("open").chmod(0o644)
    settings = {"TESTBED_PROFILE": "now"}
    assert marks(**settings)[2] == ("open", False, False)
    listed = json.loads(computer("whoami --all --json")[1])["items"][2]
    sentence = f"the profile {folder.file('open')} may be read by others: its mode is 644"
    assert (set(listed), listed["problem"].startswith(sentence)) == (
        {"profile", "active", "ended", "problem"},
        True,
    )
    text = computer("whoami --all", **settings)[1]
    assert sentence in text
    assert "it has ended: testbed sign-in --as old" in text
    assert re.search(r"now .* active", text)


def test_no_command_prints_the_secret_of_a_profile(computer, addresses, fay, tmp_path):
    person, _, secret = fay.partition(".")
    lines = (
        (f"sign-in {person} {addresses} --json", fay),
        (f"sign-in cora {addresses}", fay),
        (f"sign-in {addresses}", f"{fay}x y"),
        ("whoami", ""),
        ("whoami --json", ""),
        ("whoami --all", ""),
        ("whoami --all --json", ""),
        ("member list --as nobody", ""),
        ("gateway enrol AAAAA-BBBBB-CCCCC-DDDDD", ""),
    )
    for line, typed in lines:
        computer(line, typed)
    file = ProfileFolder(tmp_path / "config/connected-testbed").file(person)
    file.write_text(file.read_text()[:-20])
    computer("whoami")
    file.chmod(0o644)
    computer("whoami")
    computer(f"sign-out --as {person}")
    assert [text for text in computer.printed if secret in text] == []


def test_the_administrator_is_signed_in_where_the_server_starts(computer, tmp_path):
    port = str(free_port())
    words = ("up", "--sign-in", "--port", port, "--mqtt-port", "0")
    with started(tmp_path, *words) as ready:
        assert (ready["administrator"], ready["profile"]) == (None, "administrator")
        document = json.loads(computer("whoami --json")[1])
        assert (document["principal"], document["api"]) == ("administrator", ready["api"])
        create = "organisation create factory --kind partner --owner fay"
        code, output, notes = computer(create)
        assert (code, re.fullmatch(r"fay\.[\w-]{43}\n", output) is None) == (0, False)
        assert f"  testbed sign-in fay --api {ready['api']}\n" in notes
    with started(tmp_path, *words) as ready:
        assert (ready["administrator"], ready["profile"]) == (None, "administrator")
    another = ("up", "--sign-in", "--port", str(free_port()), "--mqtt-port", "0")
    with started(tmp_path, *another) as ready:  # another port is another server
        assert (ready["administrator"], "profile" in ready) == (None, False)
    assert "the administrator's credential was used before" in (tmp_path / "up.log").read_text()


def test_a_server_proposes_no_organisation_that_exists_and_says_where_its_data_lies(
    computer, tmp_path
):
    def started_and_stopped(act=lambda: None):
        command = [sys.executable, "-m", "testbed", "up", "--sign-in"]
        ports = ["--port", "0", "--mqtt-port", "0"]
        environment = clean() | {"XDG_CONFIG_HOME": str(tmp_path / "config")}
        with (
            (tmp_path / "notes").open("w") as notes,
            subprocess.Popen(
                [*command, *ports],
                cwd=tmp_path,
                env=environment | {"PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=notes,
                text=True,
            ) as server,
        ):
            try:
                lines = []
                while not lines or not lines[-1].startswith("Ctrl-C"):
                    lines.append(server.stdout.readline())
                    assert lines[-1], (tmp_path / "notes").read_text()
                act()
                server.send_signal(signal.SIGINT)
                assert server.wait(30) == 130
            finally:
                server.kill()
        last = (tmp_path / "notes").read_text().splitlines()[-1]
        assert last == f"stopped; the data lies in {tmp_path / 'testbed-data'}"
        return "".join(lines)

    create = "organisation create factory --kind partner --owner fay"
    assert create in started_and_stopped(lambda: computer(create))
    assert create not in started_and_stopped()


@pytest.mark.parametrize(
    ("line", "typed", "sentence"),
    [
        ("sign-in fay", "\n", "error: nothing was typed\nhint: in scripts: a line of a pipe"),
        ("sign-in", "a password", "error: this is no credential, and whose password it is was not"),
        ("sign-in cora", "{credential}", "error: this is the credential of another than cora\n"),
        ("sign-in Fay", "x", "error: profile 'Fay' is not an id\n"),
        ("sign-in fay --as a/b", "x", "error: profile 'a/b' is not an id\n"),
        ("sign-in fay --api testbed", "x", "error: 'testbed' is not the address of an API\n"),
        ("sign-in fay --api https://127.0.0.1:9", "x", "did not answer: ConnectError"),
        ("sign-in fay --broker http://b", "x", "error: 'http://b' is not the address of a broker"),
        ("sign-in fay --ca nowhere.pem", "x", "error: --ca: nowhere.pem cannot be used: No such"),
        ("status --as nobody", "", "error: there is no profile 'nobody'; there are: "),
        ("status --as", "", "Option '--as' requires an argument"),
        ("sign-out --as nobody", "", "error: there is no profile 'nobody'; there are: "),
        ("gateway enrol X --api testbed", "", "error: 'testbed' is not the address of an API\n"),
        ("gateway enrol X --as nobody", "", "error: there is no profile 'nobody'; there are: "),
    ],
)
def test_wrong_input_of_a_sign_in_is_said_in_a_sentence(
    computer, addresses, server, line, typed, sentence
):
    credential = server["administrator"]
    computer(f"--as first sign-in {addresses}", credential)
    code, _, errors = computer(line, typed.format(credential=credential))
    assert (code, sentence in errors) in {(2, True), (3, True)}, errors


def test_an_authority_that_is_not_named_and_a_name_of_another_server_are_said(
    computer, addresses, server
):
    credential = server["administrator"]
    code, _, errors = computer(f"sign-in --api {server['api']}", credential)
    assert (code, "is of no authority that we trust" in errors) == (2, True)
    assert "hint: set --ca to the PEM file of its authority\n" in errors
    computer(f"--as first sign-in {addresses}", credential)
    other = "https://127.0.0.1:9"
    code, _, errors = computer(f"sign-in --as first --api {other}", credential)
    assert (code, errors.splitlines()[0]) == (
        2,
        f"error: profile first is of {server['api']}, and --api is {other}",
    )
    code, _, errors = computer("status", TESTBED_PROFILE="first", TESTBED_API=other)
    assert (code, errors.splitlines()[0]) == (
        2,
        f"error: profile first is of {server['api']}, and TESTBED_API is {other}",
    )
    code, _, errors = computer("status", TESTBED_API=other)
    assert (code, errors.splitlines()[0]) == (
        2,
        f"error: no credential is set for {other}; the profiles here are of other servers: first",
    )


def test_a_name_that_is_stored_signs_in_at_its_own_server_whatever_the_last_sign_in_was(
    computer, addresses, server, tmp_path
):
    credential, own = server["administrator"], server["api"]
    assert computer(f"sign-in {addresses}", credential)[0] == 0
    other = ServerAddresses.beside("https://127.0.0.1:9")
    folder = ProfileFolder(tmp_path / "config" / "connected-testbed")
    fay = dataclasses.replace(
        folder.load("administrator"),
        name="fay",
        credential=Credential.make("fay"),
        addresses=other,
        signed_in_ns=2**62,
    )
    folder.store(fay)
    code, output, _ = computer("sign-in administrator", credential)
    assert (code, f"signed in as administrator at {own}" in output) == (0, True)
    folder.store(fay)
    code, _, errors = computer("sign-in", credential)
    assert (code, errors.splitlines()) == (
        2,
        [
            f"error: profile administrator is of {own}, and the last sign-in was at {other.api}",
            "hint: name the person: testbed sign-in administrator; or the server, with --api",
        ],
    )
    code, _, errors = computer("sign-in administrator", credential, TESTBED_API=other.api)
    assert (code, errors.splitlines()[0]) == (
        2,
        f"error: profile administrator is of {own}, and TESTBED_API is {other.api}",
    )


def test_an_authority_of_the_environment_is_named_as_such(computer, addresses, server, tmp_path):
    assert computer(f"sign-in {addresses}", server["administrator"])[0] == 0
    none = tmp_path / "none.pem"
    code, _, errors = computer("status", TESTBED_CA=str(none))
    assert (code, errors.startswith(f"error: TESTBED_CA: {none} cannot be used")) == (2, True)


def test_a_sign_in_does_not_replace_the_profile_of_another_person(computer, addresses, fay, server):
    person = fay.partition(".")[0]
    computer(f"sign-in {addresses}", server["administrator"])
    named = {"TESTBED_PROFILE": "administrator"}
    code, _, errors = computer(f"sign-in {person} {addresses}", fay, **named)
    sentence = f"profile administrator is of administrator, and a sign-in of {person} would replace"
    assert (code, errors.splitlines()[0]) == (2, f"error: {sentence} it")
    assert f"testbed sign-in {person} --as {person}" in errors
    assert computer(f"sign-in {addresses}", fay, **named)[0] == 2
    hinted = f"sign-in {person} --as {person} {addresses}"
    assert computer(hinted, fay, TESTBED_PROFILE="administrator")[0] == 0
    identity = computer("whoami --json", TESTBED_PROFILE="administrator")[1]
    assert json.loads(identity)["principal"] == "administrator"


def test_a_password_is_set_through_a_pipe_and_typed_once(computer, addresses, server):
    credential = server["administrator"]
    assert computer(f"sign-in {addresses}", credential)[0] == 0
    code, output, errors = computer("password", "correct horse battery staple\n")
    assert (code, output, errors) == (0, "the password is set\n", "")
    code, output, errors = computer("password", "")
    assert (code, output) == (2, "")
    assert errors.startswith("error: nothing was typed\nhint: in scripts: a line of a pipe")
    code, output, _ = computer("sign-in administrator", "correct horse battery staple\n")
    assert (code, "signed in as administrator" in output) == (0, True)
