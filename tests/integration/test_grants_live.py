"""Sharing on the real bus: who is cut off, who comes back without a hole, and who was there."""

import asyncio
import contextlib

import numpy as np
import pytest

from broker.batch import Batch, EquipmentKind, Source, Wide
from broker.clock import NS_PER_S, WallClock, text_of
from broker.errors import Forbidden, NotGranted, Paused, Unavailable, Unknown
from broker.namespace import StreamAddress
from broker.responses.grants import GrantPage
from broker.streams import Signal, StreamSpec
from gateway.spool import spool
from gateway.spool.spool import SpoolSettings
from gateway.uplink.uplink import Uplink
from testbed.client import api
from testbed_sdk import PrototypeSettings, connect
from testbed_sdk.inputs import MOST_RENEWALS, Input
from tests.integration.test_rights import RIG, on_the_bus
from tests.integration.test_server import bus

CLOCK = WallClock()
TWO = StreamAddress("factory", "pump-rig", "two")
EQUIPMENT = f"/equipment/{RIG.owner}"


async def gateway(owners):
    """A gateway's credential; its equipment is registered and listed."""
    body = {"principal": "gateway", "equipment": str(RIG.owner)}
    created = await owners.request("POST", "/credentials", json=body)
    door = owners.doors["factory"]
    await door.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)
    await owners.request("PUT", f"{EQUIPMENT}/listing", json={"everybody": True})
    return str(created["credential"])


async def described(owners, *addresses):
    door = owners.doors["factory"]
    return [await door.register_spec(StreamSpec(each, (Signal("p"),))) for each in addresses]


async def granted(owners, *addresses):
    """The numbers of grants that the company asked for and got."""
    streams = [{"stream": str(each)} for each in addresses]
    body = {"streams": streams, "purpose": "to try"}
    requests = (await owners.doors["company"].request("POST", "/requests", json=body))["items"]
    for request in requests:
        await owners.request("POST", f"/grants/{request['id']}/approval", json={})
    return [each["id"] for each in requests]


@contextlib.asynccontextmanager
async def uplink(server, key, folder, specs):
    """A gateway's way out, with its spool."""
    settings = SpoolSettings(most_bytes=2**24, keep_marked_s=900, least_free_bytes=0)
    async with (
        spool.open(folder / "spool.sqlite", epoch="e1", settings=settings) as box,
        on_the_bus(server, key) as out,
    ):
        uplink_ = Uplink(out, box, CLOCK, space="live", specs=specs)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(uplink_.run(), name="uplink")
            try:
                yield uplink_, out
            finally:
                running.cancel()


def batch(number, start_ns):
    times = np.array([start_ns + number * 1_000_000], np.int64)
    frame = Wide(times, {"p": np.array([float(number)])})
    return Batch(1, (frame,), Source.SIMULATED)


async def stored(owners, address, start_ns):
    """The values of a stream that are stored, in their order."""
    span = {"from": text_of(start_ns), "to": text_of(start_ns + 60 * NS_PER_S)}
    document = await owners.request("GET", f"/streams/{address}/history", params=span)
    return [value for frame in document["frames"] for value in frame["value"]]


@contextlib.asynccontextmanager
async def sending(up, addresses, start_ns, every_s=0.02):
    """A batch of each stream after the other until left; the list grows with each number."""
    sent = []

    async def send():
        while True:
            await up.send([(each, batch(len(sent), start_ns)) for each in addresses])
            sent.append(float(len(sent)))
            await CLOCK.sleep(every_s)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(send(), name="sending")
        try:
            yield sent
        finally:
            running.cancel()


def company(server, key, **inputs):
    settings = PrototypeSettings(api=f"http://{server.api}", inputs=inputs)
    return connect(settings, bus(server, key))


async def test_a_new_stream_of_a_connected_gateway_loses_nothing(server, owners, tmp_path):
    key = await gateway(owners)
    (first,) = await described(owners, RIG)
    second = StreamSpec(TWO, (Signal("p"),), version=1)
    start_ns = CLOCK.now_ns()
    async with (
        uplink(server, key, tmp_path, [first, second]) as (up, out),
        sending(up, [RIG, TWO], start_ns) as sent,
    ):
        await CLOCK.sleep(0.5)
        before = out.connection_number
        await described(owners, TWO)  # proposed by an engineer, after it connected
        async with asyncio.timeout(2):
            await out.connection(after=before)
        await CLOCK.sleep(0.5)
        expected = list(sent)
        async with asyncio.timeout(14):
            for address in (RIG, TWO):
                while (await stored(owners, address, start_ns))[: len(expected)] != expected:
                    await CLOCK.sleep(0.1)


async def test_a_revoke_takes_one_stream_and_leaves_the_other_without_a_hole(
    server, owners, tmp_path
):
    key = await gateway(owners)
    specs = await described(owners, RIG, TWO)
    _, revoked = await granted(owners, RIG, TWO)
    start_ns = CLOCK.now_ns()
    heard = {"rig": [], "two": []}
    ended = {}

    async def listen(testbed, name):
        try:
            async for received in testbed.input(name, fill=True):
                heard[name] += received["p"].values.tolist()
        except Forbidden:
            ended[name] = CLOCK.now_ns()

    async with (
        uplink(server, key, tmp_path, specs) as (up, out),
        sending(up, [RIG, TWO], start_ns) as sent,
        company(server, owners.secrets["company"], rig=RIG, two=TWO) as testbed,
        asyncio.TaskGroup() as tasks,
    ):
        listening = [tasks.create_task(listen(testbed, each), name=each) for each in heard]
        async with asyncio.timeout(5):
            while not all(heard.values()):
                await CLOCK.sleep(0.02)
        standing = out.connection_number
        at_ns = CLOCK.now_ns()
        await owners.request("DELETE", f"/grants/{revoked}")
        silent_from = len(sent) + 25  # half a second
        async with asyncio.timeout(4):
            while "two" not in ended or heard["rig"][-1] < silent_from:
                await CLOCK.sleep(0.02)
        async with asyncio.timeout(8):
            while heard["rig"] != sent[int(heard["rig"][0]) : int(heard["rig"][-1]) + 1]:
                await CLOCK.sleep(0.05)
        assert out.connection_number == standing  # the gateway was not disturbed
        assert heard["two"][-1] < silent_from
        assert ended["two"] - at_ns < 2 * NS_PER_S
        for task in listening:
            task.cancel()


async def test_a_paused_input_says_which_grant_is_paused_by_whom_and_since_when(
    server, owners, tmp_path
):
    key = await gateway(owners)
    specs = await described(owners, RIG)
    (number,) = await granted(owners, RIG)
    pattern = rf"grant {number} of stream {RIG} in space live is paused by factory since 20"
    async with (
        uplink(server, key, tmp_path, specs) as (up, _),
        sending(up, [RIG], CLOCK.now_ns()),
        company(server, owners.secrets["company"], rig=RIG) as testbed,
        asyncio.timeout(15),
    ):
        with pytest.raises(Paused, match=pattern):
            await read_and(testbed, owners, "/pauses", {"company": "company"})
        with pytest.raises(Paused, match=pattern):
            await testbed.history("rig")


async def test_an_input_says_which_grant_was_revoked_by_whom_and_why(server, owners, tmp_path):
    key = await gateway(owners)
    specs = await described(owners, RIG)
    (number,) = await granted(owners, RIG)
    revocation = {"numbers": [number], "reason": "trial over"}
    pattern = rf"grant {number} of stream {RIG} in space live was revoked by factory .*: trial over"
    async with (
        uplink(server, key, tmp_path, specs) as (up, _),
        sending(up, [RIG], CLOCK.now_ns()),
        company(server, owners.secrets["company"], rig=RIG) as testbed,
        asyncio.timeout(15),
    ):
        with pytest.raises(NotGranted, match=pattern):
            await read_and(testbed, owners, "/grants/revocation", revocation)
        with pytest.raises(NotGranted, match=pattern):
            await testbed.history("rig")


async def read_and(testbed, owners, path, body):
    """Read the input until it ends; its first batch makes the owner act on the grant."""
    has_acted = False
    async for _ in testbed.input("rig"):
        if not has_acted:
            await owners.request("POST", path, json=body)
            has_acted = True


async def first_batch(stream_input):
    """The first batch that an input yields."""
    return await anext(aiter(stream_input))


async def test_inputs_that_were_connected_before_their_streams_were_registered_read_them(
    server, owners, tmp_path
):
    key = await gateway(owners)
    async with company(server, owners.secrets["factory"], rig=RIG, two=TWO) as testbed:
        specs = await described(owners, RIG, TWO)
        async with (
            uplink(server, key, tmp_path, specs) as (up, _),
            sending(up, [RIG, TWO], CLOCK.now_ns()),
            asyncio.timeout(15),
            asyncio.TaskGroup() as tasks,
        ):
            for name in ("rig", "two"):
                tasks.create_task(first_batch(testbed.input(name)), name=name)
        assert testbed._bus.connection_number == 2  # one renewal for both


async def test_an_input_of_a_stream_that_is_not_there_says_so(server, owners):
    async with (
        company(server, owners.secrets["factory"], rig=RIG) as testbed,
        asyncio.timeout(15),
    ):
        with pytest.raises(Unknown, match=f"there is no stream {RIG} in space live"):
            await first_batch(testbed.input("rig"))


async def test_what_the_broker_goes_on_to_refuse_is_not_asked_for_ever(server, owners):
    await gateway(owners)
    await described(owners, RIG)
    stranger = await owners.credential("stranger")
    async with (
        on_the_bus(server, stranger) as bus_of_stranger,
        contextlib.AsyncExitStack() as stack,
        asyncio.timeout(15),
    ):
        mixed = Input(
            "live",
            RIG,
            bus=bus_of_stranger,
            api=owners.doors["factory"],
            clock=CLOCK,
            stack=stack,
            capacity=10,
        )
        with pytest.raises(Unavailable, match=r"refused to subscribe .*, which the API lets you"):
            await first_batch(mixed)
        assert bus_of_stranger.connection_number == 1 + MOST_RENEWALS


async def test_who_was_connected_is_seen_by_the_owner(server, owners, tmp_path):
    key = await gateway(owners)
    specs = await described(owners, RIG)
    await granted(owners, RIG)
    start_ns = CLOCK.now_ns()
    async with uplink(server, key, tmp_path, specs) as (up, _):
        async with on_the_bus(server, owners.secrets["company"]):
            async with sending(up, [RIG], start_ns) as sent:
                await CLOCK.sleep(1)
            async with asyncio.timeout(5):
                while len(await stored(owners, RIG, start_ns)) < len(sent):
                    await CLOCK.sleep(0.1)
            (still,) = await sessions(owners, "company-owner")
            assert still["until"] is None
        async with asyncio.timeout(5):
            while (ended := (await sessions(owners, "company-owner"))[0])["until"] is None:
                await CLOCK.sleep(0.05)
    assert (ended["stream"], ended["space"]) == (str(RIG), "live")
    assert 1 / 60 <= ended["minutes"] + 0.01 < 0.2
    assert ended["batches"] == len(sent)
    gate = await sessions(owners, "gateway")
    assert len(gate) == 1


async def sessions(owners, principal):
    report = await owners.request("GET", f"{EQUIPMENT}/access")
    return [each for each in report["did"]["mqtt"] if each["principal"] == principal]


async def test_a_command_reads_a_listing_to_its_last_page(server, owners, monkeypatch):
    await gateway(owners)
    await described(owners, RIG)
    spaces = [f"run-{at}" for at in range(5)]
    streams = [{"space": each, "stream": str(RIG)} for each in spaces]
    await owners.request("POST", "/grants", json={"company": "company", "streams": streams})
    monkeypatch.setenv("TESTBED_API", f"http://{server.api}")
    monkeypatch.setenv("TESTBED_CREDENTIAL", owners.secret)
    async with api.connect() as connection:
        page = await connection.whole("/grants", GrantPage, page_items=2)
    assert [grant.space for grant in page.items] == spaces
    assert page.next is None
