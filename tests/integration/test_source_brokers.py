"""Brokers of others: TLS with and without certificates, MQTT 5, websockets, refusals."""

import asyncio
import contextlib
from functools import partial

import paho.mqtt.publish as paho_publish
import pytest

from broker.batch import GOOD
from broker.clock import WallClock
from broker.errors import BedError, Forbidden, Unavailable
from gateway.commissioning import mqtt_browse
from gateway.links.mqtt.link import MqttLink
from gateway.mapping import file as mapping_file
from tests import services
from tests.integration.machines import RecordingSink
from tests.services import certificates, mosquitto

CLOCK = WallClock()
PASSWORD = mosquitto.PASSWORDS["ada"]
TEXT = """\
organisation: factory
equipment: press
kind: real
mqtt: {MQTT, user: ada, keepalive_s: 2, timeout_s: 5}
streams:
  s: {signals: {warm: {topic: press/warm}}}
"""
LISTENERS = ("mqtt", "mqtts", "ws", "wss", "strict")
"""`strict` wants a certificate of its clients."""


class Place:
    """A Mosquitto with a listener of each kind, and certificates of an authority and of another."""

    def __init__(self, folder):
        self.folder = folder
        self.ports = {name: services.free_port() for name in LISTENERS}
        authority = certificates.make(uri="authority", is_authority=True)
        self.ca, _ = authority.write(folder / "ca")
        other = certificates.make(uri="other", is_authority=True)
        self.other_ca, _ = other.write(folder / "other-ca")
        self.server = certificates.make(issuer=authority).write(folder / "server")
        purpose = certificates.ExtendedKeyUsageOID.CLIENT_AUTH
        client = certificates.make(uri="client", issuer=authority, purpose=purpose)
        self.client = client.write(folder / "client")
        stranger = certificates.make(uri="stranger", issuer=other, purpose=purpose)
        self.stranger = stranger.write(folder / "stranger")

    @contextlib.contextmanager
    def serving(self, server=None):
        """Run it; server: certificate and key that its listeners show."""
        chain, key = server or self.server
        tls = [f"certfile {chain}", f"keyfile {key}"]
        folder = self.folder / f"run-{services.free_port()}"
        folder.mkdir()
        config = mosquitto.configure(folder, self.ports["mqtt"], None)
        lines = [config.read_text()]
        for name in LISTENERS[1:]:
            lines.append(f"listener {self.ports[name]} 127.0.0.1")
            lines += ["protocol websockets"] if name.startswith("ws") else []
            lines += tls if name != "ws" else []
            if name == "strict":
                lines += [f"cafile {self.ca}", "require_certificate true"]
        config.write_text("\n".join(lines) + "\n")
        command = [services.found("mosquitto", "/usr/sbin/mosquitto"), "-c", str(config)]
        ready = self.ports["strict"]
        with services.running(
            command, folder=folder, ready=lambda: services.accepts(ready)
        ) as product:
            yield product

    def mapping(self, listener, **fields):
        """The mapping that reads one of the listeners."""
        scheme = "mqtts" if listener == "strict" else listener
        stated = {"url": f"{scheme}://127.0.0.1:{self.ports[listener]}", **fields}
        words = ", ".join(f'{name}: "{value}"' for name, value in stated.items())
        return mapping_file.read(TEXT.replace("MQTT", words), "m")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def served(place):
    with place.serving():
        yield place


async def publish(place, payload):
    login = {"username": "bert", "password": mosquitto.PASSWORDS["bert"]}
    single = partial(paho_publish.single, "press/warm", payload, qos=1, auth=login)
    await asyncio.to_thread(single, port=place.ports["mqtt"])


@contextlib.asynccontextmanager
async def reading(mapping):
    sink = RecordingSink(names=mapping.streams[0].spec.names)
    link = MqttLink(mapping, mapping.source, PASSWORD, sink, CLOCK)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run(), name="link")
        yield link, sink
        running.cancel()


WAYS = {
    "MQTT 5": ("mqtt", {"version": "5"}),
    "TLS": ("mqtts", {"ca": "CA"}),
    "TLS, MQTT 5": ("mqtts", {"ca": "CA", "version": "5"}),
    "websocket": ("ws", {}),
    "websocket with TLS": ("wss", {"ca": "CA"}),
    "client certificate": ("strict", {"ca": "CA", "certificate": "CLIENT", "key": "KEY"}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_broker_is_read_in_each_way_that_factories_have(served, way):
    listener, fields = WAYS[way]
    names = {"CA": served.ca, "CLIENT": served.client[0], "KEY": served.client[1]}
    mapping = served.mapping(listener, **{k: names.get(v, v) for k, v in fields.items()})
    async with reading(mapping) as (link, sink):
        await sink.until(lambda: link.counts.connects == 1)
        for number in range(3):
            await publish(served, str(number))
        await sink.until(lambda: len(sink.samples) == 3)
        await CLOCK.sleep(3 * 2 + 1)  # longer than the keep-alive, three times
        assert link.counts.connects == 1
    assert [(value, quality) for _, _, value, quality in sink.samples] == [
        (float(number), GOOD) for number in range(3)
    ]


@pytest.mark.parametrize(
    ("listener", "fields", "error", "said"),
    [
        ("mqtts", {"ca": "OTHER"}, Forbidden, "is of no authority that we trust"),
        ("mqtts", {}, Forbidden, "is of no authority that we trust"),
        ("strict", {"ca": "CA"}, BedError, "a certificate of its clients"),
        (
            "strict",
            {"ca": "CA", "certificate": "STRANGER", "key": "STRANGER-KEY"},
            BedError,
            "mqtt.certificate",
        ),
        ("mqtt", {"url": "mqtts://127.0.0.1:PORT", "ca": "CA"}, Unavailable, "does not speak TLS"),
        ("mqtts", {"url": "mqtt://127.0.0.1:PORT"}, Unavailable, "write mqtts:// into mqtt.url"),
        ("ws", {"url": "mqtt://127.0.0.1:PORT"}, Unavailable, "closed the connection"),
        ("mqtt", {"url": "ws://127.0.0.1:PORT"}, Unavailable, "is ws the right protocol"),
        ("mqtt", {"user": "nobody"}, Forbidden, "did not let user 'nobody' in"),
        ("mqtt", {"user": "nobody", "version": "5"}, Forbidden, "did not let user 'nobody' in"),
        ("mqtts", {"ca": "/no/such.pem"}, Forbidden, "/no/such.pem"),
    ],
)
async def test_what_a_broker_refuses_is_said_in_words(served, listener, fields, error, said):
    names = {
        "CA": served.ca,
        "OTHER": served.other_ca,
        "STRANGER": served.stranger[0],
        "STRANGER-KEY": served.stranger[1],
    }
    fields = {k: names.get(v, v) for k, v in fields.items()}
    fields = {k: str(v).replace("PORT", str(served.ports[listener])) for k, v in fields.items()}
    user = fields.pop("user", "ada")
    text = served.mapping(listener, **fields)
    broker = text.source.__class__(
        **{name: getattr(text.source, name) for name in text.source.__slots__} | {"user": user}
    )
    with pytest.raises(error) as refused:
        await mqtt_browse.listen(broker, PASSWORD, ("press/#",), 3.0)
    assert said in str(refused.value)
    assert refused.value.hint


async def test_a_certificate_of_another_host_or_one_that_has_expired_is_refused(tmp_path):
    for number, (certificate, error, said) in enumerate(
        [
            (certificates.make(host="192.0.2.1"), Forbidden, "is another's"),
            (certificates.make(days=(-20, -10)), Unavailable, "has expired"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        place = Place(folder)
        chain, key = certificate.write(folder / "shown")
        with place.serving((chain, key)):
            source = place.mapping("mqtts", ca=chain).source
            with pytest.raises(error, match=said):
                await mqtt_browse.listen(source, PASSWORD, ("press/#",), 3.0)


async def test_a_sink_that_waits_holds_the_broker_back_and_keeps_the_connection(served):
    mapping = served.mapping("mqtt")
    names = mapping.streams[0].spec.names
    gate = asyncio.Event()

    class Slow(RecordingSink):
        async def take(self, parts):
            await gate.wait()
            await super().take(parts)

    sink = Slow(names=names)
    link = MqttLink(mapping, mapping.source, PASSWORD, sink, CLOCK, waiting_messages=10)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run(), name="link")
        await sink.until(lambda: link.counts.connects == 1)
        for number in range(50):
            await publish(served, str(number))
        await CLOCK.sleep(7.0)  # three times the keep-alive
        gate.set()
        await sink.until(lambda: len(sink.samples) == 50)
        assert link.counts.connects == 1
        running.cancel()
    assert [value for _, _, value, _ in sink.samples] == [float(number) for number in range(50)]
