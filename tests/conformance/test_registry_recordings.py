"""Recordings in the registry: alike over each database."""

from dataclasses import replace

import pytest

from broker.errors import Unknown
from broker.namespace import StreamAddress
from broker.recordings.server_states import RecordingState
from broker.rights import Entry, Party
from testbed_api.domain.organisations import Organisation
from testbed_api.domain.recordings import HeldStream, ServerRecording
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

RIG = StreamAddress("factory", "rig", "s")
OTHER = StreamAddress("factory-2", "rig", "s")
LIVE_RIG = Entry("live", RIG)
WHOLE = ServerRecording(
    name="valve",
    note="it's stuck",
    organisation="lab",
    made_by="cora",
    maker="maker-1",
    space="live",
    from_ns=-(2**62),
    to_ns=2**62,
    created_ns=5,
    streams=(HeldStream(stream=RIG, grants=(3, 4)), HeldStream(stream=OTHER)),
)
COUNTED = (
    HeldStream(stream=RIG, grants=(3, 4), rows=2, samples=2**40, first_ns=10, last_ns=20),
    HeldStream(stream=OTHER),
)


@pytest.fixture
async def registry(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        for name in ("factory", "factory-2", "lab"):
            await registry.organisations.add(Organisation(name, name, Party.COMPANY))
        yield registry


async def completed(registry, recording=WHOLE):
    number = await registry.recordings.add(recording)
    assert await registry.recordings.complete(
        number, sha256="a" * 64, size_bytes=2**40, streams=COUNTED, at_ns=9
    )
    return number


async def numbers(registry, *arguments, **options):
    return [each.id for each in await registry.recordings.holding(*arguments, **options)]


async def test_a_recording_comes_back_as_it_was_written(registry):
    number = await registry.recordings.add(WHOLE)
    assert await registry.recordings.get(number) == replace(WHOLE, id=number)
    assert await registry.recordings.being_made("lab") == 1
    await registry.recordings.complete(
        number, sha256="a" * 64, size_bytes=2**40, streams=COUNTED, at_ns=9
    )
    complete = await registry.recordings.get(number)
    assert (complete.state, complete.streams, complete.done_ns) == (
        RecordingState.COMPLETE,
        COUNTED,
        9,
    )
    assert (complete.samples, complete.owners) == (2**40, ["factory", "factory-2"])
    assert await registry.recordings.used_bytes("lab") == 2**40
    assert await registry.recordings.used_bytes("factory") == 0
    with pytest.raises(Unknown):
        await registry.recordings.get(number + 1)


async def test_a_state_is_left_once(registry):
    number = await registry.recordings.add(WHOLE)
    assert await registry.recordings.delete(number, by="fay", reason="x" * 500, at_ns=7)
    assert not await registry.recordings.delete(number, by="eve", reason="", at_ns=8)
    assert not await registry.recordings.fail(number, "late", 8)
    assert not await registry.recordings.complete(
        number, sha256="", size_bytes=1, streams=(), at_ns=8
    )
    gone = await registry.recordings.get(number)
    assert (gone.state, gone.deleted_by, gone.deleted_ns) == (RecordingState.DELETED, "fay", 7)
    failed = await registry.recordings.add(WHOLE)
    assert await registry.recordings.fail(failed, "no room", 8)
    assert [each.id for each in await registry.recordings.in_state(RecordingState.FAILED)] == [
        failed
    ]


async def test_both_sides_list_it_and_nobody_of_a_similar_name(registry):
    first = await completed(registry)
    second = await completed(registry, replace(WHOLE, streams=WHOLE.streams[:1]))
    await registry.recordings.delete(second, by=None, reason="", at_ns=9)
    for organisation, seen in (("lab", [first]), ("factory", [first]), ("fact", [])):
        page = await registry.recordings.page(organisation, 0, 10, deleted=False)
        assert [each.id for each in page] == seen
    everything = await registry.recordings.page("factory", 0, 10, deleted=True)
    assert [each.id for each in everything] == [first, second]
    assert [each.id for each in await registry.recordings.page("lab", first, 10, deleted=True)] == [
        second
    ]
    of_rig = await registry.recordings.of_equipment(RIG.owner, 9, 20)
    assert [each.id for each in of_rig] == [first]
    assert len(await registry.recordings.of_equipment(RIG.owner, 8, 20)) == 2
    assert await registry.recordings.of_equipment(RIG.owner, 0, 5) == []


@pytest.mark.parametrize(
    ("from_ns", "to_ns", "holds"), [(0, 10, False), (0, 11, True), (20, 21, True), (21, 99, False)]
)
async def test_it_holds_a_span_by_its_samples(registry, from_ns, to_ns, holds):
    number = await completed(registry)
    expected = [number] if holds else []
    assert await numbers(registry, LIVE_RIG, from_ns, to_ns) == expected
    assert await numbers(registry, LIVE_RIG, from_ns, to_ns, others=True) == expected
    assert await numbers(registry, Entry("run-x", RIG), from_ns, to_ns) == []
    assert await numbers(registry, Entry("live", OTHER), from_ns, to_ns) == [], "no sample of it"


async def test_one_that_is_being_made_holds_its_whole_span_and_an_own_one_is_told_apart(registry):
    own = replace(WHOLE, organisation="factory", from_ns=100, to_ns=200)
    number = await registry.recordings.add(own)
    assert await numbers(registry, LIVE_RIG, 0, 100) == []
    assert await numbers(registry, LIVE_RIG, 0, 101) == [number]
    assert await numbers(registry, LIVE_RIG, 0, 101, others=True) == []
