"""The mapping file: every mistake is reported with its line and column."""

from pathlib import Path

import pytest

from broker.errors import Invalid
from broker.streams import Trigger
from gateway.mapping import file as mapping_file
from gateway.mapping.model import Policy, Security
from gateway.mapping.mqtt_source import MqttSource, TimeForm

GOOD = """\
organisation: factory
equipment: rig
kind: simulated
opcua:
  url: opc.tcp://127.0.0.1:4840
  security: none
streams:
  s:
    period_s: 2
    signals:
      a:
        node: nsu=urn:x;s=A
        low: 0
        high: 1
      b: {node: i=2, dtype: string}
"""


SAFE = "security: sign-and-encrypt"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "kind: simulated",
            "knd: simulated",
            "m:3:1: knd: there is no such field; did you mean 'kind'?",
        ),
        ("kind: simulated", "kind: toy", "m:3:7: kind: "),
        ("security: none", "security: sign", "m:6:13: opcua.security: "),
        (
            "  security: none\n",
            "",
            "m:4:1: opcua.security: this field is missing; write sign-",
        ),
        (
            "security: none",
            "security: none\n  user: rig",
            "m:7:3: opcua.user: with security none it",
        ),
        ("security: none", "security: none\n  policy: Basic256Sha256", "m:7:3: opcua.policy: with"),
        ("security: none", f"{SAFE}\n  policy: Basic128Rsa15", "m:7:11: opcua.policy: "),
        ("security: none", f"{SAFE}\n  user: a\n  user_certificate: yes", "m:8:3: opcua.user_cert"),
        ("opc.tcp://127", "opc.tcp://rig:secret@127", "m:5:8: opcua.url: the user name does not"),
        (
            "127.0.0.1:4840",
            "127.0.0.1",
            "m:5:8: opcua.url: 'opc.tcp://127.0.0.1' is not the address",
        ),
        ("127.0.0.1:4840", "127.0.0.1:x", "m:5:8: opcua.url: "),
        ("equipment: rig", "equipment: Rig", "m:2:12: equipment: "),
        ("high: 1", "high: 0", "m:11:7: streams.s.signals.a: low 0 must be below high 0"),
        (
            "dtype: string",
            "dtype: string, low: 1",
            "m:15:7: streams.s.signals.b: a string has no low",
        ),
        ("dtype: string", "dtype: string, deadband: 1", "a string has no deadband"),
        ("dtype: string", "dtype: bool, deadband: 1", "a bool has no deadband"),
        ("low: 0", "unit: metres", "m:13:15: streams.s.signals.a.unit: "),
        ("nsu=urn:x;s=A", "ns=2;s=A", "m:12:15: streams.s.signals.a.node: "),
        ("period_s: 2", "period_s: soon", "m:9:15: streams.s.period_s: "),
        (
            "      b:",
            "      a:",
            "m:15:7: streams.s.signals.a: it stands twice; the first is on line 11",
        ),
        (
            "{node: i=2, dtype: string}",
            "&b {node: *b}",
            "m:15:14: streams.s.signals.b.node: an alias",
        ),
        (
            "kind: simulated",
            "kind: simulated\n[a, b]: 1",
            "m:4:1: : a field's name must be a plain text",
        ),
        ("organisation: factory", "organisation: [", "this is not YAML"),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        mapping_file.read(GOOD.replace(old, new), "m")
    assert said in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(Invalid, match="3 mistakes"):
        mapping_file.read(
            GOOD.replace("rig", "R")
            .replace("period_s: 2", "period_s: -1")
            .replace("high: 1", "high: 0"),
            "m",
        )


def test_the_load_on_the_server_is_the_sum_over_its_streams() -> None:
    assert mapping_file.read(GOOD, "m").requested_per_s == 1.0


@pytest.mark.parametrize(
    ("fields", "sampling_s", "polling_s"),
    [
        ("period_s: 1", 0.5, 1.0),
        ("period_s: 0", 0.0, 0.2),
        ("period_s: 1\n    sampling_interval_s: 0", 0.0, 1.0),
        ("period_s: 1\n    sampling_interval_s: 0.1", 0.1, 0.1),
    ],
)
def test_the_pace_of_sampling_and_polling_follows_from_the_period_or_its_own_field(
    fields: str, sampling_s: float, polling_s: float
) -> None:
    fields += "\n    publishing_interval_s: 0.2"
    (stream,) = mapping_file.read(GOOD.replace("    period_s: 2\n", f"    {fields}\n"), "m").streams
    assert (stream.sampling_s, stream.polling_s) == (sampling_s, polling_s)


def test_the_example_is_right() -> None:
    path = Path(__file__).parents[4] / "examples/pump-rig/mapping.yaml"
    assert len(mapping_file.load(path).streams[0].items) == 8


OVER_MQTT = """\
organisation: factory
equipment: press
kind: real
mqtt:
  url: mqtt://127.0.0.1:1883
streams:
  s:
    signals:
      a: {topic: press/a}
      b: {topic: press/state, value: /b, time: /ts, time_format: ms, dtype: bool}
"""


def test_a_mapping_over_mqtt_says_where_each_signal_is_found() -> None:
    (stream,) = mapping_file.read(OVER_MQTT, "m").streams
    assert stream.spec.trigger is Trigger.TIMESTAMP
    assert [item.source for item in stream.items] == [
        MqttSource(topic="press/a"),
        MqttSource(topic="press/state", value=("b",), time=("ts",), form=TimeForm.MS),
    ]
    assert [signal.node for signal in stream.spec.signals] == ["press/a", "press/state#/b"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "url: mqtt:",
            "url: http:",
            "'http://127.0.0.1:1883' is not the address of a broker: write mqtt://host:port",
        ),
        (
            "127.0.0.1:1883",
            "me:secret@127.0.0.1",
            "m:5:8: mqtt.url: the user name does not belong in the address: write mqtt.user",
        ),
        ("press/a}", "press/+}", "m:9:18: streams.s.signals.a.topic: topic 'press/+' is not one"),
        ("value: /b", "value: b", "m:10:38: streams.s.signals.b.value: 'b' is no JSON Pointer"),
        ("topic: press/a", "node: i=1", "m:9:7: streams.s.signals.a.topic: this field is missing"),
        ("topic: press/a", "topic: x, node: i=1", "signals.a.node: mqtt knows no such field"),
        (
            "    signals",
            "    trigger: value\n    signals",
            "m:8:5: s: over MQTT every message counts",
        ),
        ("mqtt:\n  url: mqtt://127.0.0.1:1883\n", "", "m:1:1: say where the machine is read"),
    ],
)
def test_a_mistake_in_a_mapping_over_mqtt_is_told(old: str, new: str, said: str) -> None:
    assert old in OVER_MQTT
    with pytest.raises(Invalid) as caught:
        mapping_file.read(OVER_MQTT.replace(old, new), "m")
    assert said in str(caught.value)


def test_security_is_had_as_it_is_written() -> None:
    assert mapping_file.read(GOOD, "m").server.security is None
    safe = GOOD.replace("security: none", SAFE)
    assert mapping_file.read(safe, "m").server.security == Security(
        policy=Policy.BASIC256_SHA256, user="", as_certificate=False, host="127.0.0.1"
    )
    more = f"{SAFE}\n  policy: Aes256Sha256RsaPss\n  user: rig\n  certificate_host: plc-1"
    assert mapping_file.read(GOOD.replace("security: none", more), "m").server.security == Security(
        policy=Policy.AES256_SHA256_RSA_PSS, user="rig", as_certificate=False, host="plc-1"
    )
