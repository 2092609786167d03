"""The embedded broker lets in whom we answer for, to what we answered, and nobody else."""

import asyncio
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import orjson
import psutil
import pytest
from pydantic import SecretStr

from broker.backends.nats import server as nats_server
from broker.bus import client
from broker.clock import NS_PER_S, WallClock
from broker.credential import Credential
from broker.errors import Forbidden, Invalid, Refused, Taken, Unavailable
from broker.process import tasks
from broker.settings import BusSettings
from tests import services
from tests.probes import wire

ADA = Credential("ada", "ada-secret-of-24-letters")
BERT = Credential("bert", "bert-secret-of-25-letters")
OWN = "t/ada"
SECRETS = {credential.principal: credential.secret for credential in (ADA, BERT)}


class Porter:
    """Answers as a test says: ada publishes and reads `t/ada`, bert everything below `t/`."""

    def __init__(self) -> None:
        self.entries = {
            "ada": nats_server.Permissions(frozenset({OWN}), frozenset({OWN})),
            "bert": nats_server.Permissions(frozenset({"t/#"}), frozenset({"t/#"})),
        }
        self.requests: list[nats_server.ConnectRequest] = []
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.takes_s = 0.0

    async def answer(self, request: nats_server.ConnectRequest) -> nats_server.Permissions | None:
        self.requests.append(request)
        await WallClock().sleep(self.takes_s)
        entry = self.entries.get(request.principal)
        self.asked.set()
        await self.may_answer.wait()
        return entry if SECRETS.get(request.principal) == request.secret else None


@pytest.fixture
def porter() -> Porter:
    return Porter()


@pytest.fixture
async def nats(tmp_path, porter) -> AsyncIterator[nats_server.NatsBroker]:
    async with nats_server.embedded(tmp_path, clock=WallClock()).serve(porter.answer) as nats:
        yield nats


def opened(nats: nats_server.NatsBroker, who: Credential, client_id: str = "", **changed: object):
    settings = BusSettings(broker=f"mqtt://{nats.mqtt}", credential=SecretStr(who.text), **changed)
    return client.open(settings, WallClock(), client_id=client_id or who.principal)


@asynccontextmanager
async def ada_and_bert(
    nats: nats_server.NatsBroker,
) -> AsyncIterator[tuple[client.Bus, client.Bus]]:
    async with opened(nats, ADA) as ada, opened(nats, BERT) as bert:
        await ada.ready()
        await bert.ready()
        yield ada, bert


def server_pid() -> int:
    """The broker's process, among whatever else this session runs."""
    (server,) = [
        process for process in psutil.Process().children() if process.name() == "nats-server"
    ]
    return server.pid


# --- who may come in ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "client_id"),
    [
        (Credential("ada", BERT.secret), "ada"),
        (Credential("carol", ADA.secret), "carol"),
        (Credential("callout", "x" * 16), "callout"),
        (Credential("system", "x" * 16), "system"),
        (ADA, "bert"),
        (ADA, "bert--1"),
        (ADA, "adabert"),
        (ADA, "ada-"),
        (ADA, "xada--1"),
    ],
    ids=lambda value: getattr(value, "principal", value),
)
async def test_a_wrong_secret_name_or_client_id_is_refused(nats, who, client_id):
    async with opened(nats, who, client_id) as bus:
        with pytest.raises(Forbidden, match="refused the credential"):
            await bus.ready()


async def test_several_clients_of_one_principal_come_in_under_ids_of_their_own(nats):
    async with opened(nats, ADA) as first, opened(nats, ADA, "ada--2f") as second:
        await first.ready()
        await second.ready()


def test_a_principal_that_could_share_a_client_id_with_another_is_refused():
    request = nats_server.ConnectRequest(principal="ada--x", secret=ADA.secret, client_id="ada--x")
    assert not nats_server.auth_callout.is_bound(request)
    with pytest.raises(Invalid, match="ada--x"):
        Credential("ada--x", ADA.secret)


async def test_nobody_without_a_credential_comes_in_by_mqtt(nats):
    anonymous = b"\x10\x0f\x00\x04MQTT\x04\x02\x00\x0a\x00\x03ada"
    assert await services.answer_to(nats.mqtt.port, anonymous) == b"\x20\x02\x00\x05"


def listening_ports(pid: int) -> set[int]:
    """Where a process listens, as the kernel tells it; on loopback alone."""
    ends = [
        each.laddr
        for each in psutil.Process(pid).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    ]
    assert all(end.ip == "127.0.0.1" for end in ends)
    return {end.port for end in ends}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"user": "ada", "pass": ADA.secret, "name": "ada"},
        {"user": "callout", "pass": "guessed"},
    ],
    ids=["nothing", "a good credential", "a guess"],
)
async def test_nobody_comes_in_by_the_inner_door(nats, options):
    (inner,) = listening_ports(server_pid()) - {nats.mqtt.port}
    connect = b"CONNECT " + orjson.dumps({"verbose": False, "protocol": 1} | options)
    said = await services.answer_to(inner, connect + b"\r\nPING\r\n")
    assert b"-ERR 'Authorization Violation'" in said
    assert b"PONG" not in said


async def test_one_refusal_is_not_the_last_word(nats, porter):
    entry = porter.entries.pop("ada")
    async with opened(nats, ADA) as bus:
        with pytest.raises(Forbidden):
            await bus.ready()
        porter.entries["ada"] = entry
        async with asyncio.timeout(1):
            while not bus.is_connected:
                await WallClock().sleep(0.02)


async def test_the_broker_says_who_came_in_and_who_left(nats, porter):
    began, ended = [], []
    nats.on_connect(began.append)
    nats.on_disconnect(lambda connection, _how: ended.append(connection))
    async with opened(nats, Credential("carol", ADA.secret)) as bus:
        with pytest.raises(Forbidden):
            await bus.ready()
    async with opened(nats, ADA) as bus:
        await bus.ready()
        (request,) = [each for each in porter.requests if each.principal == "ada"]
        async with asyncio.timeout(2):
            while not began:
                await WallClock().sleep(0.01)
    async with asyncio.timeout(2):
        while not ended:
            await WallClock().sleep(0.01)
    assert (began, ended) == ([request.connection], [request.connection])


async def test_many_are_let_in_side_by_side(nats, porter):
    porter.takes_s, began_s = 0.2, asyncio.get_running_loop().time()
    async with AsyncExitStack() as stack:
        buses = [
            await stack.enter_async_context(opened(nats, ADA, f"ada--{number}"))
            for number in range(60)
        ]
        for bus in buses:
            await bus.ready()
        took_s = asyncio.get_running_loop().time() - began_s
    assert took_s < 60 * porter.takes_s / 2


async def test_who_is_refused_again_and_again_asks_ever_more_seldom(nats):
    clock = Hasty()
    bus = client.Bus(
        BusSettings(
            broker=f"mqtt://{nats.mqtt}",
            credential=SecretStr(Credential("carol", ADA.secret).text),
        ),
        clock,
        client_id="carol",
        durable=False,
    )
    async with tasks.background({"bus": bus.run()}), asyncio.timeout(10):
        while len(clock.pauses_s) < 30:
            await WallClock().sleep(0.02)
    first, *others = clock.pauses_s
    assert first <= client.FIRST_PAUSE_S
    for at, pause_s in enumerate(others):
        assert pause_s <= min(client.FIRST_REFUSED_PAUSE_S * 2**at, client.LONGEST_REFUSED_PAUSE_S)
    assert max(others) > client.LONGEST_REFUSED_PAUSE_S / 2


class Hasty(WallClock):
    """A clock that notes its pauses, and makes none."""

    def __init__(self) -> None:
        self.pauses_s: list[float] = []

    async def sleep(self, duration_s: float) -> None:
        self.pauses_s.append(duration_s)
        await super().sleep(0)


# --- to what --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        "#",
        "+/ada",
        "t/+",
        "t/#",
        "t/ada/#",
        "t/bert",
        "$SYS/#",
        "$MQTT/#",
        "$MQTT/sub/#",
        "$JS/#",
        "+/+",
        "/t/ada",
        "t.ada",
    ],
)
async def test_what_is_not_in_the_entry_cannot_be_subscribed(nats, wanted):
    async with opened(nats, ADA) as bus:
        await bus.ready()
        async with bus.subscribe([wanted], capacity=10, overflow="block") as inbox:
            with pytest.raises(Forbidden, match="refused to subscribe"):
                async with asyncio.timeout(2):
                    await anext(inbox)


@pytest.mark.parametrize(
    "topic", ["t/bert", "t/ada/x", "t", "x", "$SYS/REQ/USER/AUTH", "$MQTT/msgs/t/bert"]
)
@pytest.mark.parametrize("retain", [False, True], ids=["passing", "retained"])
async def test_what_is_published_outside_the_entry_reaches_nobody(nats, topic, retain):
    async with ada_and_bert(nats) as (ada, bert):
        async with bert.subscribe(["t/#"], capacity=10, overflow="block") as inbox:
            await bert.publish("t/before", b"")
            try:
                await ada.publish(topic, b"forbidden", retain=retain)
            except Unavailable:
                await ada.connection(after=1)
            await ada.publish(OWN, b"allowed")
            await bert.publish("t/after", b"")
            assert [(await anext(inbox)).topic for _ in range(3)] == ["t/before", OWN, "t/after"]
        async with bert.subscribe(["t/#"], capacity=10, overflow="block") as inbox:
            await bert.publish("t/nothing-kept", b"")
            assert (await anext(inbox)).topic == "t/nothing-kept"


async def test_a_will_outside_the_entry_reaches_nobody(nats):
    client_id, topic, will, user, password = "ada", "t/bert", "forbidden", "ada", ADA.secret
    rest = b"\x00\x04MQTT\x04\xc6\x00\x0a" + b"".join(
        len(text).to_bytes(2, "big") + text.encode()
        for text in (client_id, topic, will, user, password)
    )
    async with opened(nats, BERT) as bert:
        await bert.ready()
        async with bert.subscribe(["t/#"], capacity=10, overflow="block") as inbox:
            reader, writer = await asyncio.open_connection(nats.mqtt.host, nats.mqtt.port)
            writer.write(b"\x10" + len(rest).to_bytes(1, "big") + rest)
            await reader.read(4)
            writer.transport.abort()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await anext(inbox)


async def test_a_retained_message_outside_the_entry_is_not_shown(nats):
    async with ada_and_bert(nats) as (ada, bert):
        await bert.publish("t/secret", b"", retain=True)
        await bert.publish(OWN, b"shown", retain=True)
        async with ada.subscribe([OWN], capacity=10, overflow="block") as inbox:
            assert (await anext(inbox)).payload == b"shown"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await anext(inbox)


async def test_a_wider_filter_covers_its_own_root_and_all_below(nats):
    async with opened(nats, BERT) as bert:
        await bert.ready()
        async with bert.subscribe(["t/#"], capacity=10, overflow="block") as inbox:
            for topic in ("t", "t/a", "t/a/b"):
                await bert.publish(topic, b"")
                assert (await anext(inbox)).topic == topic


@pytest.mark.parametrize(
    "topic_filter", ["a.b", "a/*", "a/>", "a//b", "/a", "a/", "a/#/b", "a+", "$SYS/#", "a b", ""]
)
def test_a_filter_that_nats_would_read_otherwise_is_not_granted(topic_filter):
    with pytest.raises(Invalid, match="is not a filter that can be granted"):
        nats_server.auth_callout.subjects(topic_filter)


# --- for how long ---------------------------------------------------------------------------------


async def test_a_disconnect_silences_and_the_next_connection_is_answered_anew(nats, porter):
    async with ada_and_bert(nats) as (ada, bert):
        async with ada.subscribe([OWN], capacity=10, overflow="block") as inbox:
            porter.entries["ada"] = nats_server.Permissions(frozenset(), frozenset())
            await nats.disconnect("ada")
            await bert.publish(OWN, b"after the disconnect")
            with pytest.raises(Forbidden, match=OWN):
                await anext(inbox)
            assert await ada.connection() == 2
        assert await bert.connection() == 1


async def test_a_disconnect_reaches_who_is_just_being_answered(nats, porter):
    porter.may_answer.clear()
    async with opened(nats, ADA) as ada:
        await porter.asked.wait()
        porter.entries["ada"] = None  # too late for the answer that is under way
        await nats.disconnect("ada")
        porter.may_answer.set()
        with pytest.raises(Forbidden):
            await ada.ready()


async def test_an_entry_ends_a_connection_at_its_expiry(nats, porter):
    entry = porter.entries["ada"]
    now_ns = WallClock().now_ns()
    porter.entries["ada"] = nats_server.Permissions(
        entry.publish, entry.subscribe, now_ns + 2 * NS_PER_S
    )
    async with opened(nats, ADA) as ada:
        await ada.ready()
        porter.entries["ada"] = None
        while ada.is_connected:
            await WallClock().sleep(0.02)
        assert 1 <= (WallClock().now_ns() - now_ns) / NS_PER_S <= 4


async def test_an_entry_that_has_expired_lets_nobody_in(nats, porter):
    entry = porter.entries["ada"]
    past_ns = WallClock().now_ns() - NS_PER_S
    porter.entries["ada"] = nats_server.Permissions(entry.publish, entry.subscribe, past_ns)
    async with opened(nats, ADA, timeout_s=2) as ada:
        with pytest.raises(Forbidden):
            await ada.ready()


@pytest.mark.parametrize("durable", [True, False], ids=["may keep", "may not"])
async def test_what_came_while_a_client_was_away_is_sent_to_whom_that_is_allowed(
    nats, porter, durable
):
    porter.entries["ada"] = replace(porter.entries["ada"], durable=durable)

    def durable_client() -> object:
        settings = BusSettings(broker=f"mqtt://{nats.mqtt}", credential=SecretStr(ADA.text))
        return client.open(settings, WallClock(), client_id="ada", durable=True)

    async with durable_client() as ada, ada.subscribe([OWN], capacity=10, overflow="block"):
        await ada.ready()
    async with opened(nats, BERT) as bert:
        await bert.ready()
        await bert.publish(OWN, b"while away")
        async with (
            durable_client() as ada,
            ada.subscribe([OWN], capacity=10, overflow="block") as inbox,
        ):
            await ada.ready()
            await bert.publish(OWN, b"when back")
            expected = [b"while away", b"when back"] if durable else [b"when back"]
            assert [(await anext(inbox)).payload for _ in expected] == expected


# --- its life -------------------------------------------------------------------------------------


async def test_retained_messages_are_kept_between_starts(tmp_path, porter):
    for expected in ([], [b"kept"]):
        async with (
            nats_server.embedded(tmp_path, clock=WallClock()).serve(porter.answer) as nats,
            opened(nats, ADA) as ada,
        ):
            await ada.ready()
            async with ada.subscribe([OWN], capacity=10, overflow="block") as inbox:
                for payload in expected:
                    assert (await anext(inbox)).payload == payload
                await ada.publish(OWN, b"kept", retain=True)


async def test_rights_and_disconnects_work_after_a_crash(nats):
    async with ada_and_bert(nats) as (ada, bert):
        os.kill(server_pid(), signal.SIGKILL)
        async with asyncio.timeout(10):
            await ada.connection(after=1)
            await bert.connection(after=1)
        await nats.disconnect("ada")
        async with asyncio.timeout(5):
            assert await ada.connection(after=2) == 3
        assert await bert.connection() == 2


async def test_a_port_in_use_is_taken(nats, tmp_path):
    taken = nats_server.NatsSettings(mqtt_port=nats.mqtt.port)
    with pytest.raises(Taken, match=f"127.0.0.1:{nats.mqtt.port}"):
        nats_server.embedded(tmp_path / "2", clock=WallClock(), settings=taken)


def test_the_two_doors_of_a_server_have_two_ports():
    for _ in range(50_000):  # asked for one after the other they were the same once in 14,000
        mqtt, inner = nats_server.listening_ports.choose("127.0.0.1", 0)
        assert mqtt.port != inner.port


async def test_a_server_that_does_not_start_says_why(tmp_path, porter):
    (tmp_path / "jetstream").write_text("not a folder")
    with pytest.raises(Unavailable, match=r"did not start:\n(.|\n)*storage directory is not"):
        async with nats_server.embedded(tmp_path, clock=WallClock()).serve(porter.answer):
            pass


async def test_an_error_inside_comes_out_as_it_is(tmp_path, porter):
    with pytest.raises(Refused, match="by the one inside"):
        async with nats_server.embedded(tmp_path, clock=WallClock()).serve(porter.answer):
            raise Refused("by the one inside")


@pytest.mark.usefixtures("nats")
def test_its_secrets_are_nobody_elses_to_read(tmp_path):
    assert stat.S_IMODE((tmp_path / "nats.conf").stat().st_mode) == 0o600


PARENT = """
import asyncio, sys
from pathlib import Path
from broker.backends.nats import server as nats
from broker.clock import WallClock

async def nobody(knock):
    return None

async def main():
    async with nats.embedded(Path(sys.argv[1]), clock=WallClock()).serve(nobody) as broker:
        print(broker.mqtt.port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_server_ends_when_its_parent_is_killed(tmp_path):
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, tmp_path, stdout=asyncio.subprocess.PIPE
    )
    port = int(await parent.stdout.readline())
    assert services.accepts(port)
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(5):
        while services.accepts(port):
            await WallClock().sleep(0.02)


async def test_a_connection_has_three_filters_at_qos_1_and_any_number_at_qos_0(nats):
    filters = [f"t/{number}" for number in range(47)]
    async with wire.opened(nats.mqtt, BERT.text) as line:
        assert await line.subscribe(filters[:4], qos=1) == [True] * 3 + [False]
        assert await line.subscribe(filters[4:], qos=0) == [True] * 43
