"""Decodes a DataChangeNotification into columns, without a Python object for each item.  Pure.

The form of an item is the set of its parts and the type of its value.  If all items of a
notification have one form of fixed size, numpy views them at a fixed stride.  If forms differ, one
pass finds the begin of each item, and the items of each form are gathered at once.  asyncua decodes
the values of other types, such as arrays and structures, one by one.

Time stamps keep their resolution of 100 ns; asyncua's own decoder would cut them to microseconds.
Picoseconds are ignored: asyncua's server puts them at another place than the standard.
Source: OPC UA Part 6, 5.2.2.16 (Variant) and 5.2.2.17 (DataValue).
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from asyncua import ua
from asyncua.common.utils import Buffer
from asyncua.ua.ua_binary import variant_from_binary

from broker.errors import Corrupt
from gateway.links.values import Instant

NO_TIME = -1
"""Stands for a time stamp that is missing, before 1970 or beyond int64."""
NOTHING, FLOAT, INT, BOOL, TIME, OTHER = range(6)
"""Kinds of values, which name the column of `DataChanges` with the value."""

_INFO_BITS, _OVERFLOW_BITS = np.uint32(0x0C80), np.uint32(0x0480)
"""The bits of a data value's information, and `Overflow` among them; Part 4, 7.39.1."""
_EPOCH_TICKS = 116_444_736_000_000_000
"""1970 in steps of 100 ns since 1601."""
_TICK_NS = 100
_INT64_MAX = 2**63 - 1
_LAST_TICKS = _EPOCH_TICKS + _INT64_MAX // _TICK_NS

_VALUE, _STATUS, _SOURCE, _SERVER, _SOURCE_PICO, _SERVER_PICO = 1, 2, 4, 8, 16, 32
_PARTS = 64
"""Encoding masks from here on have bits that the standard does not define."""
_TEXT = ua.VariantType.String.value
_NUMPY: dict[int, tuple[str, int]] = {
    ua.VariantType.Boolean.value: ("u1", BOOL),
    ua.VariantType.SByte.value: ("<i1", INT),
    ua.VariantType.Byte.value: ("<u1", INT),
    ua.VariantType.Int16.value: ("<i2", INT),
    ua.VariantType.UInt16.value: ("<u2", INT),
    ua.VariantType.Int32.value: ("<i4", INT),
    ua.VariantType.UInt32.value: ("<u4", INT),
    ua.VariantType.Int64.value: ("<i8", INT),
    ua.VariantType.UInt64.value: ("<u8", INT),
    ua.VariantType.Float.value: ("<f4", FLOAT),
    ua.VariantType.Double.value: ("<f8", FLOAT),
    ua.VariantType.DateTime.value: ("<i8", TIME),
}
_OF_INTS: dict[int, Callable[[Any], Any]] = {INT: int, BOOL: bool, TIME: Instant}
"""Kinds in the column of integers, with the type of such a value as a Python object."""
_COUNT = struct.Struct("<i")
_NO_FLOATS = np.empty(0, np.float64)
_NO_INTS = np.empty(0, np.int64)
_NO_OTHERS = np.empty(0, np.object_)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class DataChanges:
    """The data changes of one notification: n items in the order of the server.

    handle: uint32[n], client handles.  time_ns: int64[n], the source time stamp, else the server's,
    else NO_TIME.  status: uint32[n], 0 for none.  kind: uint8[n], the column of the value: floats:
    float64[n].  ints: int64[n], 0 or 1 for BOOL, ns since 1970 for TIME.  others: object[n],
    texts, integers beyond int64 and values that asyncua decoded.  A column that no item needs is
    empty; rows of other kinds are undefined.
    """

    handle: npt.NDArray[np.uint32]
    time_ns: npt.NDArray[np.int64]
    status: npt.NDArray[np.uint32]
    kind: npt.NDArray[np.uint8]
    floats: npt.NDArray[np.float64]
    ints: npt.NDArray[np.int64]
    others: npt.NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.handle)

    def __getitem__(self, rows: Any) -> Self:
        """Select items by a mask or an array of positions."""
        return type(self)(
            handle=self.handle[rows],
            time_ns=self.time_ns[rows],
            status=self.status[rows],
            kind=self.kind[rows],
            floats=self.floats[rows] if len(self.floats) else self.floats,
            ints=self.ints[rows] if len(self.ints) else self.ints,
            others=self.others[rows] if len(self.others) else self.others,
        )

    @property
    def overflowed(self) -> npt.NDArray[np.bool_]:
        """The items before which the server's queue dropped others, as its Overflow bit says."""
        overflowed: npt.NDArray[np.bool_] = (self.status & _INFO_BITS) == _OVERFLOW_BITS
        return overflowed

    def value(self, row: int) -> Any:
        """The value of one item as a Python object; None if it has none."""
        kind = self.kind[row]
        if kind == FLOAT:
            return float(self.floats[row])
        if kind in _OF_INTS:
            return _OF_INTS[kind](self.ints[row])
        return self.others[row] if kind == OTHER else None


def decode(body: bytes, begin: int, end: int) -> DataChanges:
    """Decode the notification whose body is at `begin` to `end` of `body`.

    Raises Corrupt, or the errors of numpy, struct and asyncua for invalid bytes.
    """
    (count,) = _COUNT.unpack_from(body, begin)
    at = begin + _COUNT.size
    if count * 5 > end - at:
        raise Corrupt(f"{count} items in {end - at} bytes")
    table = _ColumnBuilder(max(count, 0))
    if count > 0 and not _strided(table, body, at, end):
        _walked(table, body, at, end)
    return table.changes()


def instant_of(ticks: int) -> int:
    """Convert 100 ns steps since 1601 to ns since 1970."""
    return (ticks - _EPOCH_TICKS) * _TICK_NS


@dataclass(frozen=True, slots=True)
class _Form:
    """One form of items.  view: numpy dtype of all bytes of an item.  kind: of its value."""

    view: np.dtype[Any]
    kind: int


def _form(parts: int, variant: int) -> _Form:
    """The form with these parts and this type of value; 0 for no value."""
    code, kind = _NUMPY.get(variant, ("", NOTHING))
    fields = [("handle", "<u4"), ("parts", "u1")]
    if parts & _VALUE:
        fields.append(("variant", "u1"))
        if code:
            fields.append(("value", code))
    fields += _tail(parts)
    return _Form(np.dtype(fields), kind)


def _tail(parts: int) -> list[tuple[str, str]]:
    """The fields after a value.  Picoseconds are at the standard's places; see above."""
    tail = (
        (_STATUS, "status", "<u4"),
        (_SOURCE, "source", "<i8"),
        (_SOURCE_PICO, "source_pico", "<u2"),
        (_SERVER, "server", "<i8"),
        (_SERVER_PICO, "server_pico", "<u2"),
    )
    return [(name, code) for bit, name, code in tail if parts & bit]


def _forms() -> dict[int, _Form]:
    return {
        parts << 8 | variant: _form(parts, variant)
        for parts in range(_PARTS)
        for variant in (0, *_NUMPY)
        if parts & _VALUE or not variant
    }


_FORMS = _forms()
"""Forms by parts << 8 | type."""
_SIZES = {code: form.view.itemsize for code, form in _FORMS.items()}
_TAILS = [_Form(np.dtype(_tail(parts)), NOTHING) for parts in range(_PARTS)]
_HANDLE = np.dtype([("handle", "<u4")])


class _ColumnBuilder:
    """Builds the columns of a notification, form by form."""

    def __init__(self, count: int) -> None:
        self.handle = np.empty(count, np.uint32)
        self.time_ns = np.full(count, NO_TIME, np.int64)
        self.status = np.zeros(count, np.uint32)
        self.kind = np.zeros(count, np.uint8)
        self.floats, self.ints, self.others = _NO_FLOATS, _NO_INTS, _NO_OTHERS

    def put(self, rows: Any, items: npt.NDArray[Any], form: _Form) -> None:
        """Store items of one form, or the fields after their values."""
        names = items.dtype.names or ()
        if "handle" in names:
            self.handle[rows] = items["handle"]
        if "status" in names:
            self.status[rows] = items["status"]
        self.time_ns[rows] = _times(items, names)
        if "value" in names:
            self._put_values(rows, items["value"], form)

    def _put_values(self, rows: Any, values: npt.NDArray[Any], form: _Form) -> None:
        self.kind[rows] = form.kind
        if form.kind == FLOAT:
            if not len(self.floats):
                self.floats = np.zeros(len(self.kind), np.float64)
            self.floats[rows] = values
            return
        if not len(self.ints):
            self.ints = np.zeros(len(self.kind), np.int64)
        if form.kind == TIME:
            limit = _INT64_MAX // _TICK_NS
            fits = (values >= _EPOCH_TICKS - limit) & (values <= _LAST_TICKS)
            self.ints[rows] = np.where(fits, (values - _EPOCH_TICKS) * _TICK_NS, 0)
            instants = [Instant(instant_of(ticks)) for ticks in values[~fits].tolist()]
            self._put_beyond(rows, ~fits, instants)
        elif form.kind == BOOL:
            self.ints[rows] = values != 0
        else:
            self.ints[rows] = values.astype(np.int64)
            if values.dtype == np.uint64:
                beyond = values > _INT64_MAX
                self._put_beyond(rows, beyond, values[beyond].tolist())

    def _put_beyond(self, rows: Any, chosen: npt.NDArray[np.bool_], values: Sequence[int]) -> None:
        """Store integers beyond int64 as Python objects."""
        if values:
            places = np.arange(len(self.kind))[rows][chosen]
            for place, value in zip(places.tolist(), values, strict=True):
                self.put_other(place, value)

    def put_other(self, row: int, value: Any) -> None:
        """Store a value that no numpy column can hold."""
        if not len(self.others):
            self.others = np.empty(len(self.kind), np.object_)
        self.kind[row] = OTHER
        self.others[row] = value

    def changes(self) -> DataChanges:
        """The finished columns."""
        return DataChanges(
            handle=self.handle,
            time_ns=self.time_ns,
            status=self.status,
            kind=self.kind,
            floats=self.floats,
            ints=self.ints,
            others=self.others,
        )


def _times(items: npt.NDArray[Any], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """The source time stamp of each item, else the server's, else NO_TIME."""
    time_ns = np.full(len(items), NO_TIME, np.int64)
    for name in ("server", "source"):
        if name in names:
            ticks = items[name].astype(np.int64)
            usable = (ticks >= _EPOCH_TICKS) & (ticks <= _LAST_TICKS)
            time_ns = np.where(usable, (ticks - _EPOCH_TICKS) * _TICK_NS, time_ns)
    return time_ns


def _strided(table: _ColumnBuilder, body: bytes, at: int, end: int) -> bool:
    """Store all items at a fixed stride; False, and nothing is stored, if their forms differ."""
    count, parts = len(table.kind), body[at + 4]
    variant = body[at + 5] if parts & _VALUE else 0
    form = _FORMS.get(parts << 8 | variant)
    if form is None or count * form.view.itemsize > end - at:
        return False
    items = np.frombuffer(body, form.view, count, at)
    if not (items["parts"] == parts).all():
        return False
    if parts & _VALUE and not (items["variant"] == variant).all():
        return False
    table.put(slice(None), items, form)
    return True


def _walked(table: _ColumnBuilder, body: bytes, at: int, end: int) -> None:
    """Store the items by form, after one pass that finds the begin of each."""
    sizes = _SIZES
    fixed: dict[int, list[int]] = {}
    others: dict[int, list[int]] = {}
    for row in range(len(table.kind)):
        parts = body[at + 4]
        code = parts << 8 | body[at + 5] if parts & _VALUE else parts << 8
        size = sizes.get(code)
        if size is not None:
            places = fixed.get(code)
            if places is None:
                places = fixed[code] = []
            places += (row, at)
            at += size
        elif parts < _PARTS:
            tail = _other_value(table, row, body, at + 5)
            others.setdefault(parts, []).extend((row, at, tail))
            at = tail + _TAILS[parts].view.itemsize
        else:
            raise Corrupt(f"an item with the encoding {parts:#x}")
    if at > end:
        raise Corrupt("an item ends beyond its notification")
    raw = np.frombuffer(body, np.uint8)
    for code, places in fixed.items():
        rows, begins = np.array(places).reshape(-1, 2).T
        table.put(rows, _gathered(raw, begins, _FORMS[code].view), _FORMS[code])
    for parts, places in others.items():
        rows, begins, tails = np.array(places).reshape(-1, 3).T
        table.handle[rows] = _gathered(raw, begins, _HANDLE)["handle"]
        table.put(rows, _gathered(raw, tails, _TAILS[parts].view), _TAILS[parts])


def _gathered(
    raw: npt.NDArray[np.uint8], begins: npt.NDArray[np.intp], view: np.dtype[Any]
) -> npt.NDArray[Any]:
    """The records that begin at these offsets."""
    records: npt.NDArray[Any] = raw[begins[:, None] + np.arange(view.itemsize)]
    return records.view(view)[:, 0] if view.itemsize else np.empty(len(begins), view)


def _other_value(table: _ColumnBuilder, row: int, body: bytes, at: int) -> int:
    """Store a text, or a value that asyncua decodes; returns the offset of its end."""
    if body[at] != _TEXT:
        rest = Buffer(body, at)
        value = variant_from_binary(rest).Value
        if value is not None:
            table.put_other(row, value)
        return len(body) - len(rest)
    (length,) = _COUNT.unpack_from(body, at + 1)
    begin = at + 1 + _COUNT.size
    if length < 0:
        return begin
    table.put_other(row, body[begin : begin + length].decode("utf-8", "surrogateescape"))
    return begin + int(length)
