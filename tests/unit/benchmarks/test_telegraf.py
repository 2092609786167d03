"""Both Telegrafs carry every sample, and what they have stored is held against the source."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from benchmarks import counting, peers, telegraf
from benchmarks.load import NAMESPACE, Load, node_name, signal_name
from benchmarks.rig import Setup
from tests.services.influxd import Influxd

LOAD = Load(streams=3, signals=4, rate_hz=10.0, own=True)
SETUP = Setup(LOAD, 0.1, Path("nowhere"))
BROKER = telegraf.Broker(21_883, "ada", 'a "quoted" secret')
STORE = Influxd("http://127.0.0.1:8086", "testbed", "bench", "token", product=None)
FIRST, LAST = 17_000_000_000, 17_000_000_006


def gateway(tuning=telegraf.AS_IT_COMES):
    text = telegraf.gateway_configuration(SETUP, "opc.tcp://127.0.0.1:4840", BROKER, tuning)
    return tomllib.loads(text)


def recorder(tuning=telegraf.AS_IT_COMES):
    return tomllib.loads(telegraf.recorder_configuration(BROKER, STORE, tuning))


def test_every_node_is_read_once_into_the_metric_of_its_stream():
    (listener,) = gateway()["inputs"]["opcua_listener"]
    groups = listener["group"]
    assert [group["name"] for group in groups] == ["s0000", "s0001", "s0002"]
    assert {(group["namespace_uri"], group["identifier_type"]) for group in groups} == {
        (NAMESPACE, "s")
    }
    nodes = [node for group in groups for node in group["nodes"]]
    assert [node["identifier"] for node in nodes] == [node_name(item) for item in range(12)]
    assert [node["name"] for node in nodes] == [signal_name(item % 4) for item in range(12)]


def test_samples_keep_the_source_time_stamp_and_go_out_each_publishing_interval():
    configuration = gateway()
    (listener,) = configuration["inputs"]["opcua_listener"]
    assert listener["timestamp"] == "source"
    assert listener["subscription_interval"] == "100ms"
    assert configuration["agent"]["flush_interval"] == "100ms"


def test_a_message_is_of_one_stream_and_is_acknowledged_after_the_write():
    (output,) = gateway()["outputs"]["mqtt"]
    assert (output["topic"], output["layout"], output["qos"]) == (
        "telegraf/{{ .Name }}",
        "batch",
        1,
    )
    assert output["password"] == BROKER.password
    (consumer,) = recorder()["inputs"]["mqtt_consumer"]
    assert (consumer["topics"], consumer["qos"]) == (["telegraf/#"], 1)
    assert consumer["persistent_session"] is True


def test_the_buffer_holds_more_than_a_publishing_interval_brings():
    for configuration in (gateway(), recorder()):
        assert configuration["agent"]["metric_buffer_limit"] > 50_000


@pytest.mark.parametrize(
    ("tuning", "batch", "encoding"),
    [(telegraf.AS_IT_COMES, 1_000, "gzip"), (telegraf.TUNED, 5_000, "identity")],
)
def test_telegraf_is_run_as_it_comes_and_tuned(tuning, batch, encoding):
    for configuration in (gateway(tuning), recorder(tuning)):
        assert configuration["agent"]["metric_batch_size"] == batch
    (output,) = recorder(tuning)["outputs"]["influxdb_v2"]
    assert output["content_encoding"] == encoding


def test_what_telegraf_stored_of_a_stream_is_held_against_the_source():
    results = []
    for signal in range(LOAD.signals):
        items, seqs = np.array([LOAD.signals + signal]), np.arange(FIRST, LAST)
        rows = zip(LOAD.times_ns(items, seqs), LOAD.values(items, seqs), strict=True)
        results.append({"series": [{"values": [[int(at), float(value)] for at, value in rows]}]})
    names = tuple(signal_name(signal) for signal in range(LOAD.signals))
    whole = peers.frame_of(results, names)
    assert counting.compare(LOAD, 1, [whole], (FIRST, LAST)) == (24, 0, 0, 0)
    results[2]["series"][0]["values"][0][1] += 1.0
    results[3] = {"statement_id": 3}  # a signal of which nothing is stored
    broken = peers.frame_of(results, names)
    assert counting.compare(LOAD, 1, [broken], (FIRST, LAST)) == (18, 0, 1, 7)


def run(cost, *, clean=True, held=True):
    """What a run in which each part cost the same leaves in the results."""
    parts = ("gateway", "broker", "recorder", "store", "source")
    return {f"{part}_cpu_s_per_million": cost for part in parts} | {"clean": clean, "held": held}


def test_ratios_are_of_gateway_and_recorder_and_of_the_whole_chain():
    peer = run(4.0) | {"store_cpu_s_per_million": 12.0}
    costs = peer | {"tuned": run(3.0), "ours": run(2.0)}
    assert peers.ratios({"telegraf": {"own": {"ten": costs}}}) == {
        "telegraf": {
            "own": {"ten": {"pair": 2.0, "chain": 3.0, "tuned": {"pair": 1.5, "chain": 1.5}}}
        }
    }


@pytest.mark.parametrize(
    ("peer", "ours"), [(run(4.0, clean=False), run(2.0)), (run(4.0), run(2.0, held=False))]
)
def test_a_run_that_lost_samples_is_not_compared(peer, ours):
    costs = peer | {"tuned": run(4.0), "ours": ours}
    assert "chain" not in peers.ratio(costs)
