"""Recordings as folders, files and tables: byte for byte what was recorded, or refused."""

import hashlib
import io
import os
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from broker.batch import GOOD, Series, Source, same_series
from broker.clock import NS_PER_S, text_of
from broker.errors import Corrupt, Invalid, Taken, Unavailable, Unknown
from broker.recordings import archive, bundle, joined_table, layout, parquet, tar_stream
from broker.recordings.bundle import OpenRecording
from broker.recordings.manifest import LabelSignal
from testbed.client import recording_files
from tests import recorded
from tests.recorded import BIG, GAPS, RIG, SAMPLES, SPEC, T0
from tests.services import disk

TABLE = layout.stream_file(RIG)
FILES = (layout.MANIFEST, layout.CARD, layout.GAPS, layout.CHECKSUMS, TABLE)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> OpenRecording:
    return recorded.every_kind(tmp_path_factory.mktemp("recordings") / "it's one", split="70/15/15")


@pytest.fixture
def copied(original: OpenRecording, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original.path, tmp_path / "copied"))


def test_values_qualities_and_gaps_come_back_exactly(original):
    stream = original.manifest.streams[0]
    samples = recorded.read_series(original.path, stream)
    assert samples.keys() == SAMPLES.keys()
    for name, each in SAMPLES.items():
        assert same_series(samples[name], each), name
        assert samples[name][1].dtype == each[1].dtype
    before, after = (each["Volume Flow"][1][[0, 2, 3]] for each in (SAMPLES, samples))
    assert np.array_equal(before.view(np.int64), after.view(np.int64))
    assert recorded.read_gaps(original.path) == [(RIG, gap) for gap in GAPS]
    assert stream.stream_spec() == SPEC
    assert (stream.rows, stream.samples) == (6, 10)
    assert (stream.first, stream.last) == (text_of(T0), text_of(T0 + 11))


def test_pieces_make_the_same_table_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "MOST_CELLS", 10)
    with (
        bundle.create(tmp_path / "pieces", recorded.facts("pieces")) as writer,
        writer.stream(SPEC, Source.LIVE) as table,
    ):
        for begin, end in ((0, 7), (7, 9), (9, 20)):
            table.append(
                {
                    name: Series(*(column[inside] for column in each))
                    for name, each in SAMPLES.items()
                    for inside in [(each.time_ns >= T0 + begin) & (each.time_ns < T0 + end)]
                }
            )
        with pytest.raises(Invalid, match="order of time"):
            table.append({"time": SAMPLES["time"]})
        with pytest.raises(Invalid, match="infinity"):
            table.append({"time": recorded.series(np.bool_, (2**63 - 1 - T0, True, GOOD))})
    pieces = bundle.open_recording(tmp_path / "pieces")
    samples = recorded.read_series(pieces.path, pieces.manifest.streams[0])
    assert all(same_series(samples[name], each) for name, each in SAMPLES.items())


def test_it_is_read_with_nothing_of_ours(original):
    path = str(original.path / TABLE)
    with duckdb.connect() as sql:
        rows = sql.execute(
            'SELECT epoch_ns(time), "Volume Flow", "Volume Flow:quality", "volume flow:2", split'
            " FROM read_parquet(?)",
            [path],
        ).fetchall()
        assert rows[:2] == [(T0, 1.5, 0, None, "train"), (T0 + 7, None, 2, BIG, "train")]
        kinds = dict(
            sql.execute("SELECT name, logical_type FROM parquet_schema(?)", [path]).fetchall()
        )
        assert "isAdjustedToUTC=1" in kinds["time"]
        assert "NANOS" in kinds["time"]
    frame = pd.read_parquet(path)
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"
    assert frame["time"].astype("int64").tolist() == [T0 + at for at in (0, 7, 8, 9, 10, 11)]
    assert frame["Volume Flow"].dropna().tolist() == [1.5, 0.1 + 0.2, -0.0]
    gaps = pd.read_parquet(original.path / layout.GAPS)
    assert gaps["signal"].tolist()[:2] == ["w", "never"]
    assert gaps["from"].astype("int64").tolist() == [T0 + 1, T0 + 1, T0]
    listing = (original.path / layout.CHECKSUMS).read_text()
    for line in listing.splitlines():
        sha256, _, name = line.partition("  ")
        assert hashlib.sha256((original.path / name).read_bytes()).hexdigest() == sha256
    assert hashlib.sha256(listing.encode()).hexdigest() == original.sha256


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_wherever_it_is(copied, name):
    file = copied / name
    content = file.read_bytes()
    places = {0, len(content) - 1, *range(0, len(content), max(1, len(content) // 23))}
    for at in places:
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        changed = bundle.verify(copied)
        assert changed, (name, at)
        assert name == layout.CHECKSUMS or [each.path for each in changed] == [name]
        with pytest.raises(Invalid, match="not as it was recorded"):
            bundle.open_recording(copied)
    file.write_bytes(content)
    assert bundle.verify(copied) == []


def test_a_file_that_is_missing_added_or_a_link_is_named(copied, tmp_path):
    (copied / "notes.txt").write_text("mine")
    assert [each.path for each in bundle.verify(copied)] == ["notes.txt"]
    (copied / "notes.txt").unlink()
    (copied / layout.GAPS).rename(tmp_path / "elsewhere")
    assert [str(each) for each in bundle.verify(copied)] == ["gaps.parquet: it is missing"]
    (copied / layout.GAPS).symlink_to(tmp_path / "elsewhere")
    assert "no regular file" in str(bundle.verify(copied)[0])
    (copied / layout.CHECKSUMS).unlink()
    with pytest.raises(Invalid, match="is no recording"):
        bundle.verify(copied)
    with pytest.raises(Unknown, match="there is no recording"):
        bundle.verify(tmp_path / "nowhere")


def test_another_recording_under_a_known_hash_is_told(original):
    assert recording_files.verified(original.path, original.sha256.upper()) == []
    (difference,) = recording_files.verified(original.path, "0" * 64)
    assert original.sha256 in difference.problem


def test_a_table_that_the_manifest_does_not_describe_is_corrupt(original, tmp_path):
    shutil.copytree(original.path, tmp_path / "other")
    (tmp_path / "other" / TABLE).write_bytes(b"no Parquet")
    with pytest.raises(Corrupt, match=r"rig\.parquet is not the table"):
        recorded.read_series(tmp_path / "other", original.manifest.streams[0])
    (tmp_path / "other" / layout.GAPS).write_bytes(b"")
    with pytest.raises(Corrupt, match=r"gaps\.parquet"):
        recorded.read_gaps(tmp_path / "other")


def test_what_breaks_off_leaves_nothing(tmp_path):
    with pytest.raises(Unavailable, match="the broker went away"):
        record_and_break_off(tmp_path / "half")
    with (
        pytest.raises(Invalid, match="no stream in it"),
        bundle.create(tmp_path / "empty", recorded.facts("empty")),
    ):
        pass
    labels = (LabelSignal(stream=str(RIG), signal="anomaly"),)
    with pytest.raises(Invalid, match="has no signal 'anomaly'"):
        recorded.every_kind(tmp_path / "wrong", labels=labels)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    (tmp_path / "taken").mkdir()
    with pytest.raises(Taken), bundle.create(tmp_path / "taken", recorded.facts("taken")):
        pass
    with pytest.raises(Unknown), bundle.create(tmp_path / "no" / "x", recorded.facts("x")):
        pass


def record_and_break_off(path):
    with (
        bundle.create(path, recorded.facts(path.name)) as writer,
        writer.stream(SPEC, Source.LIVE) as table,
    ):
        table.append(SAMPLES)
        raise Unavailable("the broker went away")


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    random = np.random.default_rng(0)
    with disk.small(tmp_path / "disk", 2 * 1024 * 1024) as folder:
        times = T0 + np.arange(400_000, dtype=np.int64)
        values = random.standard_normal(len(times))
        samples = Series(times, values, np.full(len(times), GOOD, np.uint8))
        with pytest.raises(Unavailable, match=r"disk of .* is full"):
            record_all(folder / "big", samples)
        assert os.listdir(folder) == []  # noqa: PTH208


def record_all(path, samples):
    with (
        bundle.create(path, recorded.facts(path.name)) as writer,
        writer.stream(SPEC, Source.LIVE) as table,
    ):
        table.append({"Volume Flow": samples})


# --- one file -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packed(original: OpenRecording, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("packed") / "it.zip"
    archive.pack(original, path)
    return path.read_bytes()


def test_a_zip_file_brings_the_same_recording(original, packed, tmp_path):
    path = tmp_path / "it.zip"
    archive.pack(original, path)
    assert path.read_bytes() == packed
    with pytest.raises(Taken):
        archive.pack(original, path)
    unpacked = archive.unpack(path, tmp_path / "unpacked")
    assert unpacked.sha256 == original.sha256
    assert unpacked.manifest == original.manifest
    assert bundle.verify(unpacked.path) == []
    with pytest.raises(Taken):
        archive.unpack(path, tmp_path / "unpacked")
    with pytest.raises(Unknown):
        archive.unpack(tmp_path / "nowhere.zip", tmp_path / "new")


def zipped(packed: bytes, change) -> bytes:
    """The archive with other files: `change` gets name and content, and yields pairs."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(packed)) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            for name, content in change(entry.filename, source.read(entry)):
                target.writestr(name, content)
    return buffer.getvalue()


def with_file(name: str, content: bytes):
    def change(each: str, before: bytes):
        yield each, before
        if each == layout.MANIFEST:
            yield name, content

    return change


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def without(name: str):
    return lambda each, content: [] if each == name else [(each, content)]


def changed(name: str):
    return lambda each, content: [(each, content[:-1] + b"!" if each == name else content)]


def as_link(each: str, content: bytes):
    yield (link(each), b"/etc/passwd") if each == layout.GAPS else (each, content)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_file("../escaped.txt", b"x"), "no recording has"),
        (with_file("/tmp/escaped.txt", b"x"), "no recording has"),  # noqa: S108
        (with_file("streams/../../escaped.parquet", b"x"), "no recording has"),
        (with_file("run.sh", b"x"), "no recording has"),
        (with_file("streams/a_b_c.parquet", b"x"), "no file of this recording"),
        (with_file("streams/a_b_c.parquet", bytes(40 * 1024**2)), "more bytes than a recording"),
        (as_link, "no regular file"),
        (without(layout.CHECKSUMS), "SHA256SUMS is not in it"),
        (without(layout.MANIFEST), "manifest.json: it is missing"),
        (changed(TABLE), "rig.parquet: its SHA-256"),
        (changed(layout.MANIFEST), "manifest.json: its SHA-256"),
    ],
)
def test_a_zip_file_that_is_no_recording_leaves_nothing(packed, tmp_path, change, words):
    path = tmp_path / "bad.zip"
    path.write_bytes(zipped(packed, change))
    with pytest.raises(Invalid, match=words.replace(".", r"\.")):
        archive.unpack(path, tmp_path / "new")
    assert os.listdir(tmp_path) == ["bad.zip"]  # noqa: PTH208


@pytest.mark.parametrize("name", [layout.MANIFEST, layout.GAPS])
def test_two_files_of_one_name_are_refused(packed, tmp_path, name):
    path = tmp_path / "twice.zip"
    with pytest.warns(UserWarning, match="Duplicate"):
        path.write_bytes(
            zipped(
                packed,
                with_file(name, b"x")
                if name != layout.MANIFEST
                else lambda each, content: [(each, content)] * 2,
            )
        )
    with pytest.raises(Invalid, match=r"two files|no recording"):
        archive.unpack(path, tmp_path / "new")


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_a_broken_zip_file_is_refused(packed, tmp_path, cut):
    path = tmp_path / "cut.zip"
    path.write_bytes(packed[:cut])
    with pytest.raises(Invalid, match=r"no zip file|no recording"):
        archive.unpack(path, tmp_path / "new")
    assert os.listdir(tmp_path) == ["cut.zip"]  # noqa: PTH208


def test_an_archive_is_read_as_it_comes_whatever_size_it_states(packed, tmp_path):
    """A zip bomb may state a small size: the bytes are counted."""
    bomb = bytearray(zipped(packed, with_file("streams/a_b_c.parquet", bytes(40 * 1024**2))))
    at = bomb.rindex(b"streams/a_b_c.parquet") - 46
    assert bomb[at : at + 4] == b"PK\x01\x02"
    bomb[at + 24 : at + 28] = (5).to_bytes(4, "little")
    path = tmp_path / "bomb.zip"
    path.write_bytes(bytes(bomb))
    with pytest.raises(Invalid, match=r"more bytes|no zip file"):
        archive.unpack(path, tmp_path / "new")
    assert os.listdir(tmp_path) == ["bomb.zip"]  # noqa: PTH208


# --- one table ------------------------------------------------------------------------------------


def test_several_streams_become_one_table(tmp_path):
    recording = recorded.labelled(tmp_path / "labelled")
    recording_files.export(recording.path, tmp_path / "it.parquet", [])
    with duckdb.connect() as sql:
        rows = sql.execute(
            'SELECT epoch_ns(time), "factory/pump-rig/rig/Pressure",'
            ' "factory/pump-rig/truth/anomaly", split FROM read_parquet(?)',
            [str(tmp_path / "it.parquet")],
        ).fetchall()
    assert rows[:3] == [
        (T0, 0.0, False, "train"),
        (T0 + NS_PER_S, 1.0, None, "train"),
        (T0 + 2 * NS_PER_S, 2.0, True, "train"),
    ]
    assert rows[-1][-1] == "test"
    recording_files.export(recording.path, tmp_path / "it.csv", [str(RIG)])
    lines = (tmp_path / "it.csv").read_text().splitlines()
    assert lines[:2] == ["time,Pressure,split", f"{text_of(T0)},0.0,train"]
    with pytest.raises(Unknown, match="has no stream"):
        recording_files.export(recording.path, tmp_path / "x.csv", ["factory/mill/x"])
    with pytest.raises(Invalid, match="no known ending"):
        recording_files.export(recording.path, tmp_path / "x.xlsx", [])
    with pytest.raises(Taken):
        recording_files.export(recording.path, tmp_path / "it.csv", [])
    (recording.path / TABLE).write_bytes(b"")
    with pytest.raises(Corrupt):
        joined_table.write(recording, recording.manifest.streams, tmp_path / "y.csv", ".csv")


def test_recordings_of_a_folder_are_listed_with_what_is_wrong(original, tmp_path):
    shutil.copytree(original.path, tmp_path / "good")
    shutil.copytree(original.path, tmp_path / "bad")
    (tmp_path / "bad" / layout.MANIFEST).write_text("{}")
    (tmp_path / "other").mkdir()
    bad, good = recording_files.listed(tmp_path)
    assert good.as_json()["sha256"] == original.sha256
    assert "not the manifest" in bad.as_json()["problem"]


def test_a_tar_stream_comes_back_as_the_same_recording(original, tmp_path):
    stream = b"".join(tar_stream.pieces(original))
    assert stream == b"".join(tar_stream.pieces(original))
    (tmp_path / "it.tar").write_bytes(stream)
    again = archive.unpack_tar(tmp_path / "it.tar", tmp_path / "again")
    assert (again.sha256, again.manifest) == (original.sha256, original.manifest)
    with tarfile.open(tmp_path / "it.tar") as other_program:
        names = other_program.getnames()
    assert names[0] == f"{original.manifest.name}/{layout.CHECKSUMS}"


def linked(member):
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"


def outside(member):
    member.name = "x/../../outside"


@pytest.mark.parametrize("spoil", [linked, outside, None], ids=["link", "outside", "cut"])
def test_a_tar_stream_that_is_no_recording_leaves_nothing(original, tmp_path, spoil):
    stream = b"".join(tar_stream.pieces(original))
    spoiled = io.BytesIO(stream[: len(stream) // 2])
    if spoil is not None:
        spoiled = io.BytesIO()
        with (
            tarfile.open(fileobj=io.BytesIO(stream)) as whole,
            tarfile.open(fileobj=spoiled, mode="w") as other,
        ):
            for number, member in enumerate(whole.getmembers()):
                content = whole.extractfile(member)
                if number == 1:
                    spoil(member)
                other.addfile(member, content)
    (tmp_path / "it.tar").write_bytes(spoiled.getvalue())
    with pytest.raises(Invalid):
        archive.unpack_tar(tmp_path / "it.tar", tmp_path / "again")
    assert [path.name for path in tmp_path.iterdir()] == ["it.tar"]
