"""Calls the functions of an FMU's library for co-simulation, through ctypes.

Only the child process loads this, and with it the FMU's code; standard library alone.
Source: FMI 2.0.4, 2.1 and 4.2; FMI 3.0.2, 2.2 and 4.2.
"""

import ctypes
import platform
import sys
from collections.abc import Callable, Sequence
from ctypes import (
    POINTER,
    byref,
    c_bool,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_size_t,
    c_uint32,
    c_void_p,
)
from pathlib import Path
from typing import Any

from simulators.fmu.wire import FUNCTIONS

STATUS = ("ok", "warning", "discard", "error", "fatal", "pending")
WARNING = 1
"""The highest status that is no error."""
FLOATS = (c_double, c_float)
MOST_LINE = 500
_FORMATTED_INTEGERS = 8
_TYPES_2: dict[str, tuple[str, Any]] = {
    "Real": ("Real", c_double),
    "Integer": ("Integer", c_int),
    "Enumeration": ("Integer", c_int),
    "Boolean": ("Boolean", c_int),
    "String": ("String", c_char_p),
}
_TYPES_3: dict[str, tuple[str, Any]] = {
    "Float64": ("Float64", c_double),
    "Float32": ("Float32", c_float),
    "Enumeration": ("Int64", ctypes.c_int64),
    "Boolean": ("Boolean", c_bool),
    "String": ("String", c_char_p),
    **{
        f"{sign}Int{bits}": (f"{sign}Int{bits}", getattr(ctypes, f"c_{sign.lower()}int{bits}"))
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
}
Variables = Sequence[tuple[str, int]]
"""FMI type and value reference of each."""
Called = Callable[[int], None]
"""Is told the index of a function before it is called."""


class CallFailed(Exception):
    """A function of the FMU returned a status that is an error."""

    def __init__(self, function: str, sentence: str) -> None:
        """sentence: what it did, such as `returned error`."""
        super().__init__(f"{function} {sentence}")
        self.function = function
        self.sentence = sentence


class Instance:
    """An instance of an FMU in co-simulation; the two versions of FMI differ below it."""

    prefix: str
    types: dict[str, tuple[str, Any]]

    def __init__(self, library: Path, called: Called) -> None:
        """Load the library.  Raises OSError if the loader refuses it or a function is missing."""
        self._called = called
        self._at("load")
        self._library = ctypes.CDLL(str(library))
        self._instance: Any = None
        self._step_size_s = 0.0
        self._step: Any = None

    def begin(self, name: str, token: str, resources: Path) -> None:
        """Instantiate; raises CallFailed."""
        raise NotImplementedError

    def initialise(self, period_s: float, inputs: Callable[[], None]) -> None:
        """Go through the initialisation, with `inputs` called inside it; raises CallFailed."""
        raise NotImplementedError

    def step(self, time_s: float) -> None:
        """Go on from `time_s` by one period; raises CallFailed."""
        raise NotImplementedError

    def end(self) -> None:
        """Terminate and free the instance."""
        self._call("terminate", self._function("Terminate", c_void_p), self._instance)
        self._at("freeInstance")
        self._function("FreeInstance", c_void_p, result=None)(self._instance)

    def readers(self, variables: Variables) -> Callable[[Any, int], None]:
        """A function that reads all variables into an array of float64, from an index on.

        Neighbours of one type are read in one call, 64-bit floats straight into their place.
        """
        runs = _runs(variables, self.types)
        reads = [self._reader(name, references, first) for name, references, first in runs]
        if len(reads) == 1:
            return reads[0]

        def read(block: Any, offset: int) -> None:
            for each in reads:
                each(block, offset)

        return read

    def _reader(self, name: str, references: list[int], first: int) -> Callable[[Any, int], None]:
        get = self._accessor("Get", name)
        ctype, count = self._ctype(name), len(references)
        before = (self._instance, (c_uint32 * count)(*references), count)
        values, after = (ctype * count)(), self._sizes(count)

        def read_in_place(block: Any, offset: int) -> None:
            status = get(*before, byref(block, (offset + first) * 8), *after)
            if status > WARNING:
                self._check("getOutput", status)

        def read(block: Any, offset: int) -> None:
            status = get(*before, values, *after)
            if status > WARNING:
                self._check("getOutput", status)
            start = offset + first
            block[start : start + count] = values[:]

        return read_in_place if ctype is c_double else read

    def writer(self, function: str, variable: tuple[str, int]) -> Callable[[float | str], None]:
        """A function that sets one variable.  function: the name that a failure goes under."""
        kind, reference = variable
        name, ctype = self.types[kind]
        sets = self._accessor("Set", name)
        values = (ctype * 1)()
        values_of = (self._instance, (c_uint32 * 1)(reference), 1, values, *self._sizes(1))

        def write(value: float | str) -> None:
            if ctype is c_char_p:
                values[0] = str(value).encode()
            else:
                values[0] = float(value) if ctype in FLOATS else int(value)
            self._call(function, sets, *values_of)

        return write

    def _accessor(self, verb: str, name: str) -> Any:
        sizes = [c_size_t for _ in self._sizes(1)]
        types = [c_void_p, POINTER(c_uint32), c_size_t, c_void_p, *sizes]
        return self._function(f"{verb}{name}", *types)

    def _ctype(self, name: str) -> Any:
        return next(ctype for each, ctype in self.types.values() if each == name)

    def _sizes(self, count: int) -> tuple[int, ...]:
        """The argument that FMI 3 has at the end of each get and set."""
        raise NotImplementedError

    def _function(self, name: str, *types: Any, result: Any = c_int) -> Any:
        try:
            function = self._library[self.prefix + name]
        except AttributeError as exc:
            raise OSError(f"it has no function {self.prefix}{name}") from exc
        function.argtypes = types
        function.restype = result
        return function

    def _at(self, function: str) -> None:
        self._called(FUNCTIONS.index(function))

    def _call(self, name: str, function: Any, *values: Any) -> None:
        self._at(name)
        self._check(name, function(*values))

    def _check(self, name: str, status: int) -> None:
        if status > WARNING or status < 0:
            word = STATUS[status] if 0 <= status < len(STATUS) else f"status {status}"
            raise CallFailed(name, f"returned {word}")


def _runs(
    variables: Variables, types: dict[str, tuple[str, Any]]
) -> list[tuple[str, list[int], int]]:
    """Neighbours of one type: its name in FMI's functions, their references, index of the first."""
    runs: list[tuple[str, list[int], int]] = []
    for index, (kind, reference) in enumerate(variables):
        name = types[kind][0]
        if runs and runs[-1][0] == name:
            runs[-1][1].append(reference)
        else:
            runs.append((name, [reference], index))
    return runs


def print_line(status: int, message: bytes | None) -> None:
    """Print a message of the FMU's log, cut, with its status."""
    text = (message or b"")[:MOST_LINE].decode(errors="replace").strip()
    word = STATUS[status] if 0 <= status < len(STATUS) else str(status)
    sys.stderr.write(f"{word}: {text}\n")
    sys.stderr.flush()


class Instance2(Instance):
    """FMI 2.0."""

    prefix = "fmi2"
    types = _TYPES_2

    def begin(self, name: str, token: str, resources: Path) -> None:
        """See `Instance`."""
        libc = ctypes.CDLL(None)
        allocate, free = libc.calloc, libc.free
        self._callbacks = _Callbacks2(
            _LOGGER_2(_log_2),
            ctypes.cast(allocate, c_void_p),
            ctypes.cast(free, c_void_p),
            None,
            None,
        )
        types = (c_char_p, c_int, c_char_p, c_char_p, c_void_p, c_int, c_int)
        instantiate = self._function("Instantiate", *types, result=c_void_p)
        location = resources.as_uri().encode()
        self._at("instantiate")
        self._instance = instantiate(
            name.encode(), 1, token.encode(), location, byref(self._callbacks), 0, 0
        )
        if not self._instance:
            raise CallFailed("instantiate", "gave no instance")

    def initialise(self, period_s: float, inputs: Callable[[], None]) -> None:
        """See `Instance`."""
        types = (c_void_p, c_int, c_double, c_double, c_int, c_double)
        set_up = self._function("SetupExperiment", *types)
        self._call("setupExperiment", set_up, self._instance, 0, 0.0, 0.0, 0, 0.0)
        enter = self._function("EnterInitializationMode", c_void_p)
        self._call("enterInitializationMode", enter, self._instance)
        inputs()
        leave = self._function("ExitInitializationMode", c_void_p)
        self._call("exitInitializationMode", leave, self._instance)
        self._step = self._function("DoStep", c_void_p, c_double, c_double, c_int)
        self._step_size_s = period_s

    def step(self, time_s: float) -> None:
        """See `Instance`."""
        status = self._step(self._instance, time_s, self._step_size_s, 1)
        if status > WARNING:
            self._check("doStep", status)

    def _sizes(self, count: int) -> tuple[int, ...]:
        del count
        return ()


class Instance3(Instance):
    """FMI 3.0, without event mode, early return and intermediate update."""

    prefix = "fmi3"
    types = _TYPES_3

    def begin(self, name: str, token: str, resources: Path) -> None:
        """See `Instance`."""
        self._log = _LOGGER_3(_log_3)
        strings, flags = (c_char_p,) * 3, (c_bool,) * 4
        types = (*strings, *flags, c_void_p, c_size_t, c_void_p, _LOGGER_3, c_void_p)
        instantiate = self._function("InstantiateCoSimulation", *types, result=c_void_p)
        location = f"{resources}/".encode()
        self._at("instantiate")
        self._instance = instantiate(
            *(name.encode(), token.encode(), location, *(0,) * 4),
            *(None, 0, None, self._log, None),
        )
        if not self._instance:
            raise CallFailed("instantiate", "gave no instance")

    def initialise(self, period_s: float, inputs: Callable[[], None]) -> None:
        """See `Instance`."""
        types = (c_void_p, c_bool, c_double, c_double, c_bool, c_double)
        enter = self._function("EnterInitializationMode", *types)
        self._call("enterInitializationMode", enter, self._instance, 0, 0.0, 0.0, 0, 0.0)
        inputs()
        leave = self._function("ExitInitializationMode", c_void_p)
        self._call("exitInitializationMode", leave, self._instance)
        flags, last = (c_void_p,) * 3, c_void_p
        self._step = self._function("DoStep", c_void_p, c_double, c_double, c_bool, *flags, last)
        self._events, self._ended, self._early = c_bool(), c_bool(), c_bool()
        self._last_s = c_double()
        out = (self._events, self._ended, self._early, self._last_s)
        self._out = tuple([byref(each) for each in out])
        self._step_size_s = period_s

    def step(self, time_s: float) -> None:
        """See `Instance`."""
        status = self._step(self._instance, time_s, self._step_size_s, 1, *self._out)
        if status > WARNING:
            self._check("doStep", status)
        if self._ended.value:
            raise CallFailed("doStep", "ended the simulation")

    def _sizes(self, count: int) -> tuple[int, ...]:
        return (count,)


class _Callbacks2(ctypes.Structure):
    """fmi2CallbackFunctions."""


_CAN_FORMAT = platform.machine() == "x86_64"
"""Where a function with a variable number of arguments reads them from is known for this one."""
_LOGGER_2 = ctypes.CFUNCTYPE(
    None,
    *(c_void_p, c_char_p, c_int, c_char_p, c_char_p),
    *(
        (c_void_p, *(c_double,) * 8, *(c_void_p,) * (_FORMATTED_INTEGERS - 1))
        if _CAN_FORMAT
        else ()
    ),
)
_LOGGER_3 = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p, c_char_p)
_Callbacks2._fields_ = [
    ("logger", _LOGGER_2),
    ("allocateMemory", c_void_p),
    ("freeMemory", c_void_p),
    ("stepFinished", c_void_p),
    ("componentEnvironment", c_void_p),
]


def _log_2(_: Any, __: Any, status: int, ___: Any, message: bytes | None, *values: Any) -> None:
    """Print a message of FMI 2, which is a format of printf with its values behind it.

    On x86-64 values in registers and on the stack are read as far as the format may use them: up to
    eight floats, and eight others (System V ABI, AMD64 supplement, 3.5.7).
    """
    if message is not None and b"%" in message and values:
        buffer = ctypes.create_string_buffer(MOST_LINE)
        first, floats, others = values[0], values[1:9], values[9:]
        ctypes.CDLL(None).snprintf(
            *(buffer, c_size_t(MOST_LINE), message, c_void_p(first)),
            *map(c_void_p, others[:2]),
            *map(c_double, floats),
            *map(c_void_p, others[2:]),
        )
        message = buffer.value
    print_line(status, message)


def _log_3(_: Any, status: int, __: Any, message: bytes | None) -> None:
    print_line(status, message)
