"""The child process that holds an FMU: `python -m simulators.fmu.host`, started by `process`.

It gives up what it does not need, loads the library, and then answers frames (see `wire`) until
its standard input ends.  Whatever the FMU prints goes into the file that standard error is.
"""

import ctypes
import json
import mmap
import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from simulators.fmu import limits, wire
from simulators.fmu.binding import CallFailed, Instance, Instance2, Instance3
from simulators.fmu.wire import Kind

_VERSIONS: dict[str, type[Instance]] = {"2": Instance2, "3": Instance3}
MOST_READ = 1 << 16
DO_STEP, GET_OUTPUT = map(wire.FUNCTIONS.index, ("doStep", "getOutput"))


class Host:
    """The FMU, and the two pipes to the testbed."""

    def __init__(self, source: int, sink: int, start: dict[str, Any], place: mmap.mmap) -> None:
        self._source = source
        self._sink = sink
        self._start = start
        self._function = ctypes.c_uint64.from_buffer(place, 0)
        self._row = ctypes.c_uint64.from_buffer(place, 8)
        self._period_s = float(start["period_s"])
        self._inputs: Sequence[tuple[str, int]] = [(kind, ref) for kind, ref in start["inputs"]]
        self._outputs = [(kind, ref) for kind, ref in start["outputs"]]
        self._writers: Sequence[Callable[[float | str], None]] = ()
        self._read: Callable[[Any, int], None] = lambda *_: None
        self._rows = 0

    def begin(self) -> Instance:
        """Load and initialise the FMU; raises CallFailed or OSError."""
        start = self._start
        instance = _VERSIONS[start["version"]](Path(start["library"]), self._called)
        instance.begin(start["name"], start["token"], Path(start["resources"]))
        for kind, reference, value in start["parameters"]:
            instance.writer("setParameter", (kind, reference))(value)
        self._writers = [instance.writer("setInput", each) for each in self._inputs]
        first = [(int(index), float(value)) for index, value in start["first_inputs"]]
        instance.initialise(self._period_s, lambda: self._set(first))
        self._read = instance.readers(self._outputs)
        return instance

    def advance(self, instance: Instance, content: bytes) -> bytes:
        """Compute rows: inputs are set, then each row is a step and a reading; raises CallFailed.

        The first row of all is the FMU after its initialisation, at time 0.
        """
        count, changes = wire.ADVANCE.unpack_from(content)
        first, last = self._rows, self._rows + count
        self._row.value = first
        pairs = wire.INPUT.iter_unpack(content[wire.ADVANCE.size :]) if changes else ()
        self._set(list(pairs))
        width = len(self._outputs)
        block = (ctypes.c_double * (count * width))()
        read, step, period_s = self._read, instance.step, self._period_s
        for offset, row in enumerate(range(first, last)):
            self._row.value = row
            if row:
                self._function.value = DO_STEP
                step((row - 1) * period_s)
            self._function.value = GET_OUTPUT
            read(block, offset * width)
        self._rows = last
        return bytes(block)

    def serve(self) -> None:
        """Answer frames until the end of the pipe, or until a call has failed."""
        try:
            instance = self.begin()
            ready = {"refused": self._start["refused"], "resident_bytes": self._start["resident"]}
            self.send(Kind.READY, json.dumps(ready).encode())
            while (frame := self.receive()) is not None:
                kind, content = frame
                if kind == Kind.CLOSE:
                    instance.end()
                    return
                limits.limit_cpu(self._start["answers_within_s"])
                self.send(Kind.ROWS, self.advance(instance, content))
        except CallFailed as exc:
            self._fail(exc.function, exc.sentence)
        except OSError as exc:
            self._fail("load", str(exc))

    def receive(self) -> tuple[int, bytes] | None:
        """The next frame; None at the end of the pipe."""
        frame = _frame(self._source)
        if wire.missing(frame):
            return None
        kind, _ = wire.HEADER.unpack_from(frame)
        return kind, frame[wire.HEADER.size :]

    def send(self, kind: Kind, content: bytes) -> None:
        """Send a frame."""
        frame = memoryview(wire.HEADER.pack(kind, len(content)) + content)
        while frame:
            frame = frame[os.write(self._sink, frame) :]

    def _called(self, function: int) -> None:
        self._function.value = function

    def _set(self, pairs: Sequence[tuple[int, float]]) -> None:
        for index, value in pairs:
            self._writers[index](value)

    def _fail(self, function: str, sentence: str) -> None:
        """Tell of the failure, with the memory that was used before."""
        document = {
            "function": function,
            "sentence": sentence,
            "peak_bytes": limits.peak_bytes("self"),
        }
        self.send(Kind.FAILED, json.dumps(document).encode())


def main() -> None:
    """Read the first frame, take on the limits, and serve."""
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # a print of the FMU is no frame
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - no path
        os.dup2(nothing.fileno(), 0)
    start = json.loads(_frame(source)[wire.HEADER.size :])
    with Path(start["place"]).open("r+b") as file:
        place = mmap.mmap(file.fileno(), wire.PLACE.size)
    work, unpacked = Path(start["work"]), Path(start["unpacked"])
    os.chdir(work)
    confinement = limits.Confinement()
    confinement.apply(readable=[unpacked], writable=work, parent=start["parent"])
    start["refused"] = confinement.refused
    start["resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    limits.limit_resources(memory_bytes=start["memory_bytes"], file_bytes=start["file_bytes"])
    limits.limit_cpu(start["starts_within_s"])
    limits.report_crashes(start["wake"])
    Host(source, sink, start, place).serve()
    os._exit(0)  # nothing of the FMU runs at the end


def print_missing_limits() -> None:
    """Take on the limits in the present folder, as an FMU's process does, and print what the
    machine refused; no FMU is loaded.
    """
    confinement = limits.Confinement()
    confinement.apply(readable=[], writable=Path.cwd(), parent=os.getppid())
    print(json.dumps(confinement.refused))  # noqa: T201 - to the process that asked


def _frame(source: int) -> bytes:
    """Read a frame, of which there is never more than one; incomplete at the end of the pipe."""
    frame = bytearray()
    while wire.missing(frame) > 0 and (part := os.read(source, MOST_READ)):
        frame += part
    return bytes(frame)


if __name__ == "__main__":
    sys.stderr.reconfigure(line_buffering=True)  # type: ignore[union-attr] # it is a file's
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.argv[1:] == [wire.LIMITS]:
        print_missing_limits()
    else:
        main()
