"""Run the commands of a document in order, as they stand.

A block of `console` is run as a person, a block of `console gateway` on the gateway's machine; each
has a folder of its own for what a sign-in stores.  Placeholders are filled in: `…` by the
credential that was shown last, a code by the code that was shown last, and the example's addresses
by those of a server that the test started.  Who is asked for a password types it, or before there
is one the credential that was shown for that person.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
API, BROKER = "https://testbed.example:8600", "mqtts://testbed.example:8883"
CODE = re.compile(r"\b(?:[A-Z2-9]{5}-){3}[A-Z2-9]{5}\b")
CREDENTIAL = re.compile(r"^[a-z0-9-]+\.[\w-]{43}$", re.MULTILINE)
PASSWORD = "correct horse battery staple"
FOREVER = ("testbed gateway run", "testbed up", "testbed simulate", "python ")
"""Commands that run until they are ended."""


def commands(document: Path, step: str) -> list[tuple[str, str]]:
    """(person or gateway, command) of the part that begins with `**step`, up to the next step.

    step: empty for the whole document.
    """
    text = document.read_text()
    begin = text.index(f"\n**{step}")
    following = text.find("\n**", begin + 1) if step else -1
    part = text[begin : following if following > 0 else None]
    steps = []
    for kind, block in re.findall(r"^```console(.*?)\n(.*?)^```", part, re.DOTALL | re.MULTILINE):
        lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
        steps += [(kind.strip() or "person", line) for line in lines]
    return steps


class Walk:
    """A reader of a document, with a shell on each machine."""

    def __init__(self, folder: Path, addresses: Mapping[str, str], credential: str = "") -> None:
        """addresses: parts of commands, and what is typed instead."""
        self.folder = folder
        self.shown = {"credential": credential, "code": ""}
        self.credentials = {credential.partition(".")[0]: credential}
        self.addresses = dict(addresses)
        self.running: list[subprocess.Popen[bytes]] = []
        self._has_password = False
        own = {name: value for name, value in os.environ.items() if not name.startswith("TESTBED_")}
        inherited = own | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
        self._environment = {
            name: inherited | {"XDG_CONFIG_HOME": str(folder / f"config-{name}")}
            for name in ("person", "gateway")
        }

    def step(self, document: Path, step: str) -> str:
        """Run the commands of a step; their output."""
        output = []
        typed = commands(document, step)
        assert typed, f"{document.name} has no commands in {step!r}"
        for who, command in typed:
            output.append(self._type(who, command))
        return "\n".join(output)

    def _type(self, who: str, command: str) -> str:
        for example, ours in self.addresses.items():
            command = command.replace(example, ours)
        command = CODE.sub(self.shown["code"], command)
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            text = self.shown["credential"] if value == "…" else value
            self._environment[who][name] = text
            return ""
        settings, command = _before_command(command)
        words = shlex.split(command)
        program = [sys.executable, "-m", "testbed"] if words[0] == "testbed" else [sys.executable]
        if command.startswith(FOREVER):
            self._begin(self._environment[who] | settings, [*program, *words[1:]])
            return ""
        return self._run(who, command, [*program, *words[1:]])

    def _answer(self, words: Sequence[str]) -> str:
        """The lines that a person types after a command."""
        if words[0] == "password":
            self._has_password = True
            return f"{PASSWORD}\n{PASSWORD}\n"
        if words[0] != "sign-in":
            return ""
        return f"{PASSWORD if self._has_password else self.credentials[words[1]]}\n"

    def _run(self, who: str, command: str, line: list[str]) -> str:
        done = subprocess.run(
            line,
            cwd=self.folder,
            env=self._environment[who],
            input=self._answer(line[3:]),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            start_new_session=True,  # without a terminal, passwords are read from here
        )
        output = done.stdout + done.stderr
        assert (done.returncode, "Traceback" in output) == (0, False), f"$ {command}\n{output}"
        for what, pattern in (("credential", CREDENTIAL), ("code", CODE)):
            if match := pattern.search(done.stdout):
                self.shown[what] = match.group()
        credential = self.shown["credential"]
        self.credentials[credential.partition(".")[0]] = credential
        return output

    def _begin(self, environment: dict[str, str], line: list[str]) -> None:
        with (self.folder / f"{len(self.running)}.log").open("wb") as log:
            self.running.append(
                subprocess.Popen(
                    [
                        part if not part.startswith("examples/") else str(ROOT / part)
                        for part in line
                    ],
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def log(self, number: int) -> str:
        """The output so far of the n-th command that goes on."""
        return (self.folder / f"{number}.log").read_text()

    def waits_for(self, number: int, pattern: str, within_s: float = 30) -> None:
        """Wait until the output of the n-th command that goes on matches a pattern."""
        deadline = time.monotonic() + within_s
        while not re.search(pattern, self.log(number), re.MULTILINE):
            assert time.monotonic() < deadline, self.log(number)
            time.sleep(0.1)  # noqa: TID251 - processes act in real time


def _before_command(command: str) -> tuple[dict[str, str], str]:
    """The settings that stand before a command, `NAME=value …`, and the command itself."""
    settings = {}
    while match := re.match(r"([A-Z_]+)=(\S*) ", command):
        settings[match[1]] = match[2]
        command = command[match.end() :]
    return settings, command


@contextmanager
def walking(folder: Path, addresses: Mapping[str, str], credential: str = "") -> Iterator[Walk]:
    """A reader in a folder; commands that go on are ended with the context."""
    folder.mkdir()
    walk = Walk(folder, addresses, credential)
    try:
        yield walk
    finally:
        for process in walk.running:
            process.send_signal(signal.SIGINT)
        for process in walk.running:
            process.wait(30)
