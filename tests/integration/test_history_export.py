"""Histories in files, from a real server."""

import csv
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import duckdb
import numpy as np
import orjson
import pytest

from broker.batch import BAD, GOOD, EquipmentKind, Gap, Series
from broker.clock import NS_PER_S, WallClock, ns_of, text_of
from broker.errors import Invalid, Refused, Taken, Unknown
from broker.history_query import HistoryQuery
from broker.namespace import StreamAddress
from broker.responses.streams import GapResponse
from broker.streams import Dtype, Signal, StreamSpec
from testbed.client import history, parquet
from testbed_api import service
from testbed_api.recorder.ledger import FlushEntries, Ledger, StreamEpoch
from testbed_api.registry.engine import open_engine
from testbed_api.settings import ServerSettings
from testbed_sdk import History
from tests.owners import founded

RIG = StreamAddress("factory", "pump-rig", "rig")
SPEC = StreamSpec(
    RIG,
    (
        Signal("Volume Flow"),
        Signal("it.is", Dtype.INT64),
        Signal("on", Dtype.BOOL),
        Signal("w", Dtype.STRING),
    ),
)
T0 = ns_of("2026-11-23T12:00:00.123456789Z")
BIG = 2**62 + 1


def series(dtype: object, *rows: tuple[int, object, int]) -> Series:
    times, values, quality = zip(*rows, strict=True)
    return Series(
        np.array(times, np.int64) + T0, np.array(values, dtype), np.array(quality, np.uint8)
    )


def found(*gaps: Gap) -> History:
    return History(
        SPEC,
        {
            "Volume Flow": series(np.float64, (0, 1.5, GOOD), (7, 0.0, BAD)),
            "it.is": series(np.int64, (7, BIG, GOOD)),
            "on": series(np.bool_, (0, True, GOOD), (9, False, GOOD)),
            "w": series(object, (9, "it's", GOOD)),
        },
        gaps,
    )


def test_a_parquet_file_keeps_dtypes_nanoseconds_and_what_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "o'ne.parquet"
    parquet.write(path, found())
    with duckdb.connect() as sql:
        read = sql.read_parquet(str(path))
        assert [str(each) for each in read.types] == [
            "TIMESTAMP_NS",
            "DOUBLE",
            "BIGINT",
            "BOOLEAN",
            "VARCHAR",
        ]
        assert read.columns == ["time", *SPEC.names]
        rows = sql.sql("SELECT epoch_ns(time), * EXCLUDE time FROM read").fetchall()
        assert rows == [
            (T0, 1.5, None, True, None),
            (T0 + 7, None, BIG, None, None),
            (T0 + 9, None, None, False, "it's"),
        ]


def test_a_parquet_file_has_a_list_for_each_array(tmp_path: Path) -> None:
    spec = StreamSpec(
        RIG,
        (
            Signal("spectrum", shape=(2,)),
            Signal("counts", Dtype.INT64, shape=(1,)),
            Signal("on", Dtype.BOOL, shape=(2,)),
            Signal("never", shape=(3,)),
        ),
    )
    nothing = Series(np.empty(0, np.int64), np.empty((0, 3)), np.empty(0, np.uint8))
    arrays = {
        "spectrum": series(np.float64, (0, [1 / 3, -1e-300], GOOD), (7, [np.nan] * 2, BAD)),
        "counts": series(np.int64, (7, [BIG], GOOD)),
        "on": series(np.bool_, (0, [True, False], GOOD)),
        "never": nothing,
    }
    path = tmp_path / "arrays.parquet"
    parquet.write(path, History(spec, arrays, ()))
    with duckdb.connect() as sql:
        read = sql.read_parquet(str(path))
        assert [str(each) for each in read.types[1:]] == [
            *("DOUBLE[]", "BIGINT[]", "BOOLEAN[]", "DOUBLE[]")
        ]
        assert read.fetchall()[0][1:] == ([1 / 3, -1e-300], None, [True, False], None)
        assert read.fetchall()[1][1:] == (None, [BIG], None, None)


def test_gaps_are_a_table_with_a_row_a_signal() -> None:
    gaps = [Gap(("a", "b, c"), T0, T0 + 1, "server-overflow"), Gap((), T0, T0, "gateway-down")]
    text = history.gaps_csv(map(GapResponse.from_gap, gaps)).decode()
    rows = list(csv.reader(text.splitlines()))
    assert rows == [
        ["from", "to", "cause", "signal"],
        [text_of(T0), text_of(T0 + 1), "server-overflow", "a"],
        [text_of(T0), text_of(T0 + 1), "server-overflow", "b, c"],
        [text_of(T0), text_of(T0), "gateway-down", ""],
    ]


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HistoryQuery]:
    """A server with a span of the rig's that holds nothing but a hole."""
    settings = ServerSettings(folder=tmp_path / "data", api_port=0, mqtt_port=0)
    async with service.serve(settings, WallClock()) as running:
        monkeypatch.setenv("TESTBED_API", f"http://{running.api}")
        async with founded(f"http://{running.api}", str(running.administrator)) as owners:
            door = owners.doors["factory"]
            monkeypatch.setenv("TESTBED_CREDENTIAL", owners.secret)
            await door.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)
            await door.register_spec(SPEC)
        async with open_engine(tmp_path / "data") as engine:
            hole = (StreamEpoch("live", RIG, "e"), None, Gap((), T0, T0 + 5, "gateway-down"))
            await Ledger(engine).commit(FlushEntries(gaps=[hole]))
        yield HistoryQuery("live", T0 - NS_PER_S, T0 + NS_PER_S)


@pytest.mark.parametrize("ending", history.ENDINGS)
async def test_every_kind_of_file_has_its_gaps_beside_it(
    server: HistoryQuery, tmp_path: Path, ending: str
) -> None:
    path = tmp_path / f"rig{ending}"
    files = await history.export(str(RIG), server, path)
    if ending == ".json":
        assert files == (path,)
        causes = [each["cause"] for each in orjson.loads(path.read_bytes())["gaps"]]
    else:
        assert files == (path, tmp_path / "rig.gaps.csv")
        causes = [row["cause"] for row in csv.DictReader(files[1].read_text().splitlines())]
    assert causes == ["gateway-down"]
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]  # noqa: PTH208
    with pytest.raises(Taken, match=path.name):
        await history.export(str(RIG), server, path)


async def test_without_duckdb_a_parquet_file_is_refused_with_what_to_install(
    server: HistoryQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.delitem(sys.modules, "testbed.client.parquet")
    monkeypatch.delattr("testbed.client.parquet")
    with pytest.raises(Refused, match="pip install duckdb"):
        await history.export(str(RIG), server, tmp_path / "rig.parquet")
    assert os.listdir(tmp_path) == ["data"]  # noqa: PTH208 - the server's folder


async def test_what_cannot_be_written_leaves_no_file(server: HistoryQuery, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no known ending"):
        await history.export(str(RIG), server, tmp_path / "rig.xlsx")
    with pytest.raises(Unknown, match="there is no stream factory/pump-rig/none"):
        await history.export("factory/pump-rig/none", server, tmp_path / "none.csv")
    assert os.listdir(tmp_path) == ["data"]  # noqa: PTH208 - the server's folder
