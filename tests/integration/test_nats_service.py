"""A NATS server of its own, with several processes that answer for it."""

import asyncio
import contextlib

import pytest
from pydantic import SecretStr

from broker import tls
from broker.backends.nats import server as nats_server
from broker.backends.nats.child_process import _binary
from broker.backends.nats.server import Keys, NatsDeployment, NatsSettings
from broker.bus import client
from broker.clock import WallClock
from broker.credential import Credential
from broker.errors import Forbidden, Invalid, Unavailable
from broker.settings import Address, BusSettings
from broker.tls import Trust
from testbed.server import pki
from testbed_api.security.certificates import certificate_in
from tests import services

ADA = Credential("ada", "ada-secret-of-24-letters")
EVERYTHING = nats_server.Permissions(frozenset({"t/#"}), frozenset({"t/#"}))
KEYS = Keys.make()


class Porter:
    """Answers for ada as a test says, and counts who asked."""

    def __init__(self) -> None:
        self.entry: nats_server.Permissions | None = EVERYTHING
        self.requests = 0

    async def answer(self, request: nats_server.ConnectRequest) -> nats_server.Permissions | None:
        self.requests += 1
        return self.entry if request.secret == ADA.secret else None


@contextlib.contextmanager
def running(folder, inner, mqtt, keys=KEYS, certificate=None):
    file = folder / "nats.conf"
    place = NatsDeployment(inner=inner, store=folder / "jetstream")
    file.write_text(nats_server.config(place, mqtt, NatsSettings(certificate=certificate), keys))
    ready = [inner.port, mqtt.port]
    with services.running(
        [_binary(), "--config", str(file)],
        folder=folder,
        ready=lambda: all(map(services.accepts, ready)),
    ) as product:
        yield product


@pytest.fixture
def addresses():
    return [Address("127.0.0.1", services.free_port()) for _ in range(2)]


@pytest.fixture
def server(tmp_path, addresses):
    with running(tmp_path, *addresses) as product:
        yield product


def joined(addresses, porter, keys=KEYS, trust=None):
    server = nats_server.external(*addresses, keys=keys, clock=WallClock(), trust=trust)
    return server.serve(porter.answer)


def opened(addresses, client_id="ada"):
    settings = BusSettings(broker=f"mqtt://{addresses[1]}", credential=SecretStr(ADA.text))
    return client.open(settings, WallClock(), client_id=client_id)


async def refused(bus):
    """Return when it was sent away and may not come back."""
    async with asyncio.timeout(10):
        while bus.is_connected or not isinstance(bus.last_error, Forbidden):
            await WallClock().sleep(0.02)


@pytest.mark.usefixtures("server")
async def test_each_connection_is_answered_by_one_of_several(addresses):
    porters = Porter(), Porter()
    async with joined(addresses, porters[0]), joined(addresses, porters[1]):
        for at in range(10):
            async with opened(addresses, f"ada--{at}") as ada:
                await ada.ready()
        assert sum(porter.requests for porter in porters) == 10


@pytest.mark.usefixtures("server")
async def test_a_disconnect_reaches_whom_another_let_in(addresses):
    porter = Porter()
    async with joined(addresses, porter) as first, contextlib.AsyncExitStack() as stack:
        ada = await stack.enter_async_context(opened(addresses))
        await ada.ready()
        async with joined(addresses, porter) as second:
            porter.entry = None
            await second.disconnect("ada")
            await refused(ada)
        porter.entry = EVERYTHING
        await first.disconnect("nobody")


@pytest.mark.usefixtures("server")
async def test_a_disconnect_reaches_whom_an_earlier_process_let_in(addresses):
    porter = Porter()
    async with contextlib.AsyncExitStack() as stack:
        async with joined(addresses, porter):
            ada = await stack.enter_async_context(opened(addresses))
            await ada.ready()
        async with joined(addresses, porter) as later:
            assert ada.is_connected
            porter.entry = None
            await later.disconnect("ada")
            await refused(ada)


async def test_a_server_that_restarts_is_answered_for_again(addresses, tmp_path):
    porter = Porter()
    with running(tmp_path, *addresses):
        stack = contextlib.AsyncExitStack()
        nats = await stack.enter_async_context(joined(addresses, porter))
        ada = await stack.enter_async_context(opened(addresses))
        await ada.ready()
    async with stack:
        with pytest.raises(Unavailable, match="ada was disconnected"):
            await nats.disconnect("ada")
        with running(tmp_path, *addresses):
            async with asyncio.timeout(15):
                assert await ada.connection(after=1) == 2
            await nats.disconnect("ada")


@pytest.mark.usefixtures("server")
async def test_wrong_keys_are_told(addresses, monkeypatch):
    monkeypatch.setattr("broker.backends.nats.auth_service.START_S", 0.5)
    with pytest.raises(Unavailable, match="did not answer in"):
        async with joined(addresses, Porter(), Keys.make()):
            pass
    for seed in ("SA", "SUAM", ""):
        with pytest.raises(Invalid, match="signing key"):
            async with joined(addresses, Porter(), Keys("a", "b", seed)):
                pass


async def test_an_inner_door_with_tls_is_asked_who_it_is(tmp_path, addresses, monkeypatch):
    monkeypatch.setattr("broker.backends.nats.auth_service.START_S", 2)
    pki.init(tmp_path / "pki", (), WallClock().now_ns())
    pki.init(tmp_path / "stranger", (), WallClock().now_ns())
    everywhere = Address("0.0.0.0", addresses[0].port)  # noqa: S104
    certificate = certificate_in(tmp_path / "pki", "broker")
    with running(tmp_path, everywhere, addresses[1], certificate=certificate):
        for folder, name, sentence in (
            ("pki", "", None),
            ("stranger", "", "of no authority that we trust"),
            ("pki", "elsewhere", "is another's"),
        ):
            trust = Trust(tls.client_context(tmp_path / folder / "ca.pem"), name)
            joining = joined(addresses, Porter(), trust=trust)
            if sentence is None:
                async with joining as nats:
                    await nats.disconnect("nobody")
                continue
            with pytest.raises(Unavailable, match=sentence) as refused:
                async with joining:
                    pass
            assert "TESTBED_" in refused.value.hint
        with pytest.raises(
            Unavailable, match="did not answer in"
        ):  # in the clear: it hears nothing
            async with joined(addresses, Porter()):
                pass
