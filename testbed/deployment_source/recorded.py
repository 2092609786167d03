"""The recording of an order: it is fetched from the testbed, and read row by row."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from broker import api_client
from broker.clock import NS_PER_S, ns_of
from broker.deployments.source import RecordedOrder
from broker.errors import Corrupt, Invalid
from broker.namespace import EquipmentKind, StreamAddress
from broker.process import files
from broker.recordings import archive, parquet
from broker.recordings.bundle import OpenRecording
from broker.recordings.manifest import RecordedStream
from simulators.model import SourceRow
from testbed.deployment_source.inputs import PlayedInput, PlayedInputs
from testbed.processes import leftovers


@asynccontextmanager
async def opened(order: RecordedOrder, api: api_client.Api) -> AsyncIterator[PlayedInputs]:
    """The streams of a recording that play the inputs of an order, until left.

    Its files lie in a temporary folder that goes away, also if this process is killed.  Raises what
    the API answers, Invalid where the recording lacks a stream, Corrupt if it does not come whole.
    """
    with _temporary() as folder:
        async with leftovers.removed_with_us(folder):
            yield inputs_of(order, await _fetched(order.recording, folder, api))


@contextmanager
def _temporary() -> Iterator[Path]:
    """A folder that goes away with all that is in it; raises Unavailable if it cannot be made."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=".testbed-recording-"))
    except OSError as exc:
        place = Path(tempfile.gettempdir())
        raise files.unwritable(place, "the folder", exc, "another path by TMPDIR") from exc
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _fetched(number: int, folder: Path, api: api_client.Api) -> OpenRecording:
    part = folder / "recording.tar"
    try:
        async with api.stream(f"/recordings/{number}/bundle") as answer:
            with part.open("wb") as file:
                async for piece in answer.aiter_bytes():
                    file.write(piece)
        return archive.unpack_tar(part, folder / "recording")
    except Invalid as exc:
        raise Corrupt(f"recording {number} did not come as it was recorded: {exc.message}") from exc
    except OSError as exc:
        raise files.unwritable(folder, "the folder", exc, "another path by TMPDIR") from exc
    finally:
        part.unlink(missing_ok=True)


def inputs_of(order: RecordedOrder, recording: OpenRecording) -> PlayedInputs:
    """The inputs of an order; raises Invalid where the recording lacks a stream or all samples."""
    streams = {
        name: _stream(recording, order.recording, address)
        for name, address in order.streams.items()
    }
    begin_ns, length_ns = _span(order.recording, list(streams.values()))
    return PlayedInputs(
        inputs=[_played(recording, name, stream) for name, stream in streams.items()],
        kind=EquipmentKind.REAL,
        begin_ns=begin_ns,
        length_ns=length_ns if order.repeat else None,
    )


def _played(recording: OpenRecording, name: str, stream: RecordedStream) -> PlayedInput:
    """An input without the labels of its stream, which are the answers and no input."""
    labels = recording.manifest.label_names(stream.address)
    signals = stream.stream_spec().signals
    places = tuple(at for at, signal in enumerate(signals) if signal.name not in labels)
    if not places:
        raise Invalid(
            f"{stream.address} has labels alone in the recording",
            hint="the input is played by the stream that they are labels of",
        )
    return PlayedInput(
        name=name,
        signals=tuple(signals[at] for at in places),
        rows=partial(_rows, recording.path, stream, places),
    )


def _stream(recording: OpenRecording, number: int, address: StreamAddress) -> RecordedStream:
    for stream in recording.manifest.streams:
        if stream.address == address:
            return stream
    has = ", ".join(str(each.address) for each in recording.manifest.streams)
    raise Invalid(f"recording {number} has no stream {address}", hint=f"it has {has}")


def _span(number: int, streams: Sequence[RecordedStream]) -> tuple[int, int]:
    """The instant of the first row, and the time from it to that of the next round."""
    spans = [
        (ns_of(each.first), ns_of(each.last), each.rows)
        for each in streams
        if each.first is not None and each.last is not None
    ]
    if not spans:
        raise Invalid(
            f"recording {number} has no sample of its inputs", hint="choose another recording"
        )
    begin_ns = min(first for first, _, _ in spans)
    end_ns = max(last for _, last, _ in spans)
    periods_ns = [(last - first) // (rows - 1) for first, last, rows in spans if rows > 1]
    return begin_ns, end_ns - begin_ns + max(min(periods_ns, default=NS_PER_S), 1)


def _rows(folder: Path, stream: RecordedStream, places: Sequence[int]) -> Iterator[SourceRow]:
    """Yield the rows of a stream with the signals of these places alone."""
    for time_ns, values, quality in parquet.read_rows(folder, stream):
        yield SourceRow(
            time_ns,
            tuple(values[at] for at in places),
            quality=tuple(quality[at] for at in places),
        )
