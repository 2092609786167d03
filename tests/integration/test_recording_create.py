"""A recording made through the API: granted, counted, and whole or not there."""

from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from broker import api_client
from broker.batch import BAD, GOOD, Gap, Source
from broker.clock import NS_PER_S, SteppedClock, text_of
from broker.errors import Invalid, NotGranted, Taken, Unavailable, Unknown
from broker.recordings import bundle
from broker.rights import Entry, Role
from testbed.client import recordings
from testbed.client.recordings import RecordingOptions
from testbed_api.recorder.ledger import FlushEntries, StreamEpoch
from tests import recorded
from tests.integration.api_bed import RIG, START_NS, stored

COUNT = 100
SPAN = {"begin": text_of(START_NS), "end": text_of(START_NS + COUNT * NS_PER_S)}
GRANT = {"company": "company", "streams": [{"stream": str(RIG)}], "purpose": "to find the fault"}


@pytest.fixture
async def cora(bed):
    """A developer of a company."""
    return await bed.person("cora", "company", Role.DEVELOPER)


@pytest.fixture
async def samples(bed, rig):
    """A hundred seconds of the rig, with a gap."""
    await stored(bed, rig, COUNT)
    hole = Gap(("Pressure",), START_NS, START_NS + 5, "server-overflow")
    await bed.api.ledger.commit(FlushEntries(gaps=[(StreamEpoch("live", RIG, "e"), None, hole)]))


@pytest.fixture
async def granted(bed, owner, samples):  # noqa: ARG001
    answer = await bed.ask(owner, "POST", "/grants", json=GRANT | {"expires_in_s": 600})
    assert answer.status_code == 201, answer.text
    return answer.json()["items"][0]["id"]


@asynccontextmanager
async def connected(bed, who):
    async with httpx.AsyncClient(
        transport=bed.http._transport, base_url="http://api", headers=who
    ) as http:
        yield api_client.Api(http)


async def record(bed, who, path, **options):
    wanted = RecordingOptions(streams=[str(RIG)], **SPAN, **options)
    async with connected(bed, who) as connection:
        request = wanted.checked(bed.clock)
        return await recordings.record(connection, path, request, bed.clock)


def remains(folder):
    return [each.name for each in folder.iterdir() if "theirs" in each.name]


@pytest.mark.usefixtures("samples")
@pytest.mark.parametrize("samples_at_once", [200_000, 20])
async def test_a_recording_holds_what_is_stored(bed, owner, tmp_path, monkeypatch, samples_at_once):
    monkeypatch.setattr(recordings, "SAMPLES_AT_ONCE", samples_at_once)
    monkeypatch.setattr(recordings, "FIRST_WINDOW_NS", 10 * NS_PER_S)
    await record(bed, owner, tmp_path / "own", split="80/0/20")
    opened = bundle.open_recording(tmp_path / "own")
    (stream,) = opened.manifest.streams
    assert (stream.source, stream.grants, stream.rows) == (Source.SIMULATED, [], COUNT)
    assert opened.manifest.creator.principal == "fay"
    series = recorded.read_series(opened.path, stream)
    pressure = series["Pressure"]
    assert np.array_equal(pressure[0], START_NS + np.arange(COUNT, dtype=np.int64) * NS_PER_S)
    assert pressure[2].tolist() == [GOOD, BAD, *[GOOD] * (COUNT - 2)]
    assert pressure[1][2:].tolist() == [float(at) for at in range(2, COUNT)]
    assert len(series["running"][0]) == 1
    (gap,) = recorded.read_gaps(opened.path)
    assert gap == (RIG, Gap(("Pressure",), START_NS, START_NS + 5, "server-overflow"))


async def test_the_owner_sees_who_recorded_and_under_which_grant(
    bed, owner, cora, granted, tmp_path
):
    recording = await record(bed, cora, tmp_path / "theirs")
    (grant,) = recording.manifest.streams[0].grants
    assert (grant.id, grant.purpose) == (granted, "to find the fault")
    assert grant.until == text_of(bed.clock.now_ns() + 600 * NS_PER_S)
    report = (await bed.ask(owner, "GET", f"/equipment/{RIG.owner}/access")).json()
    ways = {(each["principal"], each["way"]) for each in report["did"]["http"]}
    assert ways == {("cora", "recording")}


@pytest.mark.usefixtures("samples")
async def test_without_a_grant_nothing_is_recorded_and_nothing_is_left(bed, owner, cora, tmp_path):
    with pytest.raises(Unknown):
        await record(bed, cora, tmp_path / "theirs")
    answer = await bed.ask(owner, "POST", "/grants", json=GRANT)
    number = answer.json()["items"][0]["id"]
    await bed.ask(owner, "DELETE", f"/grants/{number}")
    with pytest.raises(NotGranted, match="was revoked by factory"):
        await record(bed, cora, tmp_path / "theirs")
    assert not remains(tmp_path)


async def test_a_grant_that_ends_on_the_way_leaves_nothing(
    bed, owner, cora, granted, tmp_path, monkeypatch
):
    windows = recordings.windows

    async def revoked_after_the_first(connection, address, query):
        async for fetched in windows(connection, address, query):
            yield fetched
            await bed.ask(owner, "DELETE", f"/grants/{granted}")

    monkeypatch.setattr(recordings, "FIRST_WINDOW_NS", NS_PER_S)
    monkeypatch.setattr(recordings, "windows", revoked_after_the_first)
    with pytest.raises((NotGranted, Unavailable)):
        await record(bed, cora, tmp_path / "theirs")
    assert not remains(tmp_path)


@pytest.mark.usefixtures("granted")
async def test_a_machine_cannot_say_which_grant_covered_it(bed, tmp_path):
    detector = await bed.machine("detector", "company", reads=frozenset({Entry("live", RIG)}))
    recording = await record(bed, detector, tmp_path / "theirs")
    assert recording.manifest.streams[0].grants is None
    assert recording.manifest.ended_grants(2**62) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"streams": []}, "no stream is named"),
        ({"streams": ["factory/rig"]}, "not the address of a stream"),
        ({"streams": [str(RIG)], "labels": ["anomaly"]}, "is no signal"),
        ({"streams": [str(RIG)], "split": "70/30"}, "split '70/30'"),
        ({"streams": [str(RIG)], "space": "mine"}, "space 'mine'"),
        ({"streams": [str(RIG)], "begin": SPAN["end"], "end": SPAN["begin"]}, "no length"),
    ],
)
def test_options_that_make_no_recording_are_refused(options, words):
    with pytest.raises(Invalid, match=words):
        RecordingOptions(**options).checked(SteppedClock(START_NS))


@pytest.mark.usefixtures("samples")
async def test_a_label_that_is_not_there_and_a_folder_that_is_are_refused(bed, owner, tmp_path):
    with pytest.raises(Invalid, match="has no signal 'anomaly'"):
        await record(bed, owner, tmp_path / "own", labels=[f"{RIG}/anomaly"])
    (tmp_path / "own").mkdir()
    with pytest.raises(Taken):
        await record(bed, owner, tmp_path / "own")
    with pytest.raises(Invalid, match="no name of a recording"):
        await recordings.create(tmp_path / "..", None, bed.clock)
