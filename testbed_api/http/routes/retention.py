"""Routes: how long a stream is kept, and what was deleted of it."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from broker.clock import DAY_S, text_of
from broker.responses.retention import (
    DeletionPage,
    DeletionResponse,
    DeletionsResponse,
    RetentionResponse,
    RetentionsResponse,
)
from broker.rights import Action
from testbed_api.actions import reading
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, KeeperDep, RegistryDep, RetentionActionsDep
from testbed_api.http.schemas import (
    DeletionsWanted,
    Finite,
    Form,
    OfStream,
    Text,
    TimeSpanForm,
    split_page,
)
from testbed_api.retention.deletions import Deletion, StoredSpan
from testbed_api.retention.fingerprint import EARLIEST_NS

router = APIRouter(tags=["keeping"])

_ONE_STREAM = "/streams/{organisation}/{equipment}/{stream}"


class RetentionForm(Form):
    """The retention of a stream."""

    keep_days: Annotated[
        Annotated[Finite, Field(ge=1 / 24, le=36_600)] | None,
        Field(description="days, at least an hour; null keeps them for ever"),
    ]


class DeletionForm(TimeSpanForm):
    """The span to delete: from `from`, or the beginning, to before `to`, at most now."""

    why: Annotated[Text, Field(description="kept with the proof")] = ""


@router.get(
    "/retentions",
    openapi_extra=asks(Action.WATCH),
    summary="The streams that are not kept for ever",
    responses=openapi_examples.answer(RetentionsResponse),
)
async def retentions(keeper: KeeperDep, caller: CallerDep) -> RetentionsResponse:
    """The streams of your organisation that have a retention."""
    retentions = await keeper.deletions.retentions()
    items = [
        RetentionResponse(stream=str(address), keep_days=keep_s / DAY_S)
        for address, keep_s in retentions.items()
        if caller.may(Action.WATCH, address)
    ]
    return RetentionsResponse(items=items)


@router.put(
    _ONE_STREAM + "/retention",
    openapi_extra=asks(Action.SHARE),
    summary="Keep a stream for some days, or for ever",
    responses=openapi_examples.answer(RetentionResponse),
)
async def put_retention(
    address: OfStream,
    form: RetentionForm,
    retentions: RetentionActionsDep,
    context: ContextDep,
    caller: CallerDep,
) -> RetentionResponse:
    """Allowed to owners and engineers of its organisation.

    It holds in every space; what is older goes within the hour.

    What is kept for a week or longer goes a day at a time, after midnight UTC.
    """
    keep_s = None if form.keep_days is None else round(form.keep_days * DAY_S)
    await retentions.keep(context, caller, address, keep_s)
    return RetentionResponse(stream=str(address), keep_days=form.keep_days)


@router.get(
    _ONE_STREAM + "/retention",
    openapi_extra=asks(Action.SEE),
    summary="How long it is kept",
    responses=openapi_examples.answer(RetentionResponse),
)
async def retention(
    address: OfStream, registry: RegistryDep, keeper: KeeperDep, caller: CallerDep
) -> RetentionResponse:
    """Allowed to whoever sees the stream; null is for ever."""
    caller.must(Action.SEE, address)
    await registry.streams.get(address)
    keep_s = (await keeper.deletions.retentions()).get(address)
    keep_days = None if keep_s is None else keep_s / DAY_S
    return RetentionResponse(stream=str(address), keep_days=keep_days)


@router.post(
    _ONE_STREAM + "/deletions",
    openapi_extra=asks(Action.SHARE),
    summary="Delete a span for good",
    responses=openapi_examples.answer(DeletionsResponse),
)
async def add_deletion(
    address: OfStream,
    form: DeletionForm,
    retentions: RetentionActionsDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> DeletionsResponse:
    """Allowed to owners and engineers of its organisation.

    Answers when it is done, with the proof of what is gone.

    Of samples that come meanwhile a second record tells. The span is a gap with cause `deleted`.
    """
    from_ns, to_ns = form.between(EARLIEST_NS, clock.now_ns())
    span = StoredSpan(form.space, address, from_ns, to_ns)
    done = await retentions.delete(context, caller, span, why=form.why)
    return DeletionsResponse(items=list(map(_deletion, done)))


@router.get(
    _ONE_STREAM + "/deletions",
    openapi_extra=asks(Action.SUBSCRIBE),
    summary="What was deleted, with the proof",
    responses=openapi_examples.answer(DeletionPage),
)
async def deletions(
    address: OfStream,
    query: Annotated[DeletionsWanted, Query()],
    registry: RegistryDep,
    keeper: KeeperDep,
    caller: CallerDep,
) -> DeletionPage:
    """Allowed to whoever reads the stream in that space. `done` is null while it is under way."""
    await reading.must_read(registry, caller, query.space, address)
    await registry.streams.get(address)
    listed = keeper.deletions.listed
    rows = await listed(query.space, address, query.cursor, query.limit + 1)
    page, more = split_page(rows, query.limit)
    items = list(map(_deletion, page))
    return DeletionPage(items=items, next=page[-1].id if more else None)


def _deletion(deletion: Deletion) -> DeletionResponse:
    span, is_done = deletion.span, deletion.done_ns is not None
    return DeletionResponse(
        id=deletion.id,
        stream=str(span.stream),
        space=span.space,
        from_=None if span.from_ns == EARLIEST_NS else text_of(span.from_ns),
        to=text_of(span.to_ns),
        reason=deletion.reason,
        by=deletion.by,
        why=deletion.why,
        samples=deletion.samples,
        signals=None if deletion.signals is None else dict(deletion.signals),
        first=_optional_instant(deletion.first_ns),
        last=_optional_instant(deletion.last_ns),
        sha256=deletion.sha256,
        gaps=deletion.gaps,
        dead_letters=deletion.dead_letters,
        requested=text_of(deletion.asked_ns),
        done=_optional_instant(deletion.done_ns),
        left=0 if is_done else None,
    )


def _optional_instant(time_ns: int | None) -> str | None:
    return None if time_ns is None else text_of(time_ns)
