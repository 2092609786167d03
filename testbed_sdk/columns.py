"""Turns a prototype's arrays into a frame, checked against the spec of its output."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from broker.batch import BAD, GOOD, NO_VALUE, NUMPY, Column, Quality, Times, Wide, elements_of
from broker.clock import text_of
from broker.errors import Invalid
from broker.streams import MOST_VALUES, Signal, StreamSpec

EARLIEST_NS = 946_684_800 * 10**9
"""The year 2000: an earlier time was given in seconds, ms or us, and not in ns."""


def frame_of(
    spec: StreamSpec,
    time_ns: object,
    values: Mapping[str, object],
    quality: Mapping[str, Sequence[int]],
) -> Wide:
    """Make a frame of samples that share their time stamps, checked against their spec.

    time_ns: one instant or n of them.  values: signal -> one value or n; one is that of all n.
    An array signal takes one array of its elements, or n of them.  quality: signal -> n codes.  A
    NaN or an infinity, of an array in any element, is a bad sample without a value.
    """
    times = _times(spec, time_ns)
    columns = {name: _column(spec, name, column, len(times)) for name, column in values.items()}
    count = elements_of(Wide(times, columns)) if spec.has_arrays else len(times) * len(columns)
    if count > MOST_VALUES:
        raise Invalid(f"{count} values at once", hint=f"at most {MOST_VALUES}")
    codes: dict[str, Quality] = {}
    for name, column in columns.items():
        stated = np.asarray(quality.get(name, [GOOD] * len(times)), np.uint8)
        if len(stated) != len(times) or (len(stated) and stated.max() > BAD):
            raise Invalid(f"quality of {name!r} is not one of 0, 1, 2 for each sample")
        codes[name] = np.where(_lacking(column), np.uint8(BAD), stated)
        column[codes[name] == BAD] = NO_VALUE[spec.signal(name).dtype]
    not_good = {name: code for name, code in codes.items() if code.any()}
    return Wide(times, columns, not_good)


def _lacking(column: Column) -> npt.NDArray[np.bool_]:
    """Mask of the samples with a NaN or an infinity, in any element of an array."""
    if column.dtype.kind != "f":
        return np.zeros(len(column), np.bool_)
    lacking: npt.NDArray[np.bool_] = ~np.isfinite(column)
    return lacking if lacking.ndim == 1 else np.logical_or.reduce(lacking, axis=1)


def _times(spec: StreamSpec, time_ns: object) -> Times:
    """Convert time stamps to ns since 1970; raises Invalid for what cannot be meant as that."""
    times = np.atleast_1d(np.asarray(time_ns))
    if not times.size:
        return np.empty(0, np.int64)
    if times.ndim != 1:
        raise Invalid(f"times of {spec.address} have the shape {times.shape}", hint="give n times")
    if times.dtype.kind not in "iu" and times.dtype != np.dtype("datetime64[ns]"):
        raise Invalid(
            f"times of {spec.address} are {times.dtype}",
            hint="give ns since 1970 as whole numbers, such as time.time_ns(), or datetime64[ns];"
            ' of the index of a DataFrame: index.as_unit("ns").asi8',
        )
    times = times.astype(np.int64)
    earliest_ns = int(times.min())
    if earliest_ns < EARLIEST_NS:
        raise Invalid(
            f"a time of {spec.address} is {earliest_ns}, which in ns is {text_of(earliest_ns)}",
            hint="times are ns since 1970, and not before 2000: were seconds or ms given?"
            " time.time_ns() is now",
        )
    return times


def _column(spec: StreamSpec, name: str, values: object, count: int) -> Column:
    """Convert a signal's values to its dtype, as a copy; raises Invalid.

    count: number of samples, which one value alone is repeated for.
    """
    signal = spec.signal(name)
    dtype = NUMPY[signal.dtype]
    column = np.asarray(values, np.object_ if dtype.hasobject else None)
    if signal.shape and column.shape == signal.shape:
        column = np.broadcast_to(column, (count, *signal.shape))
    elif not column.ndim and not signal.shape:
        column = np.full(count, column[()], column.dtype)
    if not column.size:
        column = column.astype(dtype)  # an empty list is float64
    if dtype.hasobject and not all(isinstance(text, str) for text in column.tolist()):
        raise Invalid(f"{name!r} of {spec.address} is not all text", hint="give strings")
    if not dtype.hasobject and not np.can_cast(column.dtype, dtype, "same_kind"):
        raise Invalid(f"{name!r} of {spec.address} is {column.dtype}", hint=f"give {dtype}")
    if signal.shape:
        return _arrays(signal, column, count)
    if column.ndim > 1:
        column_of = "table[:, 0]" if column.shape == (count, 1) else "one column of it"
        raise Invalid(
            f"{name!r} has the shape {column.shape}", hint=f"give {count} values: {column_of}"
        )
    if column.shape != (count,):
        raise Invalid(f"{name!r} has {len(column)} values for {count} times", hint="one for each")
    return column.astype(dtype)


def _arrays(signal: Signal, column: Column, count: int) -> Column:
    """A copy of a column of arrays in the signal's dtype, [count, elements]; raises Invalid."""
    shape: tuple[int, ...] = (count, *signal.shape)
    if not column.size and not count:
        return np.empty(shape, NUMPY[signal.dtype])
    if column.shape != shape:
        raise Invalid(
            f"{signal.name!r} has the shape {column.shape}",
            hint=f"give the shape {shape}: {count} arrays of {shape[-1]} elements",
        )
    return column.astype(NUMPY[signal.dtype])
