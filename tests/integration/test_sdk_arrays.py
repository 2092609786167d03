"""Arrays of a prototype, through a real broker and recorder, and back from the API."""

import asyncio

import numpy as np
import orjson
import pytest
from pydantic import SecretStr

from broker.clock import WallClock, text_of
from broker.errors import Invalid
from broker.namespace import StreamAddress, StreamTopic, Verb
from broker.settings import BusSettings
from broker.streams import Dtype, Signal
from testbed_sdk import PrototypeSettings, connect

PEAKS = StreamAddress("factory", "finder", "peaks")
CLOCK = WallClock()
SIGNALS = [
    Signal("spectrum", unit="m/s2", shape=(256,)),
    Signal("places", Dtype.INT64, shape=(2,)),
    Signal("speed"),
]


async def test_what_is_published_comes_back_and_what_does_not_fit_is_a_dead_letter(server, owners):
    secret = await owners.credential("finder", writes=[PEAKS])
    settings = PrototypeSettings(api=f"http://{server.api}", outputs={"peaks": PEAKS})
    bus = BusSettings(broker=f"mqtt://{server.broker}", credential=SecretStr(secret))
    begin_ns = CLOCK.now_ns()
    times = begin_ns + np.arange(4)
    spectra = np.random.default_rng(3).normal(size=(4, 256))
    spectra[2, 7] = np.nan
    async with asyncio.timeout(15), connect(settings, bus) as testbed:
        output = await testbed.output("peaks", SIGNALS)
        values = {"spectrum": spectra, "places": [2**60, -1], "speed": 3.0}
        await output.publish(times, values)
        await output.wait_drained()
        short = {
            "v": 1,
            "pub": text_of(begin_ns),
            "spec": output.spec.version,
            "source": "live",
            "frames": [{"t0": text_of(begin_ns + 9), "dt": [0], "values": {"spectrum": [[1.0]]}}],
        }
        topic = StreamTopic("live", Verb.DATA, PEAKS)
        await testbed._bus.publish(str(topic), orjson.dumps(short))
        history = await testbed.history("peaks", from_ns=begin_ns)
        thinned = await testbed.history("peaks", "spectrum", from_ns=begin_ns, points=2)
        with pytest.raises(Invalid, match=r"'spectrum' is float64\[256\]"):
            await testbed.history("peaks", from_ns=begin_ns, every="1s")
        path = f"/streams/{PEAKS}/dead-letters"
        while not (letters := (await owners.request("GET", path)).get("items")):
            await CLOCK.sleep(0.1)
    assert history["spectrum"].quality.tolist() == [0, 0, 2, 0]
    assert np.array_equal(history["spectrum"].values[[0, 1, 3]], spectra[[0, 1, 3]])
    assert history["places"].values.tolist() == [[2**60, -1]] * 4
    assert thinned["spectrum"].time_ns.tolist() == [times[0], times[3]]
    (letter,) = letters
    assert letter["reason"] == "an array of 1 elements, the spec says 256"
