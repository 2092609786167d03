"""The server as one process, with prototypes on the bus."""

import asyncio
import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import httpx
import numpy as np
import orjson
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from broker import api_client, codec, messages
from broker.batch import BAD, GOOD, Batch, EquipmentKind, Gap, Source, Wide
from broker.bus import client
from broker.clock import NS_PER_S, WallClock, text_of
from broker.errors import Corrupt, Forbidden, Invalid, Taken, Unavailable, Unknown
from broker.history_query import HistoryQuery
from broker.messages import Freshness, Health
from broker.namespace import MarkTopic, StreamAddress, StreamTopic, Verb
from broker.responses.equipment import StreamPage
from broker.responses.grants import GrantResponse
from broker.settings import BusSettings
from broker.streams import Dtype, Signal, StreamSpec
from testbed.client import history as client_history
from testbed_api import service
from testbed_api.settings import ServerSettings
from testbed_sdk import PrototypeSettings, connect
from tests.owners import founded
from tests.services import free_port

CLOCK = WallClock()
EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_mqtt.py"
SPACE = "run-demo"
RIG = StreamAddress("factory", "pump-rig", "rig")
SCORE = StreamAddress("company", "detector", "score")
SPEC = StreamSpec(RIG, (Signal("Pressure", unit="bar"), Signal("strokes", Dtype.INT64)))
T0 = 1_700_000_000_000_000_000


@contextlib.asynccontextmanager
async def serving(folder):
    settings = ServerSettings(folder=folder, api_port=0, mqtt_port=0)
    async with service.serve(settings, CLOCK) as server:
        yield server


async def credential(owners, principal, *, reads=(), writes=()):
    return await owners.credential(principal, reads=reads, writes=writes, space=SPACE)


def prototype(server, credential, **bound):
    settings = PrototypeSettings(
        api=f"http://{server.api}",
        space=SPACE,
        inputs={name: each for name, each in bound.items() if name != "score"},
        outputs={"score": SCORE},
        drain_s=5,
    )
    return connect(settings, bus(server, credential))


def bus(server, credential):
    return BusSettings(broker=f"mqtt://{server.broker}", credential=SecretStr(credential))


@contextlib.asynccontextmanager
async def machine(server, owners):
    """A publisher of the rig without a gateway, its equipment and spec registered."""
    key = await credential(owners, "machine", writes=[RIG])
    async with (
        api_client.connect(f"http://{server.api}", key) as door,
        client.open(bus(server, key), CLOCK, client_id="machine") as out,
    ):
        await door.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)
        await door.register_spec(SPEC)
        await out.ready()
        yield out


def batch(seq, values, *, source=Source.SIMULATED, start=T0, gaps=(), epoch="e1"):
    times = np.arange(len(values)) + start
    frame = Wide(times, {"Pressure": np.array(values, np.float64)})
    return Batch(1, (frame,), source, CLOCK.now_ns(), epoch, seq, gaps)


async def publish(out, message, verb=Verb.DATA):
    await out.publish(str(StreamTopic(SPACE, verb, RIG)), codec.encode(message))


async def announce(out):
    await out.publish(
        str(StreamTopic(SPACE, Verb.SPEC, RIG)), messages.encode_spec(SPEC), retain=True
    )


async def marked(out, upto, *, then=lambda: None):
    """Return once the recorder holds 1..upto of epoch e1."""
    async with (
        asyncio.timeout(10),
        out.subscribe(
            [str(MarkTopic(SPACE, RIG.owner))], capacity=100, overflow="drop_oldest"
        ) as marks,
    ):
        sent = then()
        if sent is not None:
            await sent
        async for message in marks:
            marks.ack(message)
            held = messages.decode_mark(message.payload).streams.get("rig", {}).get("e1")
            if held is not None and held.upto >= upto:
                return


async def history(owners, **params):
    whole = {"space": SPACE, "from": "2020-01-01T00:00:00Z", "to": "2030-01-01T00:00:00Z"}
    return await owners.request("GET", f"/streams/{RIG}/history", params=whole | params)


async def test_of_several_specs_only_those_that_changed_are_registered_anew(server, owners):
    first, second, third = (
        StreamSpec(StreamAddress("factory", "pump-rig", name), (Signal("p"),)) for name in "abc"
    )
    key = await credential(
        owners, "machine", writes=[RIG, *(s.address for s in (first, second, third))]
    )
    async with api_client.connect(f"http://{server.api}", key) as door:
        await door.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)
        assert [each.version for each in await door.register_specs([first, second])] == [1, 1]
        methods: list[str] = []
        door._http.event_hooks["request"].append(_noting(methods))
        changed = StreamSpec(second.address, (Signal("p"), Signal("q")))
        registered = await door.register_specs([first, changed, third])
        assert registered == [first.numbered(1), changed.numbered(2), third.numbered(1)]
        assert methods.count("POST") == 1
        by_one = await door.whole("/streams", StreamPage, page_items=1)
        assert by_one == await door.whole("/streams", StreamPage)
        assert len(by_one.items) == 3
        first_two = await door.whole("/streams", StreamPage, most=2)
        assert first_two.items == by_one.items[:2]
        assert first_two.next == str(by_one.items[1].stream)
        with pytest.raises(Corrupt, match="is no GrantResponse: id: it is missing"):
            await door.get("/me", GrantResponse)


def _noting(methods: list[str]):
    async def note(request):
        methods.append(request.method)

    return note


async def test_what_is_published_is_marked_and_stored_once(server, owners):
    async with machine(server, owners) as out:
        await announce(out)
        await marked(out, 2, then=lambda: both(out))
        await marked(out, 2, then=lambda: publish(out, batch(1, [1.5, 2.5]), Verb.LATE))
        (frame,) = (await history(owners))["frames"]
        assert frame["value"] == [1.5, 2.5, 3.5]


async def both(out):
    await publish(out, batch(1, [1.5, 2.5]))
    await publish(out, batch(2, [3.5], start=T0 + 10))


async def test_a_batch_waits_for_its_spec(server, owners):
    async with machine(server, owners) as out:
        await publish(out, batch(1, [1.5]))
        await marked(out, 1, then=lambda: announce(out))
        assert (await history(owners))["frames"][0]["value"] == [1.5]


async def test_what_does_not_fit_is_a_dead_letter_and_harms_nothing_else(server, owners):
    async with machine(server, owners) as out:
        await announce(out)
        odd = codec.encode(batch(1, [1.5, 2.5, 3.5])).replace(b"2.5", b'"two"')
        topic = str(StreamTopic(SPACE, Verb.DATA, RIG))
        await marked(out, 1, then=lambda: out.publish(topic, odd))
        assert (await history(owners))["frames"][0]["value"] == [1.5, 3.5]
        letters = await owners.request(
            "GET", f"/streams/{RIG}/dead-letters", params={"space": SPACE}
        )
        (letter,) = letters["items"]
        assert (letter["signal"], letter["value"]) == ("Pressure", '"two"')


async def test_a_batch_that_lies_about_its_source_is_a_dead_letter(server, owners):
    async with machine(server, owners) as out:
        await announce(out)
        await marked(out, 1, then=lambda: publish(out, batch(1, [1.5], source=Source.LIVE)))
        assert (await history(owners))["frames"] == []
        letters = await owners.request(
            "GET", f"/streams/{RIG}/dead-letters", params={"space": SPACE}
        )
        assert "source live from a simulated equipment" in letters["items"][0]["reason"]


async def test_gaps_stand_beside_the_history(server, owners):
    async with machine(server, owners) as out:
        await announce(out)
        gap = Gap(("Pressure",), T0 + 2, T0 + 5, "server-overflow")
        await marked(out, 1, then=lambda: publish(out, batch(1, [1.5], gaps=(gap,))))
        (stated,) = (await history(owners))["gaps"]
        assert (stated["signals"], stated["cause"]) == (["Pressure"], "server-overflow")


async def test_a_restart_loses_nothing_and_shows_no_credential_again(tmp_path):
    async with serving(tmp_path / "data") as server:
        async with (
            founded(f"http://{server.api}", server.administrator) as owners,
            machine(server, owners) as out,
        ):
            await announce(out)
            await marked(out, 1, then=lambda: publish(out, batch(1, [1.5])))
        secret = owners.secret
    async with serving(tmp_path / "data") as again:
        assert again.administrator is None
        async with api_client.connect(f"http://{again.api}", secret) as door:
            assert (await history(door))["frames"][0]["value"] == [1.5]


async def test_a_second_server_on_the_same_folder_is_refused(server, tmp_path):  # noqa: ARG001
    with pytest.raises(Taken, match="a server is running"):
        async with serving(tmp_path / "data"):
            pass


async def test_a_disk_that_is_nearly_full_is_said_before_a_batch_comes(tmp_path):
    settings = ServerSettings(folder=tmp_path, api_port=0, mqtt_port=0, free_bytes=2**62)
    async with (
        service.serve(settings, CLOCK) as server,
        api_client.connect(f"http://{server.api}", server.administrator) as api,
    ):
        assert (
            f"bytes are free on the disk of {tmp_path}"
            in (await api.request("GET", "/status"))["interrupted"]
        )
        async with httpx.AsyncClient(base_url=f"http://{server.api}") as http:
            headers = {"Authorization": f"Bearer {server.administrator}"}
            page = (await http.get("/api/v1/metrics", headers=headers)).text
    assert "\ntestbed_recorder_interrupted 1.0\n" in page
    assert "\ntestbed_recorder_disk_free_bytes " in page


async def test_a_folder_of_another_layout_is_refused(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "layout").write_text("99")
    with pytest.raises(Invalid.__mro__[1], match="layout '99'"):
        async with serving(folder):
            pass


async def test_a_port_in_use_is_named(server, tmp_path):
    settings = ServerSettings(folder=tmp_path / "other", api_port=server.api.port, mqtt_port=0)
    with pytest.raises(Taken, match=str(server.api.port)):
        async with service.serve(settings, CLOCK):
            pass


async def test_a_prototype_reads_answers_and_finds_its_answers_in_history(server, owners):
    key = await credential(owners, "detector", reads=[RIG], writes=[SCORE])
    async with machine(server, owners) as out, prototype(server, key, rig=RIG) as testbed:
        rig = testbed.input("rig")
        await rig.open()
        score = await testbed.output("score", [Signal("score"), Signal("word", Dtype.STRING)])
        await announce(out)
        await publish(out, batch(1, [1.5, 2.5]))
        received = await anext(aiter(rig))
        times, table = received.table("Pressure")
        assert table[:, 0].tolist() == [1.5, 2.5]
        assert 0 <= received.latency_s < 10
        await score.publish(
            times, {"score": [0.1, 0.2], "word": ["low", "high"]}, input_ns=int(times[-1])
        )
        async with asyncio.timeout(10):
            await score.wait_drained()
        stored = await testbed.history("score", from_ns=T0 - 1, to_ns=T0 + 100)
        assert stored["score"].values.tolist() == [0.1, 0.2]
        assert stored["word"].values.tolist() == ["low", "high"]
        assert stored["score"].quality.tolist() == [GOOD, GOOD]
        assert stored.pandas("score").index[0].value == T0
        span = {"from_ns": T0, "to_ns": T0 + 100, "every": "1ms"}
        mean = await testbed.history("score", "score", **span)
        assert mean["score"].values.tolist() == [pytest.approx(0.15)]
        assert mean["score"].time_ns.tolist() == [T0 - T0 % 1_000_000]
        last = await testbed.history("score", **span, how="last")
        assert last.pandas().iloc[0].tolist() == [0.2, "high"]
        with pytest.raises(Invalid, match="'word' is string"):
            await testbed.history("score", **span)


async def test_a_table_goes_on_with_the_last_value_until_a_batch_is_missed(server, owners):
    key = await credential(owners, "detector", reads=[RIG])
    async with machine(server, owners) as out, prototype(server, key, rig=RIG) as testbed:
        rig = testbed.input("rig")
        await rig.open()
        await announce(out)
        strokes = Wide(np.array([T0 - 1]), {"strokes": np.array([41])})
        first = batch(1, [1.0])
        await publish(out, replace(first, frames=(*first.frames, strokes)))
        await publish(out, batch(2, [2.0], start=T0 + 10))
        await publish(out, batch(4, [4.0], start=T0 + 30))
        tables = []
        async with asyncio.timeout(10):
            async for received in rig:
                tables.append(received.table("Pressure", "strokes", fill="last")[1].tolist())
                if received.missed is not None:
                    break
        nothing = pytest.approx(float("nan"), nan_ok=True)
        assert tables == [[[nothing, 41.0], [1.0, 41.0]], [[2.0, 41.0]], [[4.0, nothing]]]


async def test_windows_are_exported_to_every_kind_of_file(server, owners, tmp_path, monkeypatch):
    key = await credential(owners, "detector", reads=[RIG])
    async with machine(server, owners) as out:
        await announce(out)
        await marked(out, 1, then=lambda: publish(out, batch(1, [1.5, 2.5])))
    monkeypatch.setenv("TESTBED_API", f"http://{server.api}")
    monkeypatch.setenv("TESTBED_CREDENTIAL", key)
    query = client_history.aggregated(HistoryQuery(SPACE, T0, T0 + 100), "1s", "mean")
    files = [tmp_path / f"as-{ending[1:]}{ending}" for ending in client_history.ENDINGS]
    for path in files:
        await client_history.export(str(RIG), query, path)
    as_csv, as_json, as_parquet = files
    assert as_csv.read_text().splitlines()[1] == "2023-11-14T22:13:20.000000000Z,2.0,"
    assert orjson.loads(as_json.read_bytes())["every"] == "1s"
    with duckdb.connect() as sql:
        read = sql.read_parquet(str(as_parquet))
        assert [str(each) for each in read.types] == ["TIMESTAMP_NS", "DOUBLE", "DOUBLE"]
        assert read.fetchall()[0][1:] == (2.0, None)
    with pytest.raises(Invalid, match="and 'every' names no windows"):
        client_history.aggregated(query, None, "mean")


async def test_a_prototype_is_told_what_it_missed_and_may_have_it_from_history(server, owners):
    key = await credential(owners, "detector", reads=[RIG])
    async with machine(server, owners) as out, prototype(server, key, rig=RIG) as testbed:
        rig = testbed.input("rig", fill=True)
        await rig.open()
        await announce(out)
        await publish(out, batch(1, [1.0]))
        await publish(out, batch(2, [2.0], start=T0 + 10), Verb.LATE)
        await publish(out, batch(3, [3.0], start=T0 + 20))
        batches = aiter(rig)
        async with asyncio.timeout(15):
            first, filled, third = [await anext(batches) for _ in range(3)]
        assert first["Pressure"].values.tolist() == [1.0]
        assert filled.filled
        assert filled["Pressure"].values.tolist() == [2.0]
        assert (third.missed.first, third.missed.last) == (2, 2)
        assert [each.after_gap for each in (first, third)] == [False, True]


async def test_history_is_filled_in_from_the_last_batch_on_after_each_break(server, owners):
    key = await credential(owners, "detector", reads=[RIG])
    async with machine(server, owners) as out, prototype(server, key, rig=RIG) as testbed:
        rig = testbed.input("rig", fill=True)
        await rig.open()
        await announce(out)
        for number in range(1, 6):
            verb = Verb.LATE if number in {2, 4} else Verb.DATA
            await publish(out, batch(number, [float(number)], start=T0 + 10 * number), verb)
        batches = aiter(rig)
        async with asyncio.timeout(15):
            seen = [await anext(batches) for _ in range(5)]
        assert [each["Pressure"].values.tolist() for each in seen] == [[1], [2], [3], [4], [5]]
        assert [each.filled for each in seen] == [False, True, False, True, False]


async def test_a_silent_stream_is_stale_for_prototypes_and_operators(server, owners):
    key = await credential(owners, "detector", reads=[RIG])
    async with machine(server, owners) as out, prototype(server, key, rig=RIG) as testbed:
        assert (await testbed.freshness("rig")).state is Freshness.STALE
        for state, alarms in ((Freshness.FRESH, ()), (Freshness.STALE, ("node i=5 is missing",))):
            now_ns = CLOCK.now_ns()
            until_ns = now_ns + 60 * NS_PER_S
            health = Health(
                state=state, at_ns=now_ns, valid_until_ns=until_ns, last_ns=T0, alarms=alarms
            )
            topic = str(StreamTopic(SPACE, Verb.HEALTH, RIG))
            await out.publish(topic, messages.encode_health(health), retain=True)
            async with asyncio.timeout(2):
                while await testbed.freshness("rig") != health:
                    pass
            (row,) = (await owners.request("GET", "/status"))["streams"]
            assert (row["space"], row["state"], tuple(row["alarms"])) == (SPACE, state, alarms)


async def test_a_publisher_that_was_revoked_is_an_alarm_to_the_people_of_its_owner(server, owners):
    detector = await credential(owners, "detector", reads=[RIG])
    async with machine(server, owners) as out:
        now_ns = CLOCK.now_ns()
        until_ns = now_ns + 60 * NS_PER_S
        health = Health(state=Freshness.STALE, at_ns=now_ns, valid_until_ns=until_ns, last_ns=T0)
        topic = str(StreamTopic(SPACE, Verb.HEALTH, RIG))
        await out.publish(topic, messages.encode_health(health), retain=True)
        async with asyncio.timeout(2):
            while not (rows := (await owners.request("GET", "/status"))["streams"]):
                pass
        assert rows[0]["alarms"] == []
        await owners.request("DELETE", "/credentials/machine")
    (row,) = (await owners.request("GET", "/status"))["streams"]
    (alarm,) = row["alarms"]
    assert alarm.startswith(f"machine, the last that published {RIG.owner}, is let in no more: its")
    assert "was revoked by" in alarm
    async with api_client.connect(f"http://{server.api}", detector) as door:
        (row,) = (await door.request("GET", "/status"))["streams"]
    assert row["alarms"] == []


@pytest.mark.parametrize(
    "wrong", ["detector.AAAAAAAAAAAAAAAAAAAAAAAAAAAA", "nobody.AAAAAAAAAAAAAAAAAAAAAAAA"]
)
async def test_a_wrong_credential_is_forbidden_everywhere(server, wrong):
    with pytest.raises(Forbidden):
        async with prototype(server, wrong, rig=RIG):
            pass
    async with api_client.connect(f"http://{server.api}", wrong) as door:
        with pytest.raises(Forbidden.__mro__[1]):
            await door.request("GET", "/me")


async def test_a_refused_credential_and_a_broker_that_is_away_are_each_told_once(server):
    wrong = bus(server, "nobody.AAAAAAAAAAAAAAAAAAAAAAAA")
    url = f"mqtt://127.0.0.1:{free_port()}"
    away = BusSettings(broker=url, credential=wrong.credential, timeout_s=0.5)
    for seat, error, warnings in (
        (wrong, Forbidden, []),
        (away, Unavailable, ["broker is tried again"]),
    ):
        with capture_logs() as logs:
            async with client.open(seat, CLOCK, client_id="nobody--1") as refused:
                with pytest.raises(error):
                    await refused.ready()
        events = [each["event"] for each in logs if each["log_level"] == "warning"]
        assert [each for each in events if each.startswith("broker")] == warnings


async def test_an_unbound_name_says_what_is_bound(server, owners):
    key = await credential(owners, "detector", reads=[RIG])
    async with prototype(server, key, rig=RIG) as testbed:
        with pytest.raises(Unknown, match="bound are: rig"):
            testbed.input("press")


@pytest.mark.parametrize(
    ("times", "values", "sentence"),
    [
        ([1.5], {"score": [0.1]}, "ns since 1970"),
        ([T0, T0 + 1], {"score": [0.1]}, "1 values for 2 times"),
        ([T0], {"speed": [0.1]}, "no signal 'speed'"),
        ([T0], {"score": ["high"]}, "give float64"),
    ],
)
async def test_an_output_that_does_not_fit_is_refused(server, owners, times, values, sentence):
    key = await credential(owners, "detector", writes=[SCORE])
    async with prototype(server, key) as testbed:
        score = await testbed.output("score", [Signal("score")])
        with pytest.raises(Invalid, match=sentence):
            await score.publish(times, values)


async def test_a_bad_sample_is_stored_as_bad(server, owners):
    key = await credential(owners, "detector", writes=[SCORE])
    async with prototype(server, key) as testbed:
        score = await testbed.output("score", [Signal("score")])
        await score.publish([T0], {"score": [float("nan")]}, quality={"score": [BAD]})
        async with asyncio.timeout(10):
            await score.wait_drained()
    key = await credential(owners, "reader", reads=[SCORE])
    async with api_client.connect(f"http://{server.api}", key) as door:
        whole = {"space": SPACE, "from": "2020-01-01T00:00:00Z"}
        (frame,) = (await door.request("GET", f"/streams/{SCORE}/history", params=whole))["frames"]
        assert (frame["value"], frame["quality"]) == ([None], ["bad"])


async def test_the_status_has_the_newest_sample_of_an_output_for_its_own_machine_too(
    server, owners
):
    key = await credential(owners, "detector", writes=[SCORE])
    other = await credential(owners, "other", writes=[StreamAddress("company", "other", "score")])
    async with prototype(server, key) as testbed:
        score = await testbed.output("score", [Signal("score")])
        await score.publish([T0], {"score": [0.5]})
        async with asyncio.timeout(10):
            await score.wait_drained()
    expected = {"stream": str(SCORE), "space": SPACE, "state": None, "last": text_of(T0)}
    async with api_client.connect(f"http://{server.api}", key) as door:
        for asker in (owners.doors[SCORE.organisation], door):
            (row,) = (await asker.request("GET", "/status"))["streams"]
            assert {name: row[name] for name in expected} == expected
    async with api_client.connect(f"http://{server.api}", other) as door:
        assert (await door.request("GET", "/status"))["streams"] == []


async def test_any_mqtt_client_can_take_part(server, owners):
    mean = StreamAddress("company", "plain", "mean")
    key = await credential(owners, "plain", reads=[RIG], writes=[mean])
    environment = os.environ | {
        "TESTBED_API": f"http://{server.api}",
        "TESTBED_BROKER": f"mqtt://{server.broker}",
        "TESTBED_CREDENTIAL": key,
        "TESTBED_SPACE": SPACE,
    }
    async with machine(server, owners) as out:
        await announce(out)
        plain = await asyncio.create_subprocess_exec(
            sys.executable, str(EXAMPLE), env=environment, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(15):
                while not await _printed(plain):
                    await publish(out, batch(CLOCK.now_ns(), [1.0, 2.0]))
                whole = {"space": SPACE, "from": "2020-01-01T00:00:00Z"}
                values = []
                while not values:
                    answer = await owners.doors["company"].request(
                        "GET", f"/streams/{mean}/history", params=whole
                    )
                    values = answer["frames"]
        finally:
            plain.terminate()
            await plain.wait()
            plain._transport.close()
        assert values[0]["value"][0] == 1.5


async def _printed(process):
    try:
        async with asyncio.timeout(0.5):
            return (await process.stdout.readline()).startswith(b"mean pressure 1.5")
    except TimeoutError:
        return False
