"""A recorder in a process of its own, on a real broker: what it tells of itself."""

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from broker.backends.nats import server
from broker.clock import WallClock
from broker.credential import Credential
from broker.settings import BusSettings
from testbed_api import persistence, recorder_process
from testbed_api.security.system_secrets import RECORDER
from testbed_api.settings import ServerSettings
from tests import services

SYSTEM = Credential.make(RECORDER)
EVERYTHING = frozenset({"tb1/#"})


async def answer(request):
    return server.Permissions(EVERYTHING, EVERYTHING) if request.secret == SYSTEM.secret else None


async def test_a_recorder_of_its_own_tells_prometheus_its_figures(tmp_path):
    port = services.free_port()
    settings = ServerSettings(folder=tmp_path / "data", recorder_metrics_port=port)
    async with asyncio.timeout(15):
        async with persistence.open_exclusive(settings):
            pass  # makes the tables
        async with server.embedded(tmp_path / "broker", clock=WallClock()).serve(answer) as broker:
            bus = BusSettings(broker=f"mqtt://{broker.mqtt}", credential=SecretStr(SYSTEM.text))
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(
                    recorder_process.record(settings, bus, WallClock()), name="recorder"
                )
                while not services.accepts(port):  # noqa: ASYNC110 - a real server needs a moment
                    await asyncio.sleep(0.01)  # noqa: TID251
                async with httpx.AsyncClient() as http:
                    text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
                running.cancel()
    metrics = {each.name: each for each in text_string_to_metric_families(text)}
    assert metrics["testbed_recorder_interrupted"].samples[0].value == 0
    assert metrics["testbed_recorder_interrupted"].type == "gauge"
    assert metrics["testbed_recorder_dead_letters"].type == "counter"
    assert metrics["testbed_recorder_samples"].samples[0].value == 0
