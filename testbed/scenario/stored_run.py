"""The samples of a run as its server has stored them, for those that nobody observed on the bus."""

from broker import api_client
from broker.batch import Batch, Source, Wide
from broker.errors import Unknown
from broker.history_query import HistoryQuery
from testbed.scenario.plan import RunPlan
from testbed.scenario.run_record import RunRecord
from testbed_sdk import history
from testbed_sdk.history import History


async def take(
    plan: RunPlan, api: api_client.Api, record: RunRecord, span_ns: tuple[int, int]
) -> None:
    """Add everything that is stored of a run's streams to its record, with the stated gaps.

    What a gateway or a prototype had to send again, as the server was away, is in the store and was
    never read on the bus.  span_ns: from the first instant on, and before the last.
    """
    streams = {name: plan.stream(name) for name in plan.scenario.equipment} | {
        f"{prototype}/{output}": plan.stream(f"{prototype}/{output}")
        for prototype, part in plan.scenario.prototypes.items()
        for output in part.outputs
    }
    for name, address in streams.items():
        try:
            stored = await history.fetch(api, address, HistoryQuery(plan.space, *span_ns))
        except Unknown:
            continue  # an output that its prototype never registered
        record.note_spec(name, stored.spec)
        record.note(name, [_as_batch(stored)])


def _as_batch(stored: History) -> Batch:
    frames = tuple(
        Wide(series.time_ns, {name: series.values}, {name: series.quality})
        for name, series in stored.series.items()
        if len(series.time_ns)
    )
    return Batch(stored.spec.version, frames, Source.SIMULATED, gaps=stored.gaps)
