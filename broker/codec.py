"""Encodes batches as JSON and decodes them: readable with any JSON parser, safe for JavaScript.

An integer beyond ±2^53 is written as a decimal string.  A NaN or an infinity has no JSON: such a
sample is bad and its value null.  The value of an array signal is a list of its elements.  A
document is decoded in two steps, because its columns need a spec that the reader may not have yet:
`parse` checks the document itself, `fit` its columns against the spec.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import numpy as np
import orjson

from broker.batch import (
    BAD,
    MOST_BYTES,
    NO_VALUE,
    NUMPY,
    QUALITIES,
    Batch,
    Column,
    ColumnArray,
    Gap,
    Long,
    MayRepeat,
    Quality,
    Source,
    Times,
    Wide,
    column_dtype,
    put_cells,
)
from broker.clock import ns_of, text_of
from broker.errors import Corrupt, Invalid
from broker.json_values import (
    INT64,
    MOST_EXACT,
    PLAIN,
    Misfit,
    UnfitJson,
    arrays_in,
    arrays_out,
    elements_in,
    excerpt,
    integer_in,
    is_exact,
    plain,
    qualities_in,
    value_in,
    value_out,
)
from broker.streams import MOST_VALUES, ArrayOf, Dtype, StreamSpec, ValueType
from broker.wire import WIRE_VERSION, json_object

MOST_NAME = 40
FEW = 8
"""Below this many columns, encoding them together saves nothing."""

_BEYOND = "beyond the years 1678 to 2262"
_EPOCH_NAME = re.compile(r"[0-9A-Za-z-]{1,40}", re.ASCII)


# --- out ------------------------------------------------------------------------------------------


def encode(batch: Batch) -> bytes:
    """Encode a batch as a JSON document."""
    return stamped(body(batch), batch.pub_ns)


def body(batch: Batch, epoch: str | None = None, seq: int | None = None) -> bytes:
    """Encode a batch without its `pub`: what a spool stores, to be stamped at each sending.

    epoch, seq: the batch's number, if it has none of its own.
    """
    document: dict[str, Any] = {"spec": batch.spec_version}
    if epoch is not None or batch.epoch is not None:
        document["epoch"] = epoch or batch.epoch
        document["seq"] = seq or batch.seq
    document["source"] = batch.source
    if batch.input_ns is not None:
        document["input_t"] = text_of(batch.input_ns)
    if batch.may_repeat is not None:
        document["may_repeat"] = batch.may_repeat
    document["frames"] = [frame_to_json(frame) for frame in batch.frames]
    if batch.gaps:
        document["gaps"] = [gap_to_json(gap) for gap in batch.gaps]
    return dumps(document)


def stamped(rest: bytes, pub_ns: int) -> bytes:
    """Complete a body with the instant of this sending."""
    return b'{"v":%d,"pub":"%s",' % (WIRE_VERSION, text_of(pub_ns).encode()) + rest[1:]


def dumps(document: object) -> bytes:
    """JSON of an object that may hold columns, such as `frame_out` gives."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def frame_to_json(frame: Wide | Long) -> dict[str, Any]:
    """Return a frame as an object for `dumps`."""
    return _wide_out(frame) if isinstance(frame, Wide) else _long_out(frame)


def _wide_out(frame: Wide) -> dict[str, Any]:
    out: dict[str, Any] = _times_out(frame.time_ns)
    out["values"] = _table_out(frame) or {
        name: _column_out(column, frame.quality.get(name)) for name, column in frame.values.items()
    }
    worse = {name: _quality_out(codes) for name, codes in frame.quality.items() if codes.any()}
    if worse:
        out["quality"] = worse
    return out


def _table_out(frame: Wide) -> orjson.Fragment | None:
    """Encode float64 columns all at once, at a third of the cost; returns None for others."""
    values = frame.values
    if len(values) < FEW:
        return None
    if isinstance(values, ColumnArray):
        names, table = values.names, values.rows
    else:
        names, columns = tuple(values), list(values.values())
        if columns[0].ndim > 1 or {column.dtype for column in columns} != {NUMPY[Dtype.FLOAT64]}:
            return None
        try:
            table = np.concatenate(columns).reshape(len(columns), len(frame.time_ns))
        except ValueError:  # others are arrays
            return None
    if table.dtype != np.float64:
        return None
    if table.shape[1] == 1:  # a flat list is written in half the time of nested ones
        cells = orjson.dumps(np.ascontiguousarray(table[:, 0]), option=orjson.OPT_SERIALIZE_NUMPY)
        return orjson.Fragment(_template(names) % tuple(cells[1:-1].split(b",")))
    rows = orjson.dumps(np.ascontiguousarray(table), option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.Fragment(_template(names) % tuple(rows[2:-2].split(b"],[")))


@lru_cache(maxsize=1_000)
def _template(names: tuple[str, ...]) -> bytes:
    """Return a JSON object with a `[%b]` for the cells of each name."""
    keys = (orjson.dumps(name).replace(b"%", b"%%") for name in names)
    return b"{" + b",".join(key + b":[%b]" for key in keys) + b"}"


def _long_out(frame: Long) -> dict[str, Any]:
    out: dict[str, Any] = _times_out(frame.time_ns)
    out["signal"] = np.ascontiguousarray(frame.signal)
    out["value"] = _column_out(frame.values, frame.quality)
    if frame.quality.any():
        out["quality"] = _quality_out(frame.quality)
    return out


def _times_out(time_ns: Times) -> dict[str, Any]:
    start_ns = int(time_ns[0]) if len(time_ns) else 0
    if len(time_ns) == 1:
        return {"t0": text_of(start_ns), "dt": [0]}
    return {"t0": text_of(start_ns), "dt": _column_out(time_ns - start_ns, None)}


def _column_out(column: Column, quality: Quality | None) -> Column | list[Any]:
    """Return a column for orjson, which writes NaN as null: the array, or a list of values."""
    missing = quality is not None and bool((quality == BAD).any())
    if missing and column.ndim > 1:
        return arrays_out(column, quality)
    if column.dtype == np.float64:
        return np.ascontiguousarray(column)
    is_int = column.dtype == np.int64
    if not missing and (
        column.dtype == np.bool_ or (is_int and (len(column) == 0 or is_exact(column)))
    ):
        return np.ascontiguousarray(column)
    if column.ndim > 1:
        return arrays_out(column, None)
    values = [value_out(value) for value in column.tolist()]
    if missing and quality is not None:
        return [
            None if code == BAD else v for v, code in zip(values, quality.tolist(), strict=True)
        ]
    return values


def _quality_out(codes: Quality) -> list[str]:
    return [QUALITIES[code] for code in codes.tolist()]


def gap_to_json(gap: Gap) -> dict[str, Any]:
    """Return a gap as an object for `dumps`."""
    return {
        "signals": gap.signals,
        "from": text_of(gap.from_ns),
        "to": text_of(gap.to_ns),
        "cause": gap.cause,
    }


# --- in, first step: the document itself ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Document:
    """A batch whose head and gaps are checked, and whose frames are raw JSON."""

    spec_version: int
    pub_ns: int
    epoch: str | None
    seq: int | None
    source: Source
    input_ns: int | None
    frames: tuple[Any, ...]
    gaps: tuple[Gap, ...]
    may_repeat: MayRepeat | None = None


def parse(payload: bytes) -> Document:
    """Decode a document's head and gaps; raises Corrupt."""
    if len(payload) > MOST_BYTES:
        raise Corrupt(f"a batch of {len(payload)} bytes", hint=f"at most {MOST_BYTES}")
    raw = json_object(payload, "a batch")
    if raw.get("v") != WIRE_VERSION:
        raise Corrupt(
            f"a batch of wire version {raw.get('v')!r}", hint=f"this reads version {WIRE_VERSION}"
        )
    epoch, seq = _numbering(raw)
    frames = raw.get("frames", [])
    gaps = raw.get("gaps", [])
    if not isinstance(frames, list) or not isinstance(gaps, list):
        raise Corrupt("frames and gaps of a batch are not lists")
    return Document(
        spec_version=_whole(raw.get("spec"), "spec", 1),
        pub_ns=_instant(raw.get("pub"), "pub"),
        epoch=epoch,
        seq=seq,
        source=_source(raw.get("source")),
        input_ns=_instant(raw["input_t"], "input_t") if "input_t" in raw else None,
        frames=tuple(frames),
        gaps=tuple(gap_from_json(gap) for gap in gaps),
        may_repeat=_may_repeat(raw.get("may_repeat")),
    )


def _numbering(raw: Mapping[str, Any]) -> tuple[str | None, int | None]:
    if raw.get("epoch") is None and raw.get("seq") is None:
        return None, None
    epoch = raw.get("epoch")
    if not isinstance(epoch, str) or _EPOCH_NAME.fullmatch(epoch) is None:
        raise Corrupt(
            f"epoch {str(epoch)[:60]!r}", hint="1 to 40 letters, digits and '-', beside a seq"
        )
    return epoch, _whole(raw.get("seq"), "seq", 1)


def _whole(value: object, what: str, least: int) -> int:
    if type(value) is not int or not least <= value <= MOST_EXACT:
        raise Corrupt(f"{what} {str(value)[:60]!r}", hint=f"a whole number from {least} up")
    return value


def _instant(value: object, what: str) -> int:
    if not isinstance(value, str):
        raise Corrupt(
            f"{what} {str(value)[:60]!r}", hint="an instant as 2026-11-23T12:00:00.000000000Z"
        )
    try:
        return ns_of(value)
    except Invalid as exc:
        raise Corrupt(f"{what}: {exc.message}", hint=exc.hint) from exc


def _source(value: object) -> Source:
    try:
        return Source(value)  # type: ignore[arg-type]  # any JSON value may stand here, and is refused
    except ValueError as exc:
        raise Corrupt(f"source {str(value)[:60]!r}", hint=f"one of {', '.join(Source)}") from exc


def _may_repeat(value: object) -> MayRepeat | None:
    try:
        return None if value is None else MayRepeat(value)  # type: ignore[arg-type]  # as above
    except ValueError as exc:
        raise Corrupt(
            f"may_repeat {str(value)[:60]!r}", hint=f"one of {', '.join(MayRepeat)}, or left out"
        ) from exc


def gap_from_json(raw: object) -> Gap:
    """Decode a gap; raises Corrupt."""
    if not isinstance(raw, dict):
        raise Corrupt("a gap that is not an object")
    signals, cause = raw.get("signals"), raw.get("cause")
    if not isinstance(signals, list) or not all(isinstance(name, str) for name in signals):
        raise Corrupt("a gap without a list of signals")
    if not isinstance(cause, str) or len(cause) > MOST_NAME:
        raise Corrupt(
            f"a gap with cause {str(cause)[:60]!r}", hint=f"at most {MOST_NAME} characters"
        )
    gap = Gap(
        tuple(signals), _instant(raw.get("from"), "from"), _instant(raw.get("to"), "to"), cause
    )
    if gap.from_ns not in INT64 or gap.to_ns not in INT64:
        raise Corrupt(f"a gap from {raw['from']} to {raw['to']}: {_BEYOND}")
    if gap.from_ns > gap.to_ns:
        raise Corrupt(
            f"a gap from {raw['from']} to {raw['to']}", hint="it must not end before it begins"
        )
    return gap


# --- in, second step: against the spec ------------------------------------------------------------


def decode(payload: bytes, spec: StreamSpec) -> tuple[Batch, tuple[Misfit, ...]]:
    """Parse and fit in one call: `decode(encode(b), spec) == (b, ())`; raises Corrupt."""
    return fit(parse(payload), spec)


def fit(document: Document, spec: StreamSpec) -> tuple[Batch, tuple[Misfit, ...]]:
    """Decode a document's frames against its spec; returns the batch and the misfits.

    Raises Corrupt where the spec has another version, or the document more than MOST_VALUES values.
    """
    if document.spec_version != spec.version:
        raise Corrupt(f"a batch of spec {document.spec_version} read with spec {spec.version}")
    if spec.has_arrays and elements_in(document.frames, spec) > MOST_VALUES:
        raise Corrupt(
            "a batch of too many values",
            hint=f"at most {MOST_VALUES}, where each element of an array counts",
        )
    frames, misfits = frames_from_json(document.frames, spec)
    if sum(len(frame) for frame in frames) > MOST_VALUES:
        raise Corrupt("a batch of too many values", hint=f"at most {MOST_VALUES}")
    batch = Batch(
        spec_version=document.spec_version,
        frames=frames,
        source=document.source,
        pub_ns=document.pub_ns,
        epoch=document.epoch,
        seq=document.seq,
        gaps=document.gaps,
        input_ns=document.input_ns,
        may_repeat=document.may_repeat,
    )
    return batch, misfits


def frames_from_json(
    frames: Sequence[Any], spec: StreamSpec
) -> tuple[tuple[Wide | Long, ...], tuple[Misfit, ...]]:
    """Decode frames against their spec; returns the frames and the misfits."""
    fitting: list[Wide | Long] = []
    misfits: list[Misfit] = []
    for raw in frames:
        try:
            fitting += _frame_in(raw, spec, misfits)
        except UnfitJson as exc:
            misfits.append(Misfit(f"frame: {exc}", value=excerpt(raw)))
    return tuple(fitting), tuple(misfits)


def _frame_in(raw: object, spec: StreamSpec, misfits: list[Misfit]) -> Sequence[Wide | Long]:
    if not isinstance(raw, dict):
        raise UnfitJson(f"a JSON {type(raw).__name__}, not an object")
    return _wide_in(raw, spec, misfits) if "values" in raw else _long_in(raw, spec, misfits)


def _wide_in(raw: Mapping[str, Any], spec: StreamSpec, misfits: list[Misfit]) -> list[Wide]:
    time_ns = _times_in(raw)
    columns, qualities = raw["values"], raw.get("quality", {})
    if not isinstance(columns, dict) or not isinstance(qualities, dict):
        raise UnfitJson("values and quality are not objects")
    if not qualities and (table := _table_in(columns, len(time_ns), spec)) is not None:
        return [Wide(time_ns, table)]
    dtypes = dict(zip(spec.names, spec.dtypes, strict=True))
    whole: dict[str, Column] = {}
    whole_quality: dict[str, Quality] = {}
    partial: list[Wide] = []
    for name, column in columns.items():
        try:
            if name not in dtypes:
                raise UnfitJson("the spec has no such signal")
            values, quality, keep = _column_in(
                column, qualities.get(name), time_ns, dtypes[name], name, misfits
            )
        except UnfitJson as exc:
            misfits.append(Misfit(str(exc), signal=name[:80], value=excerpt(column)))
            continue
        if not keep.all():
            if keep.any():
                partial.append(Wide(time_ns[keep], {name: values[keep]}, {name: quality[keep]}))
            continue
        whole[name] = values
        if quality.any():
            whole_quality[name] = quality
    if whole or not columns:
        return [Wide(time_ns, whole, whole_quality), *partial]
    return partial


def _table_in(columns: Mapping[str, Any], count: int, spec: StreamSpec) -> ColumnArray | None:
    """Decode the columns of a float64 stream all at once; returns None if any is not plain."""
    if len(columns) < FEW or set(spec.dtypes) != {Dtype.FLOAT64} or not count:
        return None
    names, lists = tuple(columns), columns.values()
    if set(map(type, lists)) != {list} or set(map(len, lists)) != {count}:
        return None
    if names == spec.names:
        names = spec.names  # the same tuple, so that caches keyed by it hit
    elif not columns.keys() <= set(spec.names):
        return None
    cells = list(chain.from_iterable(lists))
    if set(map(type, cells)) != {float}:
        return None
    rows = np.array(cells, np.float64).reshape(len(columns), count)
    return ColumnArray(names, rows) if np.isfinite(rows).all() else None


def _long_in(raw: Mapping[str, Any], spec: StreamSpec, misfits: list[Misfit]) -> list[Long]:
    time_ns = _times_in(raw)
    signal, column, qualities = raw.get("signal"), raw.get("value"), raw.get("quality")
    if not isinstance(signal, list) or not set(map(type, signal)) <= {int}:
        raise UnfitJson("signal is not a list of indexes")
    if not isinstance(column, list) or not len(signal) == len(column) == len(time_ns):
        raise UnfitJson("dt, signal and value are not of one length")
    if qualities is not None and (not isinstance(qualities, list) or len(qualities) != len(column)):
        raise UnfitJson("quality and value are not of one length")
    if signal and not (min(signal) >= 0 and max(signal) < len(spec.signals)):
        raise UnfitJson(f"signal counts beyond the {len(spec.signals)} of the spec")
    dtypes = spec.dtypes
    index = np.array(signal, np.int32)
    values = np.empty(len(column), column_dtype(dtypes))
    if qualities is None and values.dtype == np.float64 and set(map(type, column)) == {float}:
        values[:] = column
        if np.isfinite(values).all():
            good = np.zeros(len(column), np.uint8)
            return [Long(time_ns, index, values, good, spec.names, dtypes)]
    quality, keep = np.zeros(len(column), np.uint8), np.ones(len(column), np.bool_)
    for at in np.unique(index).tolist():
        rows = np.flatnonzero(index == at)
        where = rows.tolist()
        own, quality[rows], keep[rows] = _column_in(
            [column[i] for i in where],
            None if qualities is None else [qualities[i] for i in where],
            time_ns[rows],
            dtypes[at],
            spec.names[at],
            misfits,
        )
        if own.ndim > 1:
            put_cells(values, rows, own)
        else:
            values[rows] = own
    frame = Long(time_ns[keep], index[keep], values[keep], quality[keep], spec.names, dtypes)
    return [frame] if len(frame) or not column else []


def _times_in(raw: Mapping[str, Any]) -> Times:
    offsets = raw.get("dt")
    if not isinstance(offsets, list):
        raise UnfitJson("dt is not a list of offsets in ns")
    try:
        start_ns = _instant(raw.get("t0"), "t0")
    except Corrupt as exc:
        raise UnfitJson(exc.message) from exc
    if not set(map(type, offsets)) <= {int}:
        offsets = [integer_in(dt, "dt") for dt in offsets]
    least, most = (min(offsets), max(offsets)) if offsets else (0, 0)
    if not all(ns in INT64 for ns in (start_ns, least, most, start_ns + least, start_ns + most)):
        raise UnfitJson(f"a time stamp {_BEYOND}")
    return np.array(offsets, np.int64) + start_ns


def _column_in(
    column: object,
    qualities: object,
    time_ns: Times,
    dtype: ValueType,
    name: str,
    misfits: list[Misfit],
) -> tuple[Column, Quality, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Decode a signal's values and quality, and a mask of usable ones; the others are misfits."""
    if not isinstance(column, list) or len(column) != len(time_ns):
        raise UnfitJson("dt and values are not of one length")
    if isinstance(dtype, ArrayOf):
        return arrays_in(column, qualities, time_ns, dtype, name, misfits)
    keep = np.ones(len(column), np.bool_)
    if qualities is None and set(map(type, column)) <= PLAIN[dtype]:
        values = plain(column, dtype)
        if dtype is not Dtype.FLOAT64 or np.isfinite(values).all():
            return values, np.zeros(len(column), np.uint8), keep
    codes = qualities_in(qualities, len(column))
    values = np.empty(len(column), NUMPY[dtype])
    for at, value in enumerate(column):
        try:
            values[at] = value_in(value, codes[at], dtype)
        except UnfitJson as exc:
            keep[at] = False
            values[at] = NO_VALUE[dtype]
            misfits.append(Misfit(str(exc), name, int(time_ns[at]), excerpt(value)))
    return values, np.array([max(code, 0) for code in codes], np.uint8), keep
