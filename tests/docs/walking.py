"""Type the blocks of a document in order, as they stand, in real shells.

A block is typed by a person; the second word of its info string names another shell: `console
gateway` is the gateway's machine.  Each has a home of its own, and so its own sign-ins.  The
example's addresses, credentials, codes and instants are replaced by those of the test.  Who is
asked for a password types it, or before there is one the credential of that person.  What a page
says that a command prints must be printed, and a block that prints must say what one sees.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests import services
from tests.docs import blocks, loaders
from tests.docs.blocks import BEFORE, FILE, GIVEN, ROOT, SHELL, Block, Command

API, BROKER = "https://testbed.example:8600", "mqtts://testbed.example:8883"
MACHINE = "opc.tcp://127.0.0.1:4840"
PERSON = "person"
CODE = re.compile(r"\b(?:[A-Z2-9]{5}-){3}[A-Z2-9]{5}\b")
CREDENTIAL = re.compile(r"(?:^|[=\s])([a-z0-9-]+\.[\w-]{43})$", re.MULTILINE)
PLACEHOLDER = re.compile(r"(\bTESTBED_CREDENTIAL=)(?:([a-z0-9-]+)\.)?…")
INSTANT = re.compile(r"(--(?:sample-)?(from|to|at) )\d{4}-\d\d-\d\d(?:\S*Z)?")
PASSWORD = "correct horse battery staple"
QUESTION = "[y/N]: "
FOREVER = re.compile(
    r"testbed (?:up|simulate|recording replay|gateway run|tap|api|recorder|reconcile)\b"
    r"|(?:\S*/)?python \S*(?:ten_lines|plain_mqtt|detector)\.py"
    r"|while |curl -N|mosquitto -c|node-red|node \S+\.mjs|telegraf --config"
)
"""Commands that run until Ctrl-C."""
OURS = re.compile(r"testbed |(?:\S*/)?python \S*(?:ten_lines|low_flow|plain_mqtt|detector)\.py")
"""Commands of ours, which print no traceback at Ctrl-C."""
READING = re.compile(
    r"testbed (?:access|alarms|history|status|whoami"
    r"|deployments|\w+ (?:dead-letters|gaps|list|metrics|show|verify|why))\b|curl |head "
)
"""Commands that change nothing: a reader who does not see yet what the page says looks again."""
READY = {
    "testbed up": "Ctrl-C stops it; …",
    "testbed simulate": "serving …",
    "testbed recording replay": "serving …",
    "testbed gateway run": "…gateway was started…",
}
"""What a reader waits for before the next command, where the page says nothing of it."""
ASSIGNMENTS = re.compile(r"^(?:sudo (?:-u \S+ )?|[A-Z_]+=\S* )+")
SUDO = 'if [ "$1" = -u ]; then shift 2; fi\nexec'
"""The command in front of others: the reader of a test is already whom it names."""
WITHIN_S = 60.0
READ_WITHIN_S = 20.0
STOPPED_WITHIN_S = 30.0
QUIET_S = 2.0
"""Time for which a command that goes on, and prints nothing, must not have ended."""
CELL_S = 4.0
"""Time after which a part of a program that goes on is ended."""

CELLS = """
import ast, asyncio, contextlib, inspect, json, sys

async def main():
    async with contextlib.AsyncExitStack() as opened:
        names = {"__name__": "__main__", "opened": opened}
        for text, limit_s in json.load(sys.stdin):
            code = compile(text, "a cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.iscoroutine(result):
                with contextlib.suppress(*[TimeoutError] if limit_s else []):
                    await asyncio.wait_for(result, limit_s)

asyncio.run(main())
"""


@dataclass(slots=True)
class Shell:
    """A shell of a reader: the folder that it is in, and its environment."""

    folder: Path
    environment: dict[str, str]


@dataclass(frozen=True, slots=True)
class Running:
    """A command that goes on, and the file of its output."""

    command: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")


@dataclass(kw_only=True)
class Walk:
    """A reader of documents, with a shell on each machine.

    folder: of all shells at first.  addresses: of the example, and those that stand for them.
    environments: variables of a shell by its name; a shell that is not named has none.  tools:
    executables by name, beside `testbed`, `python` and `sudo`.  acts: what a note says that
    happens before a block.  begin: since when there are samples; the example's instants are `from`
    an hour before, and `to` and `at` this one.  given: credentials that others hand over, by
    principal, to sign in with.
    """

    folder: Path
    addresses: dict[str, str]
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tools: Mapping[str, Sequence[str]] = field(default_factory=dict)
    acts: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    begin: datetime = field(default_factory=lambda: datetime.now(UTC))  # noqa: TID251 - real time
    given: Mapping[str, str] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)
    """Those that were shown, by principal, the newest last."""
    code: str = ""
    has_password: bool = False
    running: list[Running] = field(default_factory=list)
    _shells: dict[str, Shell] = field(default_factory=dict)
    _noted: set[str] = field(default_factory=set)
    _visited: set[tuple[Path, int]] = field(default_factory=set)
    _cells: list[tuple[str, float | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for variables in self.environments.values():
            if credential := variables.get("TESTBED_CREDENTIAL"):
                self._show(credential)
        if own := self.environments.get(PERSON, {}).get("TESTBED_CREDENTIAL"):
            self._show(own)
        self._write_tools()

    def page(self, document: Path) -> None:
        """Type every block of a document."""
        self._visit_all(blocks.of(document))
        assert self.unvisited(document) == []

    def step(self, document: Path, step: str) -> str:
        """Type the blocks of a section or paragraph that begins so; their output."""
        all_blocks = blocks.of(document)
        chosen = [block for block in all_blocks if block.section.startswith(step)]
        assert chosen, f"{document.name} has no block in {step!r}"
        return self._visit_all(chosen)

    def unvisited(self, document: Path) -> list[str]:
        """The blocks of a document that were not reached."""
        return [
            str(block)
            for block in blocks.of(document)
            if (block.document, block.line) not in self._visited
        ]

    def run_line(self, command: str, who: str = PERSON) -> str:
        """Type a command that no document holds, with nothing replaced in it; its output."""
        return self._enter(command, (), who)

    def waits_for(self, number: int, pattern: str, within_s: float = WITHIN_S) -> None:
        """Wait until the output of the n-th command that goes on matches a pattern."""
        deadline_s = time.monotonic() + within_s
        while not re.search(pattern, self.running[number].output, re.MULTILINE):
            assert time.monotonic() < deadline_s, self.running[number].output
            time.sleep(0.1)  # noqa: TID251 - processes act in real time

    def end(self) -> None:
        """End the commands that go on, the newest first, as Ctrl-C does."""
        for running in reversed(self.running):
            _signal(running.process, signal.SIGINT)
            try:
                running.process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                _signal(running.process, signal.SIGKILL)
                running.process.wait()
        self.running, ended = [], self.running
        for running in ended:
            is_ours = OURS.match(ASSIGNMENTS.sub("", running.command))
            sentence = f"$ {running.command}\n{running.output}"
            assert not is_ours or "Traceback" not in running.output, sentence

    def _visit_all(self, chosen: Sequence[Block]) -> str:
        followers = [*chosen[1:], None]
        return "\n".join(
            self._visit(block, following)
            for block, following in zip(chosen, followers, strict=True)
        )

    def _visit(self, block: Block, following: Block | None) -> str:
        self._visited.add((block.document, block.line))
        if act := block.notes.get(BEFORE):
            self.acts[act]()
        if not block.is_run or block.language == "text":
            return ""
        printed = following.text.splitlines() if _is_output(following) else []
        if block.language in SHELL:
            return self._type_all(block, printed)
        file = block.notes.get(FILE)
        if block.language == "python" and not file:
            return self._run_program(block, printed)
        text = self._filled(block.text)
        loaders.load(block.language, text)
        if file:
            (self._shell(PERSON).folder / file).write_text(text)
        return ""

    def _type_all(self, block: Block, printed: Sequence[str]) -> str:
        """Type the commands of a block; `printed`: what the block below says of the last one."""
        who = " ".join(block.words) or PERSON
        typed = blocks.commands(block)
        if printed:
            typed[-1] = Command(typed[-1].text, tuple(printed))
        output = "\n".join(self._type(command, who) for command in typed)
        is_said = any(command.printed for command in typed)
        assert is_said or not output.strip(), f"{block} does not say what one sees:\n{output}"
        return output

    def _type(self, command: Command, who: str) -> str:
        printed = [self._addressed(line) for line in command.printed]
        return self._enter(self._filled(command.text), printed, who)

    def _enter(self, text: str, printed: Sequence[str], who: str) -> str:
        if FOREVER.match(ASSIGNMENTS.sub("", text)):
            return self._start(text, printed, who)
        deadline_s = time.monotonic() + READ_WITHIN_S
        while True:
            output, code = self._run(text, who)
            unseen = blocks.first_unseen(printed, output)
            if unseen is None or not READING.match(text) or time.monotonic() > deadline_s:
                break
            time.sleep(0.5)  # noqa: TID251 - what is looked at changes in real time
        fails = any(line.startswith("error:") for line in printed)
        assert (code != 0) is fails, f"$ {text}\nended with {code}:\n{output}"
        assert "Traceback" not in output, f"$ {text}\n{output}"
        assert unseen is None, f"$ {text}\ndoes not print {unseen!r}, but:\n{output}"
        self._note(output)
        return output

    def _run(self, text: str, who: str) -> tuple[str, int]:
        """Output and exit code of a command that ends; the shell keeps its folder and variables."""
        shell, state = self._shell(who), self.folder / ".state"
        keep = f"{{ pwd; env -0; }} >{shlex.quote(str(state))}"
        script = f"set -o pipefail\n{text}\nstatus=$?\n{keep}\nexit $status\n"
        answer = self._answer(text)
        output, code = _output_of(["bash", "-c", script], shell, answer, text)
        output = output.replace(QUESTION, f"{QUESTION}{answer}")  # a terminal shows what is typed
        folder, _, variables = state.read_text().partition("\n")
        shell.folder = Path(folder)
        pairs = (each.partition("=") for each in variables.split("\0") if each)
        shell.environment = {name: value for name, _, value in pairs if name not in {"_", "SHLVL"}}
        return output, code

    def _answer(self, text: str) -> str:
        """The lines that a reader types when a command asks."""
        if text.startswith("testbed gateway trust"):
            return "y\n"
        if text.startswith("testbed password"):
            self.has_password = True
            return f"{PASSWORD}\n{PASSWORD}\n"
        if match := re.match(r"testbed sign-in ([a-z0-9-]+)", text):
            known = {**self.given, **self.credentials}
            return f"{PASSWORD if self.has_password else known[match[1]]}\n"
        return ""

    def _start(self, text: str, printed: Sequence[str], who: str) -> str:
        """Start a command that goes on; its output once it has printed what the page says."""
        printed = printed or [line for command, line in READY.items() if command in text]
        shell, log = self._shell(who), self.folder / f"{len(self.running)}.log"
        text = self._with_port(text)
        with log.open("wb") as sink:
            process = subprocess.Popen(
                ["bash", "-c", text],
                cwd=shell.folder,
                env=shell.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(text, process, log)
        self.running.append(running)
        begin_s = time.monotonic()
        while True:
            ended, passed_s = process.poll() is not None, time.monotonic() - begin_s
            output = running.output
            unseen = blocks.first_unseen(printed, output)
            if unseen is None and (printed or output or passed_s > QUIET_S):
                break
            sentence = f"$ {text}\ndoes not print {unseen!r}, but:\n{output}"
            assert not ended, sentence
            assert passed_s < WITHIN_S, sentence
            time.sleep(0.1)  # noqa: TID251 - processes act in real time
        self._note(output)
        return output

    def _run_program(self, block: Block, printed: Sequence[str]) -> str:
        """Run a program, or a cell after the cells above it; a cell that goes on is ended."""
        text = self._filled(block.text)
        given = block.notes.get(GIVEN, "")
        if "\nrun(" in text or "connect_sync(" in text:
            (self._shell(PERSON).folder / "program.py").write_text(f"{given}\n{text}")
            return self._start("python program.py", printed, PERSON)
        goes_on = "async for" in text
        self._cells.append((f"{given}\n{text}", CELL_S if goes_on else None))
        label = f"{block}, a cell"
        command = [sys.executable, "-c", CELLS]
        output, code = _output_of(command, self._shell(PERSON), json.dumps(self._cells), label)
        if goes_on:
            self._cells.pop()  # later cells need nothing of it
        assert code == 0, f"{label} ended with {code}:\n{output}"
        unseen = blocks.first_unseen(printed, output)
        assert unseen is None, f"{label} does not print {unseen!r}, but:\n{output}"
        return output

    def _filled(self, text: str) -> str:
        """A text with the test's own addresses, credentials, codes and instants."""
        self._note_running()
        text = self._addressed(text)
        text = INSTANT.sub(lambda match: match[1] + self._instant(match[2]), text)
        text = PLACEHOLDER.sub(lambda match: match[1] + self._credential_of(match[2]), text)
        return CODE.sub(lambda match: self.code or match[0], text)

    def _addressed(self, text: str) -> str:
        """A text with the test's own addresses."""
        examples = sorted(self.addresses, key=len, reverse=True)
        pattern = "|".join(map(re.escape, examples))
        return re.sub(pattern, lambda match: self.addresses[match[0]], text) if pattern else text

    def _instant(self, option: str) -> str:
        """The instant of an option: `from`, `to` or `at`."""
        moment = self.begin - timedelta(hours=1) if option == "from" else self.begin
        return f"{moment:%Y-%m-%dT%H:%M:%SZ}"

    def _credential_of(self, principal: str | None) -> str:
        """The credential that was shown last, or last for a principal."""
        assert self.credentials, "no credential was shown yet"
        return self.credentials[principal or list(self.credentials)[-1]]

    def _note(self, output: str) -> None:
        """Note the credentials and the code that an output shows."""
        for credential in CREDENTIAL.findall(output):
            self._show(credential)
        if match := CODE.search(output):
            self.code = match[0]

    def _note_running(self) -> None:
        """Note the credentials that commands which go on have shown meanwhile."""
        for running in self.running:
            for credential in set(CREDENTIAL.findall(running.output)) - self._noted:
                self._show(credential)

    def _show(self, credential: str) -> None:
        """Note a credential as the newest one."""
        principal = credential.partition(".")[0]
        self._noted.add(credential)
        self.credentials.pop(principal, None)
        self.credentials[principal] = credential

    def _with_port(self, text: str) -> str:
        """A command that starts a machine, on a port that is free."""
        if "testbed simulate" not in text or "--port" in text:
            return text
        port = services.free_port()
        self.addresses[MACHINE] = f"opc.tcp://127.0.0.1:{port}"
        return f"{text} --port {port}"

    def _shell(self, who: str) -> Shell:
        """The shell of a machine; a new one has a home of its own."""
        if who not in self._shells:
            home = self.folder / "homes" / who
            home.mkdir(parents=True, exist_ok=True)
            own = {
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "HOME": str(home),
                "XDG_CONFIG_HOME": str(home / ".config"),
                "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
            }
            variables = self.environments.get(who, {})
            self._shells[who] = Shell(self.folder, inherited() | own | dict(variables))
        return self._shells[who]

    def _write_tools(self) -> None:
        """Write what a reader has installed: the command, Python, and the tools of the test."""
        python = (sys.executable,)
        own = {"testbed": (*python, "-m", "testbed"), "python": python, "python3": python}
        folder = self.folder / "bin"
        folder.mkdir(parents=True)
        tools = {name: f"exec {shlex.join(each)}" for name, each in {**own, **self.tools}.items()}
        for name, line in {"sudo": SUDO, **tools}.items():
            file = folder / name
            file.write_text(f'#!/bin/sh\n{line} "$@"\n')
            file.chmod(0o755)
        (self.folder / "examples").symlink_to(ROOT / "examples")
        (self.folder / ".venv").mkdir()
        (self.folder / ".venv/bin").symlink_to(folder)


@contextmanager
def walking(walk: Walk) -> Iterator[Walk]:
    """A reader; commands that go on are ended with the context."""
    try:
        yield walk
    finally:
        walk.end()


def inherited() -> dict[str, str]:
    """The environment of this process without settings of a testbed, for processes of a test."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TESTBED_")}
    return own | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def _is_output(block: Block | None) -> bool:
    """Whether a block says what the block above it prints."""
    return block is not None and block.language == "text" and block.is_run


def _output_of(command: Sequence[str], shell: Shell, answer: str, label: str) -> tuple[str, int]:
    """Output and exit code of a process; without a terminal, passwords are read from `answer`."""
    with subprocess.Popen(
        command,
        cwd=shell.folder,
        env=shell.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(answer, timeout=WITHIN_S)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            output, _ = process.communicate()
            message = f"{label} did not end within {WITHIN_S:g} s; does it run until Ctrl-C?"
            raise AssertionError(f"{message}\n{output}") from None
    return output, process.returncode


def _signal(process: subprocess.Popen[bytes] | subprocess.Popen[str], number: int) -> None:
    """Send a signal to a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
