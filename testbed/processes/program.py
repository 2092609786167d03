"""The process of a prototype: its command, its output line by line, and its end."""

import asyncio
import os
import re
import shlex
import shutil
import signal
import sysconfig
from asyncio.subprocess import Process
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from broker.clock import Clock
from broker.errors import Invalid, Unknown
from broker.process import parent_death, tasks
from testbed.processes.child_process import INTERRUPTED_STOP_S
from testbed.processes.program_end import PrototypeOutcome, telling_lines

MOST_SHOWN_LINES = 200
LAST_LINES = 60
"""Last lines that are kept in memory: more than a stack of Node has."""
MOST_LINE_BYTES = 1_000
"""A longer line is cut; bytes without a line end count as a line once there are more."""
MOST_LOG_BYTES = 10 * 1024**2
CHUNK_BYTES = 64 * 1024
BYTES_PER_S = 1024**2
"""Rate at which output is read: a program that prints without end waits, and starves nobody."""
STOP_S = 5.0
"""From SIGTERM to SIGKILL."""
KILLED_S = 2.0
POLL_S = 0.05
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class PrototypeOutput:
    """The output of a program: its first lines are shown, its last ones are kept in memory."""

    def __init__(self, log: BinaryIO, show: Callable[[str], None]) -> None:
        """log: gets the first MOST_LOG_BYTES.  show: called with each of the first lines."""
        self.lines = 0
        self.last = deque[str](maxlen=LAST_LINES)
        self._log = log
        self._log_room = MOST_LOG_BYTES
        self._show = show
        self._rest = b""

    @property
    def is_cut(self) -> bool:
        """Whether there were more lines than are shown."""
        return self.lines > MOST_SHOWN_LINES

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the output."""
        self._log.write(chunk[: self._log_room])
        self._log_room = max(0, self._log_room - len(chunk))
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if self.is_cut:  # of very many lines only the last are looked at
            self.lines += len(lines[:-LAST_LINES])
            lines = lines[-LAST_LINES:]
        for line in lines:
            self._add(line)
        if len(self._rest) > MOST_LINE_BYTES:
            self.end()

    def end(self) -> None:
        """Take the bytes since the last line end as a line, if there are any."""
        if self._rest:
            self._add(self._rest)
        self._rest = b""

    def _add(self, line: bytes) -> None:
        newest = line.rstrip(b"\r").rpartition(b"\r")[2]  # of a progress bar
        text = _COLOURS.sub("", newest[:MOST_LINE_BYTES].decode(errors="replace")).expandtabs()
        self.lines += 1
        self.last.append(text)
        if not self.is_cut:
            self._show(text)
        elif self.lines == MOST_SHOWN_LINES + 1:
            self._show(f"… it prints more than {MOST_SHOWN_LINES} lines; no more are shown")


class PrototypeProcess:
    """A running prototype, and all processes of its group."""

    def __init__(self, process: Process, output: PrototypeOutput, clock: Clock) -> None:
        """Made by `start_prototype`."""
        self._process = process
        self._output = output
        self._clock = clock
        self._was_killed = False
        self._is_stopped = False
        self._own_exit_code: int | None = None
        self._is_read = asyncio.Event()

    @property
    def pid(self) -> int:
        """The id of the process, and of its group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process, None while it runs, negative for a signal."""
        return self._process.returncode

    @property
    def last_lines(self) -> tuple[str, ...]:
        """Its last lines so far, with the line that says its error."""
        return telling_lines(tuple(self._output.last))

    @property
    def outcome(self) -> PrototypeOutcome:
        """The process's end and output, once it was stopped."""
        return PrototypeOutcome(
            exit_code=self._own_exit_code,
            was_killed=self._was_killed,
            printed=self._output.lines,
            is_cut=self._output.is_cut,
            last_lines=self.last_lines,
        )

    async def read_output(self) -> None:
        """Read the output until its end, at BYTES_PER_S at most."""
        if self._process.stdout is None:
            raise TypeError("a prototype was started without a pipe")
        while chunk := await self._process.stdout.read(CHUNK_BYTES):
            self._output.feed(chunk)
            await self._clock.sleep(len(chunk) / BYTES_PER_S)
        self._output.end()
        self._is_read.set()

    async def stop(self, within_s: float = STOP_S) -> None:
        """End the process and its children: with SIGTERM, and after `within_s` with SIGKILL."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self._own_exit_code = self.exit_code
        if self.exit_code is None:
            self._send(signal.SIGTERM)
            self._was_killed = not await self._has_ended(within_s)
        self._send(signal.SIGKILL)  # to children that it left behind, too
        await self._has_ended(KILLED_S)
        await self.wait_read(KILLED_S)

    async def wait_read(self, within_s: float) -> None:
        """Return once all output of a process that has ended is read, or after `within_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._is_read.wait()

    def _send(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group that is still there."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _has_ended(self, within_s: float) -> bool:
        """Whether the process has ended within this time.

        Its exit code is looked at: in some versions of Python, `wait` waits for its children's end
        of the pipe as well.
        """
        waited_s = 0.0
        while self.exit_code is None and waited_s < within_s:
            await self._clock.sleep(POLL_S)
            waited_s += POLL_S
        return self.exit_code is not None


@asynccontextmanager
async def start_prototype(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    clock: Clock,
    show: Callable[[str], None],
    folder: Path | None = None,
) -> AsyncIterator[PrototypeProcess]:
    """Start a program in a process group of its own, and end the whole group on leaving.

    log: file that its output is added to.  environment: whole; its PATH finds the program.  show:
    called with each of its first lines.  folder: to start it in, None for the present one.  Raises
    Invalid if the program cannot be started.
    """
    with log.open("ab") as file:
        process = await _spawn(command, environment, folder)
        child = PrototypeProcess(process, PrototypeOutput(file, show), clock)
        within_s = STOP_S
        async with tasks.background({"output of the prototype": child.read_output()}):
            try:
                yield child
            except BaseException:
                within_s = INTERRUPTED_STOP_S
                raise
            finally:
                await asyncio.shield(child.stop(within_s))


async def _spawn(
    command: Sequence[str], environment: Mapping[str, str], folder: Path | None
) -> Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,  # Ctrl-C is for the command, which ends the group in order
            preexec_fn=parent_death.end_with_parent(os.getpid()),
        )
    except OSError as exc:
        raise Invalid(
            f"the command {command[0]!r} cannot be run: {exc.strerror}",
            hint="a script needs a first line such as #!/usr/bin/env python3; or name its"
            f" interpreter: python {command[0]}",
        ) from exc


def search_path(environment: Mapping[str, str]) -> str:
    """The PATH of a prototype: the caller's, and behind it the folder of this Python, which has the
    SDK: `python` is found where the caller has none.
    """
    return os.pathsep.join((environment.get("PATH", os.defpath), sysconfig.get_path("scripts")))


def checked_command(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command whose program exists; one word alone is split as a shell does it.

    Raises Invalid for no command, Unknown if there is no such program.
    """
    if len(words) == 1:
        try:
            words = shlex.split(words[0])
        except ValueError as exc:
            raise Invalid(
                f"the command {words[0]!r} is no line of a shell: {exc}", hint="close its quotes"
            ) from exc
    if not words:
        raise Invalid("no command is named", hint="such as: testbed try -- python my_prototype.py")
    program = words[0]
    if shutil.which(program, path=search_path(os.environ)) is None:
        if Path(program).is_file():
            raise Invalid(
                f"{program} is a file that cannot be executed",
                hint=f"name its interpreter: python {program}; or make it executable: chmod +x",
            )
        raise Unknown(
            f"the command {program!r} does not exist",
            hint="write it as in a shell, such as: python my_prototype.py",
        )
    return tuple(words)
