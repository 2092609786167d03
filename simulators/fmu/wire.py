"""The exchange between the testbed and the child process that holds an FMU.

Frames on the child's standard input and output: a byte of kind, four of length, then the content,
little-endian.  One exchange a quantum.  Where the FMU is stands in a small file that both map, so
that it is known after a crash.  Standard library alone, as the child loads it.
"""

import struct
from enum import IntEnum

HEADER = struct.Struct("<BI")
ADVANCE = struct.Struct("<II")
"""Number of rows, and of the inputs that follow as `INPUT`."""
INPUT = struct.Struct("<Id")
"""Index of an input, and its value."""
PLACE = struct.Struct("<QQ")
"""Index of the function that was called last, and of the row that it was for."""
LIMITS = "--limits"
"""Argument of the child that is to say what limits the machine lacks, and nothing else."""
MOST_ROWS = 10_000
"""Rows of one exchange."""

FUNCTIONS = (
    *("load", "instantiate", "setParameter", "setupExperiment", "enterInitializationMode"),
    *("setInput", "exitInitializationMode", "doStep", "getOutput", "terminate", "freeInstance"),
)
"""Names of functions by index; the first is the loading of the library, the others are FMI's."""


class Kind(IntEnum):
    """Kind of a frame."""

    START = 1
    """To the child: a JSON document with all that it needs to know."""
    ADVANCE = 2
    """To the child: `ADVANCE` and its inputs."""
    CLOSE = 3
    """To the child: end the FMU in order, and exit."""
    READY = 4
    """From the child: a JSON document with the limits that hold."""
    ROWS = 5
    """From the child: float64 values, a row after the other."""
    FAILED = 6
    """From the child: a JSON document about the call that failed."""


def missing(frame: bytes | bytearray) -> int:
    """Bytes that a frame lacks; negative if there are more than its own."""
    if len(frame) < HEADER.size:
        return HEADER.size - len(frame)
    _, length = HEADER.unpack_from(frame)
    return HEADER.size + int(length) - len(frame)
