"""Routes: recordings that the server makes and keeps."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from broker.clock import NS_PER_S, text_of
from broker.namespace import StreamAddress, StreamTopic, Verb
from broker.pydantic_checks import validated_by
from broker.recordings import layout, splits, tar_stream
from broker.recordings.manifest import LabelSignal
from broker.responses.recordings import (
    ChangedFileResponse,
    RecordingDetailResponse,
    RecordingPage,
    RecordingResponse,
    StreamOfRecordingResponse,
    VerifiedRecordingResponse,
)
from broker.rights import Action
from testbed_api.actions.recordings import WantedRecording
from testbed_api.domain.recordings import ServerRecording
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, RecordingActionsDep, RightsWatchDep
from testbed_api.http.schemas import (
    DEFAULT_SPAN_S,
    EARLIEST_NS,
    Address,
    Form,
    Number,
    Numbered,
    Text,
    TimeSpanForm,
    split_page,
)
from testbed_api.http.streaming import Streamed, begun

router = APIRouter(tags=["recordings"], prefix="/recordings")

MOST_STREAMS, MOST_LABELS = 100, 100


class RecordedStreamForm(Form):
    """A stream to record."""

    stream: Annotated[Address, Field(examples=["factory/pump-rig/rig"])]


class LabelForm(RecordedStreamForm):
    """A signal that a model shall learn."""

    signal: Annotated[str, Field(max_length=64, examples=["anomaly"])]


class RecordingForm(TimeSpanForm):
    """A recording: streams of one space over a span, an hour up to now by default."""

    name: Annotated[
        str,
        Field(max_length=100, examples=["valve-1"]),
        validated_by(layout.checked_name),
    ]
    streams: Annotated[list[RecordedStreamForm], Field(min_length=1, max_length=MOST_STREAMS)]
    note: Text = ""
    labels: Annotated[
        list[LabelForm],
        Field(
            default_factory=list,
            max_length=MOST_LABELS,
            description="signals that a model shall learn",
        ),
    ]
    split: Annotated[
        str | None,
        Field(max_length=40, description="train/validation/test in percent, such as 70/15/15"),
    ] = None
    licence: Text = ""
    web_page: Annotated[Text, Field(description="of the dataset, for its card alone")] = ""

    def wanted(self, now_ns: int) -> WantedRecording:
        """The recording that is asked for; raises Invalid."""
        end_ns = now_ns if self.to is None else self.between(EARLIEST_NS, now_ns)[1]
        begin_ns = max(end_ns - DEFAULT_SPAN_S * NS_PER_S, EARLIEST_NS)
        from_ns, to_ns = self.between(begin_ns, end_ns)
        streams = dict.fromkeys(StreamAddress.parse(each.stream) for each in self.streams)
        return WantedRecording(
            name=self.name,
            note=self.note,
            space=self.space,
            from_ns=from_ns,
            to_ns=to_ns,
            streams=tuple(streams),
            labels=tuple(
                LabelSignal(stream=str(StreamAddress.parse(each.stream)), signal=each.signal)
                for each in self.labels
            ),
            splits=() if self.split is None else splits.parse(self.split, from_ns, to_ns),
            licence=self.licence,
            url=self.web_page,
        )


class RecordingsWanted(Numbered):
    """One page of recordings."""

    deleted: Annotated[bool, Field(description="also those that are deleted")] = False


@router.post(
    "",
    openapi_extra=asks(Action.SUBSCRIBE),
    status_code=202,
    summary="Have a span of streams recorded on the server",
    responses=openapi_examples.answer(
        RecordingResponse, status=202, state="making", done=None, sha256=None, bytes=0
    )
    | openapi_examples.problems(429),
)
async def add_recording(
    form: RecordingForm,
    recordings: RecordingActionsDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> RecordingResponse:
    """Allowed to whoever may read each of the streams; the owner sees it in the access report.

    Answers at once, while the recording is being made: its `state` is `making`, then `complete`
    or `failed`. If a right to read ends meanwhile, it fails. It never changes afterwards.
    """
    recording = await recordings.create(context, caller, form.wanted(clock.now_ns()))
    return _response(recording, None)


@router.get(
    "",
    openapi_extra=asks(Action.WATCH),
    summary="The recordings of your organisation, and those that hold its streams",
    responses=openapi_examples.answer(RecordingPage),
)
async def recordings(
    query: Annotated[RecordingsWanted, Query()],
    recordings: RecordingActionsDep,
    caller: CallerDep,
) -> RecordingPage:
    """A machine sees those of its organisation that it made, or whose streams it reads."""
    rows = await recordings.page(caller, query.cursor, query.limit + 1, deleted=query.deleted)
    page, more = split_page(rows, query.limit)
    items = [
        _response(each, await recordings.refusal(caller, each))
        for each in page
        if recordings.sees(caller, each)
    ]
    return RecordingPage(items=items, next=page[-1].id if more else None)


@router.get(
    "/{number}",
    openapi_extra=asks(Action.WATCH),
    summary="A recording, with its manifest",
    responses=openapi_examples.answer(RecordingDetailResponse),
)
async def recording(
    number: Number, recordings: RecordingActionsDep, caller: CallerDep
) -> RecordingDetailResponse:
    """Allowed to the people of its organisation, and of those whose streams it holds; to a
    machine of its organisation that made it, or reads all of its streams.

    The manifest is for whoever may read all of its streams at that moment.
    """
    its_recording = await recordings.get(caller, number)
    refusal = await recordings.refusal(caller, its_recording)
    manifest = None if refusal is not None else await recordings.manifest(its_recording)
    return RecordingDetailResponse.extending(_response(its_recording, refusal), manifest=manifest)


@router.get(
    "/{number}/bundle",
    openapi_extra=asks(Action.SUBSCRIBE),
    summary="Take a recording away: its files as a tar stream",
    response_class=StreamingResponse,
    responses=openapi_examples.text("(the bytes of a tar file)", tar_stream.MEDIA_TYPE)
    | openapi_examples.problems(409),
)
async def bundle(
    number: Number,
    recordings: RecordingActionsDep,
    rights_watch: RightsWatchDep,
    context: ContextDep,
    caller: CallerDep,
) -> StreamingResponse:
    """Allowed to whoever sees the recording, and may read all of its streams at that moment.

    A read like any other: counted for each stream, as the way `bundle`. If a right to read ends,
    or the recording is deleted, the connection is closed before the answer's end.
    """
    taken, pieces = await recordings.take(context, caller, number)
    topics = [StreamTopic(each.space, Verb.DATA, each.address) for each in taken.entries]
    return Streamed(
        await begun(pieces),
        right=rights_watch.watching(caller, Action.SUBSCRIBE, *topics),
        headers={"Content-Disposition": f'attachment; filename="{taken.name}.tar"'},
        media_type=tar_stream.MEDIA_TYPE,
    )


@router.post(
    "/{number}/verify",
    openapi_extra=asks(Action.WATCH),
    summary="Compare every file of a recording with its hash",
    responses=openapi_examples.answer(VerifiedRecordingResponse) | openapi_examples.problems(409),
)
async def verify_recording(
    number: Number, recordings: RecordingActionsDep, clock: ClockDep, caller: CallerDep
) -> VerifiedRecordingResponse:
    """Allowed to whoever sees it; `differences` is empty if all is as it was recorded."""
    sha256, differences = await recordings.verify(caller, number)
    changed = [ChangedFileResponse(path=each.path, problem=each.problem) for each in differences]
    at = text_of(clock.now_ns())
    return VerifiedRecordingResponse(id=number, sha256=sha256, at=at, differences=changed)


@router.delete(
    "/{number}",
    openapi_extra=asks(Action.SHARE),
    status_code=204,
    summary="Delete a recording for good",
)
async def delete_recording(
    number: Number, recordings: RecordingActionsDep, context: ContextDep, caller: CallerDep
) -> None:
    """Allowed to its maker, and to owners and engineers of its organisation and of each whose
    stream it holds.

    Downloads of it end. Who made it, of which streams, and what became of it stays known.
    """
    await recordings.delete(context, caller, number)


def _response(recording: ServerRecording, refusal: str | None) -> RecordingResponse:
    def optional(time_ns: int | None) -> str | None:
        return None if time_ns is None else text_of(time_ns)

    return RecordingResponse(
        id=recording.id,
        name=recording.name,
        note=recording.note,
        organisation=recording.organisation,
        made_by=recording.made_by,
        space=recording.space,
        from_=text_of(recording.from_ns),
        to=text_of(recording.to_ns),
        state=recording.state,
        reason=recording.reason,
        created=text_of(recording.created_ns),
        done=optional(recording.done_ns),
        deleted=optional(recording.deleted_ns),
        sha256=recording.sha256,
        bytes=recording.size_bytes,
        streams=[
            StreamOfRecordingResponse(
                stream=str(each.stream),
                grants=list(each.grants),
                rows=each.rows,
                samples=each.samples,
            )
            for each in recording.streams
        ],
        refusal=refusal,
    )
