"""Ticks of a run's clock and the answers to them, as JSON."""

import orjson
import pytest

from broker import run_clock
from broker.errors import Corrupt
from broker.namespace import StreamAddress
from broker.run_clock import JOIN, Ready, Tick

RIG = StreamAddress("factory", "rig", "measured")
TICK = Tick(quantum=3, until_ns=1_767_225_600_500_000_001, within_s=2.5, last={RIG: {"e": 7}})
READY = Ready(quantum=3, last={RIG: {"e": 7}}, missing={RIG: {"e": 6}}, busy="at x.py:3")


@pytest.mark.parametrize("tick", [TICK, Tick(quantum=JOIN, until_ns=0, within_s=1.0)])
def test_a_tick_reads_back(tick):
    assert run_clock.decode_tick(run_clock.encode_tick(tick)) == tick


@pytest.mark.parametrize("ready", [READY, Ready(quantum=None), Ready(quantum=1, is_leaving=True)])
def test_an_answer_reads_back(ready):
    assert run_clock.decode_ready(run_clock.encode_ready(ready)) == ready


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"quantum": -1},
        {"quantum": True},
        {"quantum": 1.5},
        {"until": "soon"},
        {"within_s": 0},
        {"within_s": "1"},
        {"last": []},
        {"last": {"rig": {"e": 1}}},
        {"last": {str(RIG): {"e": 0}}},
        {"last": {str(RIG): 3}},
    ],
    ids=str,
)
def test_rubbish_is_no_tick(change):
    document = orjson.loads(run_clock.encode_tick(TICK)) | change
    with pytest.raises(Corrupt):
        run_clock.decode_tick(orjson.dumps(document))


@pytest.mark.parametrize(
    "change", [{"v": None}, {"quantum": "3"}, {"last": None}, {"missing": {str(RIG): {"e": -1}}}]
)
def test_rubbish_is_no_answer(change):
    document = orjson.loads(run_clock.encode_ready(READY)) | change
    with pytest.raises(Corrupt):
        run_clock.decode_ready(orjson.dumps(document))


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b"\xff"])
def test_what_is_no_document_is_neither(payload):
    for decode in (run_clock.decode_tick, run_clock.decode_ready):
        with pytest.raises(Corrupt):
            decode(payload)
