"""What the chain costs per value, and how much it holds."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import counting, meter, rig
from benchmarks.counting import Verdict
from benchmarks.rig import Setup
from broker.clock import Clock

WARM_S = 10.0
DRAINED_WITHIN_S = 60.0
HELD_DRAIN_S = 10.0
"""What held is in the store so soon after the source has ended: publishing, batching and flushing
take two seconds of it, and the count itself its own.
"""
COMPARED_STREAMS = 10
MILLION = 1_000_000
STEP = 1.2


@dataclass(frozen=True, slots=True)
class Run:
    """One run: seconds and values of its steady window, CPU-seconds of each part in it, how long
    the store needed after the source had ended, the verdict over everything, and seconds from the
    first start of the gateways until all streams flow.
    """

    setup: Setup
    window_s: float
    window_values: int
    cpu_s: Mapping[str, float]
    rss_bytes: Mapping[str, int]
    drain_s: float
    verdict: Verdict
    first_flow_s: float = 0.0

    @property
    def per_million(self) -> dict[str, float]:
        """CPU-seconds of each part per million values stored."""
        values = max(self.window_values, 1)
        return {part: used * MILLION / values for part, used in self.cpu_s.items()}

    @property
    def held(self) -> bool:
        """Everything stored, once, as offered, and nothing piled up."""
        return self.verdict.clean and self.drain_s <= HELD_DRAIN_S


async def run(setup: Setup, seconds: float, clock: Clock, *, warm_s: float = WARM_S) -> Run:
    """Let a load flow and measure a steady window of it; everything is stopped in the end."""
    async with rig.running(setup) as chain:
        await clock.sleep(warm_s)
        before, from_ns = meter.read(), clock.now_ns()
        await clock.sleep(seconds)
        after, to_ns = meter.read(), clock.now_ns()
        await chain.pause()
        offered = chain.offered - chain.dropped
        drain_s = await drained(lambda: counting.stored(chain), offered, clock)
        values = await counting.stored(chain, from_ns, to_ns)
        step = max(setup.load.streams // COMPARED_STREAMS, 1)
        verdict = await counting.judge(chain, range(0, setup.load.streams, step))
    return Run(
        setup=setup,
        window_s=(to_ns - from_ns) / 1e9,
        window_values=values,
        cpu_s=after.since(before),
        rss_bytes=after.bytes,
        drain_s=drain_s,
        verdict=verdict,
        first_flow_s=chain.first_flow_s,
    )


async def drained(stored: Callable[[], Awaitable[int]], offered: int, clock: Clock) -> float:
    """Seconds until all samples that were offered are stored; at most `DRAINED_WITHIN_S`."""
    start_ns = clock.now_ns()
    while (took_s := (clock.now_ns() - start_ns) / 1e9) < DRAINED_WITHIN_S:
        if await stored() >= offered:
            break
        await clock.sleep(0.5)
    return took_s


def shown(run: Run) -> str:
    """A run in a line, for who watches."""
    load, cost = run.setup.load, run.per_million
    parts = "  ".join(f"{part} {cost.get(part, 0):.2f}" for part in (*meter.CHAIN, "api", "source"))
    return (
        f"{load.streams} x {load.signals} x {load.rate_hz:g} Hz"
        f" {'own' if load.own else 'shared'}, every {run.setup.interval_s:g} s:"
        f" {run.window_values / run.window_s:,.0f} values/s, CPU-s per million: {parts},"
        f" drained in {run.drain_s:.1f} s, {'held' if run.held else f'NOT HELD: {run.verdict}'}"
    )


def say(text: str) -> None:
    """Progress, for who watches."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


async def highest(
    attempt: Callable[[int], Awaitable[Run | None]], streams: int, attempts: int
) -> tuple[Run | None, list[Run]]:
    """The highest rate that held, and all that was tried: a step up from `streams` while it holds,
    a step down while it does not.  An attempt is None if it did not come to flow.
    """
    tried: dict[int, Run | None] = {}
    while len(tried) < attempts and streams not in tried:
        attempted = tried[streams] = await attempt(streams)
        streams = round(
            streams * STEP if attempted is not None and attempted.held else streams / STEP
        )
    runs = [each for each in tried.values() if each is not None]
    held = [each for each in runs if each.held]
    return max(held, key=lambda each: each.setup.load.streams, default=None), runs


def facts(run: Run) -> dict[str, Any]:
    """What stands beside the figures, so that they can be judged."""
    return {
        "streams": run.setup.load.streams,
        "signals": run.setup.load.signals,
        "values_per_s": round(run.window_values / run.window_s),
        "window_s": round(run.window_s, 1),
        "drain_s": round(run.drain_s, 1),
        "first_flow_s": round(run.first_flow_s, 1),
        "held": run.held,
        "source_cores": round(run.cpu_s.get("source", 0.0) / run.window_s, 3),
        "cores": round(sum(run.cpu_s.values()) / run.window_s, 2),
        "rss_mib": {part: round(held / 2**20) for part, held in run.rss_bytes.items()},
        "verdict": asdict(run.verdict),
    }
