"""Turns a prototype's arrays into a frame, checked against the spec of its output."""

from collections.abc import Mapping, Sequence

import numpy as np

from broker.batch import BAD, GOOD, NO_VALUE, NUMPY, Column, Quality, Wide
from broker.errors import Invalid
from broker.streams import MOST_VALUES, StreamSpec


def frame_of(
    spec: StreamSpec,
    time_ns: object,
    values: Mapping[str, object],
    quality: Mapping[str, Sequence[int]],
) -> Wide:
    """Make a frame of samples that share their time stamps, checked against their spec.

    time_ns: one instant or n of them.  values: signal -> one value or n.  quality: signal -> n
    codes.  A NaN or an infinity is a bad sample without a value.
    """
    times = np.atleast_1d(np.asarray(time_ns))
    if times.dtype.kind not in "iu" or times.ndim != 1:
        raise Invalid(
            f"times of {spec.address} are {times.dtype}", hint="ns since 1970 as whole numbers"
        )
    columns = {name: _column(spec, name, column, len(times)) for name, column in values.items()}
    if len(times) * len(columns) > MOST_VALUES:
        raise Invalid(f"{len(times) * len(columns)} values at once", hint=f"at most {MOST_VALUES}")
    codes: dict[str, Quality] = {}
    for name, column in columns.items():
        stated = np.asarray(quality.get(name, [GOOD] * len(times)), np.uint8)
        if len(stated) != len(times) or (len(stated) and stated.max() > BAD):
            raise Invalid(f"quality of {name!r} is not one of 0, 1, 2 for each sample")
        lacking = ~np.isfinite(column) if column.dtype.kind == "f" else np.zeros(len(times), bool)
        codes[name] = np.where(lacking, np.uint8(BAD), stated)
        column[codes[name] == BAD] = NO_VALUE[spec.signal(name).dtype]
    not_good = {name: code for name, code in codes.items() if code.any()}
    return Wide(times.astype(np.int64), columns, not_good)


def _column(spec: StreamSpec, name: str, values: object, count: int) -> Column:
    """Convert a signal's values to its dtype, as a copy; raises Invalid."""
    dtype = NUMPY[spec.signal(name).dtype]
    column = np.atleast_1d(np.asarray(values, np.object_ if dtype.hasobject else None))
    if dtype.hasobject and not all(isinstance(text, str) for text in column.tolist()):
        raise Invalid(f"{name!r} of {spec.address} is not all text", hint="give strings")
    if not dtype.hasobject and not np.can_cast(column.dtype, dtype, "same_kind"):
        raise Invalid(f"{name!r} of {spec.address} is {column.dtype}", hint=f"give {dtype}")
    if column.ndim > 1:
        column_of = "table[:, 0]" if column.shape == (count, 1) else "one column of it"
        raise Invalid(
            f"{name!r} has the shape {column.shape}", hint=f"give {count} values: {column_of}"
        )
    if column.shape != (count,):
        raise Invalid(f"{name!r} has {len(column)} values for {count} times", hint="one for each")
    return column.astype(dtype)
