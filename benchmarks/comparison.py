"""The chain that a tutorial would write, on the same source and the same influxd."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import counting, meter, rig
from benchmarks.rig import Setup
from broker.clock import Clock
from testbed.processes.child_process import start_child
from tests.services import influxd as influxd_product
from tests.services import mosquitto as mosquitto_product

SCRIPTS = Path(__file__).parent / "tutorial"
SETTLING_S = 8.0
"""Until what the window brought is stored: publishing, a second's list, the client's batching."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What the plain chain cost: values stored of those offered in the window, CPU-seconds."""

    offered: float
    stored: int
    cpu_s: Mapping[str, float]

    @property
    def per_million(self) -> dict[str, float]:
        """CPU-seconds of each part per million values stored."""
        return {part: used * 1e6 / max(self.stored, 1) for part, used in self.cpu_s.items()}


async def run(setup: Setup, seconds: float, clock: Clock, *, warm_s: float) -> Compared:
    """Let the load flow through the plain chain and measure a steady window of it."""
    setup.folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        store = stack.enter_context(influxd_product.serve(setup.folder))
        (setup.folder / "mosquitto").mkdir(exist_ok=True)
        broker = stack.enter_context(mosquitto_product.serve(setup.folder / "mosquitto"))
        source = await stack.enter_async_context(rig.source_of(setup))
        user, password = next(iter(mosquitto_product.PASSWORDS.items()))
        access = [str(broker.port), user, password]
        place = [store.url, store.token, store.organisation, store.bucket]
        command = [str(SCRIPTS / "recorder.py"), *access, *place]
        log = setup.folder / "tutorial.log"
        recorder = await stack.enter_async_context(start_child("recorder", command, log=log))
        await recorder.wait_for("ready")
        url = (await source.wait_for("ready"))["url"]
        command = [str(SCRIPTS / "gateway.py"), url, *access, str(setup.load.items)]
        await stack.enter_async_context(start_child("gateway", command, log=log))
        await source.wait_for("publishing")
        await clock.sleep(warm_s)
        before, from_ns = meter.read(), clock.now_ns()
        await clock.sleep(seconds)
        after, to_ns = meter.read(), clock.now_ns()
        await clock.sleep(SETTLING_S)
        stored = await counting.stored_in(store, '"values"', from_ns, to_ns)
    offered = setup.load.values_per_s * (to_ns - from_ns) / 1e9
    return Compared(offered, stored, after.since(before))
