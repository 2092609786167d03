"""Recordings of arrays: recorded, verified, read, exported and played as whole as they were."""

import csv
import json
import shutil

import duckdb
import numpy as np
import pandas as pd
import pytest
from asyncua import Client, ua

from broker.batch import GOOD, Series, Source, same_series
from broker.clock import WallClock
from broker.errors import Corrupt, Invalid
from broker.recordings import bundle, layout, parquet
from broker.recordings.manifest import LabelSignal
from simulators.faces import opcua
from testbed import recording_replay
from testbed.client import recording_files
from tests import recorded
from tests.recorded import ARRAY_SAMPLES, ARRAY_SPEC, RIG, SPECTRUM, T0

TABLE = layout.stream_file(RIG)
LATER = (-0.0, 5e-324, 1.7e308, *SPECTRUM[3:])


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return recorded.arrays(tmp_path_factory.mktemp("arrays") / "arrays")


def assert_same(recording):
    samples = recorded.read_series(recording.path, recording.manifest.streams[0])
    for name, each in ARRAY_SAMPLES.items():
        assert same_series(samples[name], each), name
        columns = samples[name][1], each[1]
        assert len({(column.dtype, column.shape) for column in columns}) == 1, name


def test_arrays_come_back_exactly(original):
    assert bundle.verify(original.path) == []
    assert original.manifest.streams[0].stream_spec() == ARRAY_SPEC
    assert_same(original)
    rows = list(parquet.read_rows(original.path, original.manifest.streams[0]))
    assert [row[0] - T0 for row in rows] == [0, 5, 6, 7]
    assert rows[0][1] == (SPECTRUM, None, (True, False, True), 0.5)
    assert rows[1][1] == (None, (-(2**63), 2**63 - 1), None, None)
    assert rows[3][1] == (LATER, None, None, None)


def test_pieces_of_arrays_make_the_same_table(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_CELLS", 30)
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 1)
    recording = recorded.arrays(tmp_path / "pieces")
    assert_same(recording)
    assert len(list(parquet.read_rows(recording.path, recording.manifest.streams[0]))) == 4


def test_a_recording_without_a_usable_array_is_read(tmp_path):
    with (
        bundle.create(tmp_path / "none", recorded.facts("none")) as writer,
        writer.stream(ARRAY_SPEC, Source.LIVE) as table,
    ):
        table.append({"spectrum": recorded.series(np.float64, (5, (np.nan,) * 16, 2))})
    opened = bundle.open_recording(tmp_path / "none")
    samples = recorded.read_series(opened.path, opened.manifest.streams[0])
    assert samples["spectrum"][1].shape == (1, 16)
    assert np.isnan(samples["spectrum"][1]).all()
    assert samples["edges"][1].shape == (0, 2)


def test_pandas_reads_an_array_as_a_list(original):
    frame = pd.read_parquet(original.path / TABLE)
    assert frame["spectrum"][0].tolist() == list(SPECTRUM)
    assert frame["edges"][1].tolist() == [-(2**63), 2**63 - 1]
    assert frame["doors"][0].tolist() == [True, False, True]
    assert frame["spectrum"].isna().tolist() == [False, True, True, False]
    assert frame["spectrum:quality"][1] == 2


def test_one_table_has_a_list_or_a_cell_of_json(original, tmp_path):
    recording_files.export(original.path, tmp_path / "it.parquet", [])
    frame = pd.read_parquet(tmp_path / "it.parquet")
    assert frame["spectrum"][3].tolist() == list(LATER)
    recording_files.export(original.path, tmp_path / "it.csv", [])
    with (tmp_path / "it.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert json.loads(rows[0]["spectrum"]) == list(SPECTRUM)
    assert json.loads(rows[3]["spectrum"]) == list(LATER)
    assert json.loads(rows[1]["edges"]) == [-(2**63), 2**63 - 1]
    assert json.loads(rows[0]["doors"]) == [True, False, True]
    assert (rows[1]["spectrum"], rows[1]["doors"], rows[0]["Level"]) == ("", "", "0.5")


async def test_arrays_reach_an_opc_ua_client(original):
    source = recording_replay.source([original.path], WallClock())
    seen = []
    async with opcua.serve_objects("Rig", source.objects) as face, Client(face.url) as client:
        index = await client.get_namespace_index(opcua.NAMESPACE)
        for row in source.rows():
            await face.offer([row])
            nodes = [client.get_node(ua.NodeId(f"Rig.{name}", index)) for name in ARRAY_SPEC.names]
            seen.append([await each.read_data_value(raise_on_bad_status=False) for each in nodes])
        assert await nodes[0].read_array_dimensions() == [16]
    assert seen[0][0].Value.Value == list(SPECTRUM)
    assert seen[0][2].Value.Value == [True, False, True]
    assert seen[1][0].StatusCode.value == ua.StatusCodes.Bad
    assert seen[1][1].Value.Value == [-(2**63), 2**63 - 1]
    assert seen[3][0].Value.Value == list(LATER)
    assert seen[3][0].StatusCode.value == ua.StatusCodes.Uncertain


def test_a_table_with_arrays_of_another_length_is_corrupt(original, tmp_path):
    path = shutil.copytree(original.path, tmp_path / "other")
    with duckdb.connect() as sql:
        shorter = f"* REPLACE (spectrum[:15] AS spectrum) FROM '{original.path / TABLE}'"
        sql.execute(f"COPY (SELECT {shorter}) TO '{path / TABLE}'")
    with pytest.raises(Corrupt, match="length 15 to array with length 16"):
        recorded.read_series(path, original.manifest.streams[0])


def test_an_array_is_no_label(tmp_path):
    labels = (LabelSignal(stream=str(RIG), signal="doors"),)
    with pytest.raises(Invalid, match="doors is an array"):
        recorded.arrays(tmp_path / "labelled", labels=labels)


def test_the_longest_arrays_are_recorded(tmp_path):
    spec = recorded.StreamSpec(RIG, (recorded.Signal("waveform", shape=(10_000,)),))
    values = np.random.default_rng(0).standard_normal((3, 10_000))
    samples = Series(T0 + np.arange(3, dtype=np.int64), values, np.full(3, GOOD, np.uint8))
    with (
        bundle.create(tmp_path / "long", recorded.facts("long")) as writer,
        writer.stream(spec, Source.LIVE) as table,
    ):
        table.append({"waveform": samples})
    opened = bundle.open_recording(tmp_path / "long")
    again = recorded.read_series(opened.path, opened.manifest.streams[0])["waveform"]
    assert np.array_equal(again.values, values)
