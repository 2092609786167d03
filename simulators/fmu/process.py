"""Starts the child process of an FMU, asks it for rows, and says how it ended.

Every wait has a bound in wall time.  The sentence about an end names the FMU, the function that it
was in and the time of the model.
"""

import json
import math
import mmap
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from broker.errors import Invalid, Unavailable
from simulators.fmu import archive, limits, wire
from simulators.fmu.description import FmuDescription
from simulators.fmu.wire import FUNCTIONS, Kind

HOST = "simulators.fmu.host"
"""The child's module, which nothing imports: it loads native code of others."""
MIB = 1 << 20
MOST_READ = 1 << 16
"""As much as a pipe holds; a larger buffer would cost more than it saves."""
CLOSES_WITHIN_S = 2.0
LIMITS_WITHIN_S = 20.0
NEARLY_ALL = 0.7
"""Share of the memory that a process may use from which its end is said to be for want of it: an
allocation that doubles fails long before all is used."""
MOST_LINES = 3
TAIL_BYTES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class FmuLimits:
    """Limits of an FMU's process.

    memory_bytes: address space, with that of the interpreter of some 50 MiB.  file_bytes: size of
    a file that it writes.  starts_within_s: wall time of loading and initialisation.
    answers_within_s: wall time of one exchange, however many rows it is for.
    """

    memory_bytes: int = 2048 * MIB
    file_bytes: int = 64 * MIB
    starts_within_s: float = 30.0
    answers_within_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FmuStart:
    """The values that an FMU starts with.

    parameters: (type, reference, value).  inputs: (index, value).
    """

    period_s: float
    parameters: Sequence[tuple[str, int, float | str]]
    inputs: Sequence[tuple[int, float]]


def missing_limits() -> tuple[str, ...]:
    """Sentences about the limits that this machine does not have for an FMU's process.

    A process of ours takes them on, and no FMU is loaded.  Raises Unavailable if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="testbed-fmu-") as folder:
        work = Path(folder) / "work"
        Path(folder).chmod(0o711)
        work.mkdir()
        try:
            done = subprocess.run(  # noqa: S603 - our own module, no shell
                [sys.executable, "-I", "-m", HOST, wire.LIMITS],
                capture_output=True,
                cwd=work,
                env=_environment(work),
                timeout=LIMITS_WITHIN_S,
                check=True,
            )
        except (subprocess.SubprocessError, OSError) as exc:
            raise Unavailable(
                f"the limits of this machine for FMUs cannot be told: {exc}",
                hint="an FMU runs in a process of its own, which this machine has to start",
            ) from exc
    return tuple(json.loads(done.stdout))


def limit_notes() -> list[str]:
    """Sentences for people before an FMU runs here, as `missing_limits` has them."""
    return [f"an FMU runs here without a limit: {each}" for each in missing_limits()]


class FmuProcess:
    """A running child process with its folder; `close` ends both."""

    def __init__(self, fmu: FmuDescription, start: FmuStart, most: FmuLimits) -> None:
        """Start the process and wait until the FMU is initialised; raises Invalid."""
        self._fmu = fmu
        self._start = start
        self._most = most
        self.refused: tuple[str, ...] = ()
        """Sentences about limits that this machine does not have."""
        self._folder = Path(tempfile.mkdtemp(prefix="testbed-fmu-"))
        self._place: mmap.mmap | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._wake = -1
        self._began_with = sys.maxsize
        """Most resident memory that the system counts for the child from before it was a process of
        its own, in bytes: that of this process.
        """
        try:
            self._launch()
        except BaseException:
            self.close(in_order=False)
            raise

    def advance(self, count: int, inputs: Mapping[int, float]) -> bytes:
        """The next `count` rows as float64, little-endian, a row after the other; raises Invalid.

        inputs: index -> value, set before the first of them.
        """
        content = wire.ADVANCE.pack(count, len(inputs)) + b"".join(
            wire.INPUT.pack(index, value) for index, value in inputs.items()
        )
        self._send(Kind.ADVANCE, content)
        return self._receive(Kind.ROWS, self._most.answers_within_s)

    def close(self, *, in_order: bool = True) -> None:
        """End the process and remove its folder; in_order: let the FMU end itself if it can."""
        child, self._child = self._child, None
        if child is not None:
            self._end(child, in_order=in_order)
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1
        if self._place is not None:
            self._place.close()
            self._place = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, child: subprocess.Popen[bytes], *, in_order: bool) -> None:
        """End the process and whatever it has started, and wait for it."""
        requests, answers = _pipes(child)
        if child.returncode is None:
            if in_order:
                with suppress(BrokenPipeError):
                    requests.write(wire.HEADER.pack(Kind.CLOSE, 0))
                    _readable(CLOSES_WITHIN_S, answers.fileno())  # it ends, and closes it
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # nobody has waited: the id is still its own
            child.wait()
        requests.close()
        answers.close()

    def _launch(self) -> None:
        unpacked, work = self._folder / "fmu", self._folder / "work"
        self._folder.chmod(0o711)  # the child may run as another user
        for folder in (unpacked, work):
            folder.mkdir()
        with archive.opened(self._fmu.path) as fmu:
            fmu.unpack(unpacked, _is_wanted(self._fmu))
        for path in (unpacked, work, *unpacked.rglob("*")):  # whatever this process's umask is
            path.chmod(0o755 if path.is_dir() else 0o644)
        place = self._folder / "place"
        place.write_bytes(bytes(wire.PLACE.size))
        with place.open("r+b") as file:
            self._place = mmap.mmap(file.fileno(), wire.PLACE.size)
        self._wake, wake = os.pipe()
        try:
            with (self._folder / "log").open("wb") as log:
                self._child = subprocess.Popen(  # noqa: S603 - our own module, no shell
                    [sys.executable, "-I", "-m", HOST],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    bufsize=0,
                    cwd=self._folder,
                    env=_environment(work),
                    pass_fds=[wake],
                    start_new_session=True,  # Ctrl-C is for the testbed
                )
        finally:
            os.close(wake)
        self._send(Kind.START, json.dumps(self._document(unpacked, work, place, wake)).encode())
        answer = json.loads(self._receive(Kind.READY, self._most.starts_within_s))
        self.refused = tuple(answer["refused"])
        self._began_with = int(answer["resident_bytes"])

    def _document(self, unpacked: Path, work: Path, place: Path, wake: int) -> dict[str, Any]:
        """The first frame: all that the child needs to know."""
        fmu, start, most = self._fmu, self._start, self._most
        return {
            "version": fmu.version,
            "name": fmu.identifier,
            "token": fmu.token,
            "library": str(unpacked / fmu.library),
            "resources": str(unpacked / "resources"),
            "unpacked": str(unpacked),
            "work": str(work),
            "place": str(place),
            "wake": wake,
            "parent": os.getpid(),
            "period_s": start.period_s,
            "outputs": [(each.type, each.reference) for each in fmu.outputs],
            "inputs": [(each.type, each.reference) for each in fmu.inputs],
            "parameters": start.parameters,
            "first_inputs": start.inputs,
            "memory_bytes": most.memory_bytes,
            "file_bytes": most.file_bytes,
            "starts_within_s": most.starts_within_s,
            "answers_within_s": most.answers_within_s,
        }

    def _send(self, kind: Kind, content: bytes) -> None:
        requests, _ = _pipes(self._running())
        try:
            requests.write(wire.HEADER.pack(kind, len(content)) + content)
        except BrokenPipeError:
            self._ended()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise Invalid(f"the FMU {self._fmu.name} has ended", hint="start it again")
        return self._child

    def _receive(self, expected: Kind, within_s: float) -> bytes:
        """The content of the next frame; raises Invalid for every other end of the wait."""
        deadline_s, frame = time.monotonic() + within_s, bytearray()
        missing = wire.HEADER.size
        while missing > 0:
            frame += self._part(deadline_s, within_s)
            missing = wire.missing(frame)
        kind, _ = wire.HEADER.unpack_from(frame)
        content = bytes(frame[wire.HEADER.size :])
        if kind == Kind.FAILED:
            self._failed(json.loads(content))
        if kind != expected or missing:
            self._fail("sent bytes that are no answer")
        return content

    def _part(self, deadline_s: float, within_s: float) -> bytes:
        """The bytes that come next; raises Invalid if there are none before the deadline."""
        answers = _pipes(self._running())[1].fileno()
        left_s = max(0.0, deadline_s - time.monotonic())
        ready = _readable(left_s, answers, self._wake)
        if not ready:
            self._fail(f"did not answer within {within_s:g} s", self._peak())
        # what was answered before the end comes first: the end makes both readable
        part = os.read(answers, MOST_READ) if answers in ready else b""
        if not part:
            self._ended()
        return part

    def _peak(self) -> int:
        return limits.peak_bytes(self._running().pid)

    def _ended(self) -> NoReturn:
        """Raise the error about a child that crashed, or that ended by itself."""
        child = self._running()
        peak = self._peak()
        crash = os.read(self._wake, 1) if _readable(0, self._wake) else b""
        os.killpg(child.pid, signal.SIGKILL)  # a crash waits for it; what has ended, it changes not
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        resident = usage.ru_maxrss * 1024
        if resident > self._began_with:  # else it is that of the process which started this one
            peak = max(peak, resident)
        number = crash[0] if crash else -child.returncode
        if number == signal.SIGXFSZ:
            self._fail(f"wrote more than {self._most.file_bytes // MIB} MiB into one file")
        if number == signal.SIGXCPU:
            self._fail(f"used more than {self._most.answers_within_s:g} s of CPU time")
        if number == signal.SIGKILL:
            self._fail("was killed", peak)
        if number > 0:
            self._fail(f"crashed ({signal.Signals(number).name})", peak)
        self._fail(f"ended by itself with exit code {-number}", peak)

    def _failed(self, document: Mapping[str, Any]) -> NoReturn:
        """Raise the error about a call that returned one."""
        if document["function"] == "load":
            raise Invalid(
                f"the FMU {self._fmu.name} cannot be loaded: {document['sentence']}",
                hint="is every library that it needs installed, and is it made for this machine?",
            )
        self._fail(str(document["sentence"]), int(document["peak_bytes"]))

    def _fail(self, sentence: str, peak_bytes: int = 0) -> NoReturn:
        """Raise Invalid with the FMU, the function, the time, and the last lines of its log."""
        assert self._place is not None  # noqa: S101 - for mypy: it was made before the child
        function, row = wire.PLACE.unpack(self._place[:])
        name = FUNCTIONS[function] if function < len(FUNCTIONS) else "an unknown function"
        where = f"in {name} at t={row * self._start.period_s:.10g} s"
        most = self._most.memory_bytes
        if peak_bytes > NEARLY_ALL * most:
            sentence = f"ran out of the {most // MIB} MiB of memory that it may use and {sentence}"
        lines = self._last_lines()
        hint = f"its log ends: {' / '.join(lines)}" if lines else "its log is empty"
        self.close(in_order=False)
        raise Invalid(f"the FMU {self._fmu.name} {sentence} {where}", hint=hint)

    def _last_lines(self) -> list[str]:
        """The last lines that the FMU logged or printed."""
        with (self._folder / "log").open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = log.read().decode(errors="replace")
        return [line.strip()[:200] for line in text.splitlines() if line.strip()][-MOST_LINES:]


def _pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    """Its standard input and output."""
    assert child.stdin is not None  # noqa: S101 - for mypy: both are pipes
    assert child.stdout is not None  # noqa: S101 - likewise
    return child.stdin, child.stdout


def _readable(within_s: float, *descriptors: int) -> set[int]:
    """Those that can be read, or that have ended, as soon as there is one; none after the time."""
    waiting = select.poll()  # `select` takes no descriptor above 1,023
    for each in descriptors:
        waiting.register(each, select.POLLIN)
    return {each for each, _ in waiting.poll(math.ceil(within_s * 1000))}


def _is_wanted(fmu: FmuDescription) -> Callable[[str], bool]:
    """Whether a member of the archive is needed to run: the binary's folder and the resources."""
    folders = (f"{fmu.library.rpartition('/')[0]}/", "resources/")
    return lambda name: name.startswith(folders)


def _environment(work: Path) -> dict[str, str]:
    """Nothing of the testbed's environment: it may hold credentials."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": str(work),
        "TMPDIR": str(work),
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
