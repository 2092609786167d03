"""Make a recording of a whole run of a scenario, out of the folder that it left."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from broker.batch import Source, source_of
from broker.clock import NS_PER_S, Clock, ns_of
from broker.errors import Invalid, Unknown
from broker.recordings import bundle, layout
from broker.recordings.bundle import OpenRecording, RecordingFacts, RecordingWriter
from broker.recordings.manifest import LabelSignal, RecordedRun, RecordingCreator
from broker.streams import StreamSpec
from testbed.client.recordings import SAMPLES_AT_ONCE, RecordingOptions
from testbed.scenario import plan
from testbed.terminal.screen import announce
from testbed_api import persistence
from testbed_api.persistence import Persistence
from testbed_api.recordings.portions import portions
from testbed_api.settings import EMBEDDED, SQLITE, ServerSettings
from testbed_api.stores.port import Window

if TYPE_CHECKING:
    from broker.namespace import StreamAddress

DATA = "data"
_PAGE = 500


async def create(
    path: Path,
    run: Path,
    options: RecordingOptions,
    clock: Clock,
    *,
    on_server: bool = False,
) -> OpenRecording:
    """Record all streams of a run into a new folder; nothing is left of one that is not whole.

    run: its folder.  options: description, licence and web page; the run says all else.  Raises
    Unknown if there is no run in the folder, Invalid for other options, Taken if the new folder is
    there, or a server runs on the data.
    """
    layout.checked_name(path.name)
    if on_server:
        raise Invalid("--run and --on-server at once", hint="the run's data are here: give one")
    if options.streams or options.labels or options.begin or options.end or options.split:
        raise Invalid(
            "--run records all of a run",
            hint="leave --stream, --label, --from, --to and --split out",
        )
    result = _result(run)
    settings = ServerSettings(folder=run / DATA, store=EMBEDDED, registry=SQLITE)
    async with persistence.open_exclusive(settings) as data:
        streams = [each async for each in _streams(data, result["space"])]
        if not streams:
            raise Invalid(f"the run in {run} stored no sample", hint="see server.log there")
        span = await _span(data, result, streams)
        facts = replace(
            _facts(path.name, result, options, span=span, created_ns=clock.now_ns()),
            labels=tuple(_labels(streams)),
        )
        with bundle.create(path, facts) as writer:
            for spec in streams:
                announce(f"reading {spec.address}")
                await _write(data, writer, spec)
    return bundle.peek(path)


def _result(run: Path) -> dict[str, Any]:
    """The result that a run left in its folder; raises Unknown or Invalid."""
    try:
        result = orjson.loads((run / layout.RUN_RESULT).read_bytes())
    except OSError as exc:
        raise Unknown(
            f"there is no run in {run}: {layout.RUN_RESULT} cannot be read",
            hint="`testbed run FILE --keep --folder FOLDER` leaves one, a folder in it for each of"
            " several",
        ) from exc
    except orjson.JSONDecodeError as exc:
        raise Invalid(
            f"{run / layout.RUN_RESULT} is no JSON: {exc}", hint="run the scenario again"
        ) from exc
    return dict(result)


async def _streams(data: Persistence, space: str) -> AsyncIterator[StreamSpec]:
    """The streams with samples in a space, each with its newest spec."""
    after: StreamAddress | None = None
    while page := await data.registry.streams.page(after, _PAGE):
        for spec in page:
            if await data.store.extent(space, spec.address) is not None:
                yield spec
        after = page[-1].address


async def _span(
    data: Persistence, result: dict[str, Any], streams: list[StreamSpec]
) -> tuple[int, int]:
    """The span of a run, with all samples in it."""
    begin_ns = ns_of(result["start"])
    end_ns = begin_ns + round(result["virtual_s"] * NS_PER_S)
    extents = [await data.store.extent(result["space"], each.address) for each in streams]
    ends = [extent for extent in extents if extent is not None]
    return (
        min(begin_ns, *(first for first, _ in ends)),
        max(end_ns, *(last + 1 for _, last in ends)),
    )


def _labels(streams: Sequence[StreamSpec]) -> Iterator[LabelSignal]:
    """The signals of the truth about equipment: they are never an input."""
    for spec in streams:
        if spec.address.stream == plan.TRUTH:
            for signal in spec.signals:
                if not signal.shape:
                    yield LabelSignal(stream=str(spec.address), signal=signal.name)


def _facts(
    name: str,
    result: dict[str, Any],
    options: RecordingOptions,
    *,
    span: tuple[int, int],
    created_ns: int,
) -> RecordingFacts:
    """The facts of the recording of a run."""
    return RecordingFacts(
        name=name,
        space=result["space"],
        from_ns=span[0],
        to_ns=span[1],
        created_ns=created_ns,
        creator=RecordingCreator(principal="testbed-run", organisation=plan.ORGANISATION),
        software={**result["versions"], "connected-testbed": version("connected-testbed")},
        description=options.description,
        licence=options.licence or bundle.RESTRICTED,
        url=options.url,
        run=RecordedRun(
            scenario=result["scenario"], seed=result["seed"], sample_hash=result["hash"]
        ),
    )


async def _write(data: Persistence, writer: RecordingWriter, spec: StreamSpec) -> None:
    facts = writer.facts
    equipment = await data.registry.equipment.get(spec.address.owner)
    source = source_of(equipment.kind, facts.space)
    gaps = await data.ledger.gaps(facts.space, spec.address, facts.from_ns, facts.to_ns)
    grants = None if source is Source.RECORDED else ()  # a replay says what it was recorded under
    window = Window(facts.space, spec, spec.names, facts.from_ns, facts.to_ns)
    with writer.stream(spec, source, grants=grants, gaps=gaps) as table:
        async for portion in portions(data.store.read(window), SAMPLES_AT_ONCE):
            table.append(dict(portion.series()))
