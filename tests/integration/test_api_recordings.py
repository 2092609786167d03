"""Recordings on the server: asked for over HTTP, made, taken away, and gone with their right."""

import asyncio
import io
import json
import tarfile
from dataclasses import replace

import duckdb
import httpx
import pandas as pd
import pytest

from broker.batch import Gap
from broker.clock import DAY_NS, NS_PER_S, WallClock, text_of
from broker.errors import Unavailable
from broker.process import tasks
from broker.recordings import bundle
from broker.rights import Entry, Role
from testbed_api.limits.quotas import QuotaSettings
from testbed_api.recorder.ledger import FlushEntries, StreamEpoch
from testbed_api.recordings import maker as making
from testbed_api.recordings.removal import RecordingRemoval
from testbed_api.recordings.shelf import RecordingShelf
from testbed_api.registry.audit import EventFilter
from tests.integration.api_bed import RIG, START_NS, STREAM, assert_problem, stored
from tests.services import disk

COUNT = 100
GRANT = {"company": "company", "streams": [{"stream": str(RIG)}], "purpose": "to find the fault"}
WANTED = {
    "name": "valve-1",
    "note": "the valve sticks",
    "streams": [{"stream": str(RIG)}],
    "from": text_of(START_NS),
    "to": text_of(START_NS + COUNT * NS_PER_S),
}
AFTER_S = COUNT + 10


@pytest.fixture
async def cora(bed):
    """A developer of a company."""
    return await bed.person("cora", "company", Role.DEVELOPER)


@pytest.fixture
async def samples(bed, rig):
    """A hundred seconds of the rig, with a gap, which are over."""
    await stored(bed, rig, COUNT)
    await bed.api.ledger.keep_specs([("live", rig)], 0)
    hole = Gap(("Pressure",), START_NS, START_NS + 5, "server-overflow")
    await bed.api.ledger.commit(FlushEntries(gaps=[(StreamEpoch("live", RIG, "e"), None, hole)]))
    await bed.clock.advance(AFTER_S)
    return rig


@pytest.fixture
async def granted(bed, owner, samples):  # noqa: ARG001
    answer = await bed.ask(owner, "POST", "/grants", json=GRANT | {"expires_in_s": 600})
    assert answer.status_code == 201, answer.text
    return answer.json()["items"][0]["id"]


async def ordered(bed, who, **changes):
    answer = await bed.ask(who, "POST", "/recordings", json=WANTED | changes)
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "making"
    return answer.json()["id"]


async def done(bed, who, number):
    """The recording once it is not being made any more."""
    async with asyncio.timeout(15):
        while True:
            answer = (await bed.ask(who, "GET", f"/recordings/{number}")).json()
            if answer["state"] != "making":
                return answer
            await WallClock().sleep(0.02)


async def complete(bed, who, **changes):
    recording = await done(bed, who, await ordered(bed, who, **changes))
    assert recording["state"] == "complete", recording["reason"]
    return recording


async def events(bed):
    return [link.event for link in await bed.registry.audit.events(EventFilter(), 0, 1_000)]


def files_of(bed):
    return sorted(
        path.name
        for path in bed.api.recording_maker.shelf.root.iterdir()
        if "lock" not in path.name
    )


@pytest.mark.parametrize("samples_at_once", [200_000, 7])
async def test_what_is_taken_away_is_what_is_stored(bed, cora, granted, tmp_path, samples_at_once):
    bed.api.recording_maker.samples_at_once = samples_at_once
    recording = await complete(bed, cora)
    assert recording["refusal"] is None
    (stream,) = recording["streams"]
    assert (stream["grants"], stream["rows"], stream["samples"]) == ([granted], 100, 201)
    manifest = json.loads(recording["manifest"])
    assert manifest["streams"][0]["grants"][0]["purpose"] == "to find the fault"

    answer = await bed.ask(cora, "GET", f"/recordings/{recording['id']}/bundle")
    assert answer.headers["content-disposition"] == 'attachment; filename="valve-1.tar"'
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path / "away", filter="data")
    opened = bundle.open_recording(tmp_path / "away" / "valve-1")
    assert opened.sha256 == recording["sha256"]
    assert opened.manifest.gaps == 1
    table = str(opened.path / opened.manifest.streams[0].file)
    with duckdb.connect() as sql:
        rows = sql.execute("SELECT count(*), sum(Pressure) FROM read_parquet(?)", [table])
        assert rows.fetchall() == [(100, float(sum(range(100)) - 1))]
    frame = pd.read_parquet(table)
    assert frame["Pressure"].isna().sum() == 1
    assert frame["time"].iloc[0] == pd.Timestamp(text_of(START_NS))
    assert (
        sum(path.stat().st_size for path in opened.path.rglob("*") if path.is_file())
        == (recording["bytes"])
    )


async def test_the_owner_sees_who_recorded_and_who_took_it_away(bed, owner, cora, granted):
    recording = await complete(bed, cora)
    await bed.ask(cora, "GET", f"/recordings/{recording['id']}/bundle")
    report = (await bed.ask(owner, "GET", f"/equipment/{RIG.owner}/access")).json()
    ways = {(each["principal"], each["way"], each["times"]) for each in report["did"]["http"]}
    assert ways == {("cora", "recording", 1), ("cora", "bundle", 1)}
    (taken,) = report["recordings"]
    assert (taken["principal"], taken["samples"], taken["bytes"], taken["grants"]) == (
        "cora",
        201,
        recording["bytes"],
        [granted],
    )
    of_owner = [each for each in await events(bed) if each.owner == "factory"]
    done_by_cora = [each.target for each in of_owner if each.principal == "cora"]
    assert done_by_cora == [
        "POST /recordings",
        f"recording {recording['id']}",
        f"GET /recordings/{recording['id']}/bundle",
    ]


async def test_one_may_record_what_one_may_read(bed, owner, cora, samples):  # noqa: ARG001
    answer = await bed.ask(cora, "POST", "/recordings", json=WANTED)
    assert_problem(answer, 404, "unknown", "that you may read")
    given = await bed.ask(owner, "POST", "/grants", json=GRANT)
    await bed.ask(owner, "DELETE", f"/grants/{given.json()['items'][0]['id']}")
    answer = await bed.ask(cora, "POST", "/recordings", json=WANTED)
    assert_problem(answer, 403, "not_granted", "was revoked by factory")
    assert files_of(bed) == []


@pytest.mark.parametrize("end", ["revoked", "paused", "over"])
async def test_it_is_read_only_while_its_grant_counts(bed, owner, cora, granted, end):
    recording = await complete(bed, cora)
    path = f"/recordings/{recording['id']}"
    if end == "revoked":
        await bed.ask(owner, "DELETE", f"/grants/{granted}")
    elif end == "paused":
        await bed.ask(owner, "POST", "/pauses", json={"company": "company"})
    else:
        await bed.clock.advance(700)
    answer = await bed.ask(cora, "GET", f"{path}/bundle")
    code = "paused" if end == "paused" else "not_granted"
    assert_problem(answer, 403, code, f"grant {granted}")
    looked_at = (await bed.ask(cora, "GET", path)).json()
    assert looked_at["manifest"] is None
    assert f"grant {granted}" in looked_at["refusal"]
    assert (await bed.ask(owner, "GET", f"{path}/bundle")).status_code == 200, "its own stream"
    assert (await bed.ask(cora, "DELETE", path)).status_code == 204, "its maker may delete it"


@pytest.mark.parametrize("end", ["revoked", "paused", "deleted"])
async def test_a_download_ends_with_its_right(bed, owner, cora, granted, end, monkeypatch):
    recording = await complete(bed, cora)
    path = f"/recordings/{recording['id']}"
    actions = type(bed.api.recordings)
    take = actions.take

    async def slow_take(self, context, caller, number):
        whole, pieces = await take(self, context, caller, number)

        async def slowed():
            async for piece in pieces:
                yield piece
                await WallClock().sleep(0.5)

        return whole, slowed()

    monkeypatch.setattr(actions, "take", slow_take)
    loop, received = asyncio.get_running_loop(), []

    async def downloading():
        try:
            answer = await bed.ask(cora, "GET", f"{path}/bundle")
        except (httpx.TransportError, AssertionError):  # no end of the answer
            return
        received.append(answer.content)

    async with asyncio.TaskGroup() as group:
        group.create_task(downloading(), name="download")
        await WallClock().sleep(0.3)
        began_s = loop.time()
        if end == "revoked":
            await bed.ask(owner, "DELETE", f"/grants/{granted}")
        elif end == "paused":
            await bed.ask(owner, "POST", "/pauses", json={"company": "company"})
        else:
            await bed.ask(owner, "DELETE", path)
    assert loop.time() - began_s < 1.5
    assert sum(map(len, received)) < recording["bytes"]


async def test_a_right_that_ends_while_it_is_made_leaves_nothing(
    bed, owner, cora, granted, monkeypatch
):
    bed.api.recording_maker.samples_at_once = 7
    portions = making.portions

    async def revoked_after_the_first(frames, most):
        async for portion in portions(frames, most):
            yield portion
            await bed.ask(owner, "DELETE", f"/grants/{granted}")

    monkeypatch.setattr(making, "portions", revoked_after_the_first)
    recording = await done(bed, cora, await ordered(bed, cora))
    assert recording["state"] == "failed"
    assert f"grant {granted}" in recording["reason"]
    assert files_of(bed) == []
    assert_problem(
        await bed.ask(cora, "GET", f"/recordings/{recording['id']}/bundle"), 403, "not_granted"
    )


async def test_a_full_quota_is_refused_and_leaves_nothing(bed, owner, samples):  # noqa: ARG001
    first = await complete(bed, owner)
    bed.api.quotas.most = QuotaSettings(recording_bytes=first["bytes"] + 1)
    second = await done(bed, owner, await ordered(bed, owner))
    assert second["state"] == "failed"
    assert "bytes of recordings of factory" in second["reason"]
    assert files_of(bed) == [str(first["id"])]
    bed.api.quotas.most = QuotaSettings(recording_bytes=first["bytes"])
    answer = await bed.ask(owner, "POST", "/recordings", json=WANTED)
    assert_problem(answer, 429, "too_many", "bytes of recordings", "recording delete")
    await bed.ask(owner, "DELETE", f"/recordings/{first['id']}")
    bed.api.quotas.most = QuotaSettings(recording_bytes=first["bytes"] + 1_000)
    assert (await complete(bed, owner))["state"] == "complete"


async def test_a_full_disk_is_said_and_leaves_nothing(bed, owner, samples, tmp_path):  # noqa: ARG001
    with disk.small(tmp_path / "disk", 2 * 1024**2) as small:
        shelf = bed.api.recording_maker.shelf
        shelf.root = small / "recordings"
        shelf.root.mkdir()
        disk.fill(small / "others", leave=8_000)
        failed = await done(bed, owner, await ordered(bed, owner))
        assert failed["state"] == "failed"
        assert str(tmp_path) not in failed["reason"]
        assert "full" in failed["reason"]
        assert list(shelf.root.iterdir()) == []
        shelf.free_bytes = 200_000
        answer = await bed.ask(owner, "POST", "/recordings", json=WANTED)
        assert_problem(answer, 503, "unavailable", "the disk of the server's recordings is full")
        (small / "others").unlink()
        assert (await complete(bed, owner))["state"] == "complete"


async def test_a_server_that_stopped_says_what_it_left_half_made(bed, owner, samples, tmp_path):  # noqa: ARG001
    whole = await complete(bed, owner)
    dead, living = (RecordingShelf(tmp_path / "recordings") for _ in range(2))
    with dead.opened():
        pass
    (tmp_path / "recordings" / f".{dead.maker}.lock").touch()  # a killed process leaves its file
    numbers = []
    for shelf in (dead, living):
        row = await bed.registry.recordings.get(whole["id"])
        row = replace(row, maker=shelf.maker, state="making", done_ns=None, sha256=None)
        numbers.append(await bed.registry.recordings.add(row))
        half = tmp_path / "recordings" / f".{numbers[-1]}.ab12.new"
        half.mkdir()
        (half / "work.duckdb").touch()
    removal = RecordingRemoval(
        registry=bed.api.registry, shelf=bed.api.recording_maker.shelf, clock=bed.api.clock
    )
    with living.opened():
        await removal.recover()
        assert files_of(bed) == [f".{numbers[1]}.ab12.new", str(whole["id"])]
    left = await done(bed, owner, numbers[0])
    assert (left["state"], "server stopped" in left["reason"]) == ("failed", True)
    still = (await bed.ask(owner, "GET", f"/recordings/{numbers[1]}")).json()
    assert still["state"] == "making"
    assert not (tmp_path / "recordings" / f".{dead.maker}.lock").exists()


async def test_what_is_half_made_at_the_stop_is_removed(bed, owner, samples, monkeypatch):  # noqa: ARG001
    begun, portions = asyncio.Event(), making.portions

    async def endless(frames, most):
        async for portion in portions(frames, most):
            yield portion
            begun.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(making, "portions", endless)
    maker = another_maker(bed)
    bed.http._transport.app.state.dependencies = replace(bed.api, recording_maker=maker)
    async with asyncio.timeout(15), tasks.background({"other recordings": maker.run()}):
        number = await ordered(bed, owner)
        await begun.wait()
        assert [name.split(".")[1] for name in files_of(bed)] == [str(number)]
    assert files_of(bed) == []


def another_maker(bed):
    """A maker that ends when the test says so."""
    former = bed.api.recording_maker
    return making.RecordingMaker(
        registry=former.registry,
        ledger=former.ledger,
        store=former.store,
        shelf=former.shelf,
        quotas=former.quotas,
        clock=former.clock,
        tell=former.tell,
    )


async def test_the_owner_deletes_it_and_the_maker_sees_by_whom(bed, owner, cora, granted):  # noqa: ARG001
    recording = await complete(bed, cora)
    path = f"/recordings/{recording['id']}"
    engineer = await bed.person("finn", "factory", Role.OPERATOR)
    assert_problem(await bed.ask(engineer, "DELETE", path), 403, "forbidden", "may not delete")
    assert (await bed.ask(owner, "DELETE", path)).status_code == 204
    gone = (await bed.ask(cora, "GET", path)).json()
    assert (gone["state"], gone["reason"]) == ("deleted", "by fay of factory")
    assert_problem(await bed.ask(cora, "GET", f"{path}/bundle"), 404, "unknown", "was deleted at")
    assert_problem(await bed.ask(cora, "POST", f"{path}/verify"), 404, "unknown", "was deleted at")
    assert (await bed.ask(cora, "GET", "/recordings")).json()["items"] == []
    listed = (await bed.ask(cora, "GET", "/recordings?deleted=true")).json()["items"]
    assert [each["id"] for each in listed] == [recording["id"]]
    assert files_of(bed) == []
    report = (await bed.ask(owner, "GET", f"/equipment/{RIG.owner}/access")).json()
    assert report["recordings"][0]["deleted"] is not None


async def test_a_deletion_takes_recordings_with_it_and_a_retention_those_of_others(
    bed,
    owner,
    cora,
    granted,  # noqa: ARG001
):
    theirs, own = await complete(bed, cora), await complete(bed, owner)
    later = {"from": text_of(START_NS + 50 * NS_PER_S), "to": text_of(START_NS + 60 * NS_PER_S)}
    elsewhere = await complete(bed, cora, **later)
    span = {"from": text_of(START_NS), "to": text_of(START_NS + 10 * NS_PER_S)}
    answer = await bed.ask(owner, "POST", f"{STREAM}/deletions", json=span)
    assert answer.status_code == 200, answer.text
    for each in (theirs, own):
        gone = (await bed.ask(owner, "GET", f"/recordings/{each['id']}")).json()
        assert (gone["state"], "deleted by fay of factory" in gone["reason"]) == ("deleted", True)
    assert files_of(bed) == [str(elsewhere["id"])]
    own = await complete(bed, owner, **later)
    await bed.clock.advance(7_300)
    await bed.ask(owner, "PUT", f"{STREAM}/retention", json={"keep_days": 1 / 24})
    await bed.api.keeper.enforce()
    gone = (await bed.ask(owner, "GET", f"/recordings/{elsewhere['id']}")).json()
    assert (gone["state"], "by its retention" in gone["reason"]) == ("deleted", True)
    assert files_of(bed) == [str(own["id"])]


async def test_a_machine_records_what_is_in_its_scope(bed, samples, reader):  # noqa: ARG001
    recording = await complete(bed, reader)
    answer = await bed.ask(reader, "GET", f"/recordings/{recording['id']}/bundle")
    assert answer.status_code == 200
    stranger = await bed.machine("other", "factory", reads=frozenset({Entry("run-x", RIG)}))
    assert (await bed.ask(stranger, "GET", f"/recordings/{recording['id']}")).status_code == 404
    assert (await bed.ask(stranger, "GET", "/recordings")).json()["items"] == []
    assert len((await bed.ask(reader, "GET", "/recordings")).json()["items"]) == 1


async def test_verify_names_a_file_that_was_changed(bed, owner, samples):  # noqa: ARG001
    recording = await complete(bed, owner)
    path = f"/recordings/{recording['id']}/verify"
    answer = (await bed.ask(owner, "POST", path)).json()
    assert (answer["sha256"], answer["differences"]) == (recording["sha256"], [])
    file = bed.api.recording_maker.shelf.path(recording["id"]) / "gaps.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    (changed,) = (await bed.ask(owner, "POST", path)).json()["differences"]
    assert changed["path"] == "gaps.parquet"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"to": text_of(START_NS + DAY_NS)}, "lies in the future"),
        ({"from": WANTED["to"]}, "empty or inverted"),
        ({"name": "../etc"}, "no name of a recording"),
        ({"streams": []}, "streams"),
        ({"split": "1/2"}, "three parts"),
        ({"labels": [{"stream": str(RIG), "signal": "nowhere"}]}, "nowhere"),
        ({"labels": [{"stream": "factory/pump-rig/truth", "signal": "x"}]}, "of no stream"),
    ],
)
async def test_a_wrong_wish_is_told_in_a_sentence(bed, owner, samples, changes, words):  # noqa: ARG001
    answer = await bed.ask(owner, "POST", "/recordings", json=WANTED | changes)
    assert answer.status_code in {404, 422}
    assert words in answer.text
    assert (await bed.ask(owner, "GET", "/recordings?deleted=true")).json()["items"] == []


async def test_a_wish_with_a_key_is_carried_out_once(bed, owner, samples):  # noqa: ARG001
    headers = owner | {"Idempotency-Key": "a"}
    numbers = {
        (await bed.http.post("/recordings", json=WANTED, headers=headers)).json()["id"]
        for _ in range(2)
    }
    assert len(numbers) == 1
    await done(bed, owner, numbers.pop())
    assert len((await bed.ask(owner, "GET", "/recordings")).json()["items"]) == 1


async def test_files_that_are_elsewhere_are_said_to_be(bed, owner, samples):  # noqa: ARG001
    recording = await complete(bed, owner)
    await bed.api.recording_maker.shelf.remove(recording["id"])
    answer = await bed.ask(owner, "GET", f"/recordings/{recording['id']}/bundle")
    assert_problem(answer, 503, Unavailable.code, "not on this server")


@pytest.mark.usefixtures("samples")
async def test_a_server_without_a_folder_says_so_and_answers_all_else(bed, owner, tmp_path):
    (tmp_path / "file").touch()
    shelf = RecordingShelf(tmp_path / "file" / "recordings")
    bed.api.recording_maker.shelf = shelf
    with shelf.opened():
        assert shelf.numbers() == frozenset()
        await shelf.sweep(())
        answer = await bed.ask(owner, "POST", "/recordings", json=WANTED)
        assert_problem(answer, 503, "unavailable", "no folder for recordings")
        assert (await bed.ask(owner, "GET", "/recordings")).json()["items"] == []
