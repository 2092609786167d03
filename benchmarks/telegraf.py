"""The configurations of two Telegrafs that carry the load as ours does: OPC UA to MQTT, and MQTT to
InfluxDB.  Pure.

Every sample is stored under its source time stamp.  Decision 0064 says what is not as it comes.
"""

from dataclasses import dataclass

import orjson

from benchmarks.load import NAMESPACE, Load, node_name, signal_name, stream_name
from benchmarks.rig import Setup
from tests.services.influxd import Influxd

GATEWAY, RECORDER = "telegraf-gateway", "telegraf-recorder"
"""The two configurations; `meter` knows the processes by the names of their files."""
TOPIC = "telegraf"
RECORDER_FLUSH_S = 1.0
BUFFERED = 2_000_000
"""Metrics that may wait for a write, in place of 10,000: a publishing interval brings 50,000."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings that change what Telegraf costs; the defaults are Telegraf's own.

    batch: metrics in a write.  encoding: of what is posted to InfluxDB.  processors_twice: whether
    metrics go through the processors again behind the aggregators; Telegraf 1.40 no longer does so.
    """

    batch: int = 1_000
    encoding: str = "gzip"
    processors_twice: bool = True


AS_IT_COMES = Tuning()
TUNED = Tuning(batch=5_000, encoding="identity", processors_twice=False)
"""The cheapest that was found, with the batch that InfluxDB's documentation recommends."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where Mosquitto listens, and a user of it."""

    port: int
    user: str
    password: str


def gateway_configuration(setup: Setup, url: str, broker: Broker, tuning: Tuning) -> str:
    """The configuration of the Telegraf that reads all nodes of the load source at `url`.

    Time stamps are the source's.  A stream is a metric, a signal is a field of it; an MQTT message
    holds the samples of one stream, and is written after each publishing interval.
    """
    load = setup.load
    return "\n".join(
        [
            _agent(setup.interval_s, tuning),
            "[[inputs.opcua_listener]]",
            f"endpoint = {_text(url)}",
            'security_policy = "None"',
            'security_mode = "None"',
            'auth_method = "Anonymous"',
            f"subscription_interval = {_duration(setup.interval_s)}",
            'timestamp = "source"',
            *(_group(load, stream) for stream in range(load.streams)),
            "[[outputs.mqtt]]",
            f"servers = [{_text(_address(broker))}]",
            f"topic = {_text(TOPIC + '/{{ .Name }}')}",
            *_access(broker, GATEWAY),
            'layout = "batch"',
            'data_format = "influx"',
            "",
        ]
    )


def recorder_configuration(broker: Broker, store: Influxd, tuning: Tuning) -> str:
    """The configuration of the Telegraf that writes to InfluxDB what comes from the broker.

    With a persistent session it acknowledges a message after InfluxDB has taken it.
    """
    return "\n".join(
        [
            _agent(RECORDER_FLUSH_S, tuning),
            "[[inputs.mqtt_consumer]]",
            f"servers = [{_text(_address(broker))}]",
            f"topics = [{_text(TOPIC + '/#')}]",
            'topic_tag = ""',
            *_access(broker, RECORDER),
            "persistent_session = true",
            "max_undelivered_messages = 10000",
            'data_format = "influx"',
            "[[outputs.influxdb_v2]]",
            f"urls = [{_text(store.url)}]",
            f"token = {_text(store.token)}",
            f"organization = {_text(store.organisation)}",
            f"bucket = {_text(store.bucket)}",
            f"content_encoding = {_text(tuning.encoding)}",
            "",
        ]
    )


def _agent(flush_s: float, tuning: Tuning) -> str:
    return "\n".join(
        [
            "[agent]",
            f"flush_interval = {_duration(flush_s)}",
            f"metric_batch_size = {tuning.batch}",
            f"metric_buffer_limit = {BUFFERED}",
            "omit_hostname = true",
            f"skip_processors_after_aggregators = {_text(not tuning.processors_twice)}",
        ]
    )


def _group(load: Load, stream: int) -> str:
    items = range(stream * load.signals, (stream + 1) * load.signals)
    nodes = [
        f"  {{name = {_text(signal_name(signal))}, identifier = {_text(node_name(item))}}},"
        for signal, item in enumerate(items)
    ]
    head = [
        "[[inputs.opcua_listener.group]]",
        f"name = {_text(stream_name(stream))}",
        f"namespace_uri = {_text(NAMESPACE)}",
        'identifier_type = "s"',
    ]
    return "\n".join([*head, "nodes = [", *nodes, "]"])


def _access(broker: Broker, client_id: str) -> list[str]:
    return [
        "qos = 1",
        f"client_id = {_text(client_id)}",
        f"username = {_text(broker.user)}",
        f"password = {_text(broker.password)}",
    ]


def _address(broker: Broker) -> str:
    return f"tcp://127.0.0.1:{broker.port}"


def _duration(seconds: float) -> str:
    return f'"{round(seconds * 1000)}ms"'


def _text(value: str | bool) -> str:  # noqa: FBT001 - what is written, not a switch
    """A basic string or a boolean of TOML, which are written as in JSON."""
    return orjson.dumps(value).decode()
