"""Arrays in a history as JSON and CSV."""

import csv
from collections.abc import AsyncIterator

import numpy as np
import orjson

from broker.batch import BAD, GOOD, Long, no_value
from broker.namespace import StreamAddress
from broker.streams import Dtype, Signal, StreamSpec
from testbed_api.http.history_format import as_csv, as_json
from testbed_api.stores.port import Window

SPEC = StreamSpec(
    StreamAddress("factory", "mill", "spindle"),
    (Signal("speed"), Signal("counts", Dtype.INT64, shape=(2,)), Signal("on", Dtype.BOOL)),
)
WINDOW = Window("live", SPEC, SPEC.names, 0, 10)


async def frames() -> AsyncIterator[Long]:
    values = np.empty(4, np.object_)
    cells = [(1, 2**60), True, no_value(SPEC.dtypes[1]), 2.5]
    for at, cell in enumerate(cells):
        values[at] = cell
    quality = np.array([GOOD, GOOD, BAD, GOOD], np.uint8)
    signal = np.array([1, 2, 1, 0], np.int32)
    yield Long(np.array([1, 1, 2, 3]), signal, values, quality, SPEC.names, SPEC.dtypes)


async def test_an_array_is_a_list_in_json() -> None:
    text = b"".join([chunk async for chunk in as_json(WINDOW, frames(), [])])
    (frame,) = orjson.loads(text)["frames"]
    assert frame["value"] == [[1, str(2**60)], True, None, 2.5]
    assert frame["quality"] == ["good", "good", "bad", "good"]


async def test_an_array_is_a_json_list_in_one_cell_of_csv() -> None:
    text = b"".join([chunk async for chunk in as_csv(WINDOW, frames())]).decode()
    rows = list(csv.reader(text.splitlines()))
    assert [row[1:] for row in rows] == [
        ["speed", "counts", "on"],
        ["", f"[1,{2**60}]", "true"],
        ["", "", ""],
        ["2.5", "", ""],
    ]
