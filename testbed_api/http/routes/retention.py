"""Routes: how long a stream is kept, and what was deleted of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from broker.clock import text_of
from broker.errors import Invalid
from broker.rights import Action
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, ContextDep, asks
from testbed_api.http.dependencies import ClockDep, KeeperDep, RegistryDep
from testbed_api.http.schemas import Finite, Form, Letters, OfStream, Text, TimeSpanForm
from testbed_api.retention.deletions import Deletion, StoredSpan
from testbed_api.retention.enforcer import DAY_S
from testbed_api.retention.fingerprint import EARLIEST_NS

router = APIRouter(tags=["keeping"])

_ONE_STREAM = "/streams/{organisation}/{equipment}/{stream}"
_PROOF = {
    "id": 3,
    "stream": "factory/pump-rig/rig",
    "space": "live",
    "from": None,
    "to": "2026-11-23T00:00:00.000000000Z",
    "reason": "retention",
    "by": None,
    "why": "kept for 2592000 s",
    "samples": 86400,
    "signals": {"Pressure": 86400},
    "first": "2026-11-22T00:00:00.000000000Z",
    "last": "2026-11-22T23:59:59.000000000Z",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "gaps": 1,
    "dead_letters": 0,
    "asked": "2026-11-23T00:10:00.000000000Z",
    "done": "2026-11-23T00:10:01.000000000Z",
    "left": 0,
}
_KEPT = {"stream": "factory/pump-rig/rig", "keep_days": 30.0}


class RetentionForm(Form):
    """How long samples stay."""

    keep_days: Annotated[
        Annotated[Finite, Field(ge=1 / 24, le=36_600)] | None,
        Field(description="days, at least an hour; null keeps them for ever"),
    ]


class DeletionForm(TimeSpanForm):
    """What is to go: `from` is included, all before `to` if left out; `to` is not, now at most."""

    why: Annotated[Text, Field(description="kept with the proof")] = ""


@router.get(
    "/retentions",
    openapi_extra=asks(Action.WATCH),
    summary="The streams that are not kept for ever",
    responses=openapi_examples.answer({"items": [_KEPT]}),
)
async def retentions(keeper: KeeperDep, caller: CallerDep) -> dict[str, Any]:
    """Those of your organisation."""
    kept = await keeper.deletions.retentions()
    items = [
        {"stream": str(one), "keep_days": keep_s / DAY_S}
        for one, keep_s in kept.items()
        if caller.may(Action.WATCH, one)
    ]
    return {"items": items}


@router.put(
    _ONE_STREAM + "/retention",
    openapi_extra=asks(Action.SHARE),
    summary="Keep a stream for some days, or for ever",
    responses=openapi_examples.answer(_KEPT),
)
async def put_retention(
    address: OfStream,
    form: RetentionForm,
    registry: RegistryDep,
    keeper: KeeperDep,
    context: ContextDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For owners and engineers of its organisation.

    It holds in every space; what is older goes within the hour.

    What is kept for a week or longer goes a day at a time, after midnight UTC.
    """
    caller.must(Action.SHARE, address)
    await registry.streams.get(address)
    keep_s = None if form.keep_days is None else round(form.keep_days * DAY_S)
    context.entry.facts["keep_s"] = keep_s
    await keeper.deletions.set_retention(address, keep_s)
    return {"stream": str(address), "keep_days": form.keep_days}


@router.get(
    _ONE_STREAM + "/retention",
    openapi_extra=asks(Action.SEE),
    summary="How long it is kept",
    responses=openapi_examples.answer(_KEPT),
)
async def retention(
    address: OfStream, registry: RegistryDep, keeper: KeeperDep, caller: CallerDep
) -> dict[str, Any]:
    """For whoever sees the stream; null is for ever."""
    caller.must(Action.SEE, address)
    await registry.streams.get(address)
    keep_s = (await keeper.deletions.retentions()).get(address)
    return {"stream": str(address), "keep_days": None if keep_s is None else keep_s / DAY_S}


@router.post(
    _ONE_STREAM + "/deletions",
    openapi_extra=asks(Action.SHARE),
    summary="Delete a span for good",
    responses=openapi_examples.answer({"items": [_PROOF]}),
)
async def add_deletion(
    address: OfStream,
    form: DeletionForm,
    registry: RegistryDep,
    keeper: KeeperDep,
    clock: ClockDep,
    context: ContextDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For owners and engineers of its organisation.

    Answers when it is done, with the proof of what is gone.

    Of samples that come meanwhile a second record tells. The span is a gap with cause `deleted`.
    """
    caller.must(Action.SHARE, address)
    await registry.streams.get(address)
    now_ns = clock.now_ns()
    from_ns, to_ns = form.between(EARLIEST_NS, now_ns)
    if to_ns > now_ns:
        raise Invalid(
            f"to = {text_of(to_ns)} lies in the future", hint="only what has been can be deleted"
        )
    span = StoredSpan(form.space, address, from_ns, to_ns)
    context.entry.facts |= {
        "space": form.space,
        "from_ns": from_ns,
        "to_ns": to_ns,
        "why": form.why,
    }
    done = await keeper.delete(span, by=caller.id, why=form.why)
    context.entry.facts["samples"] = sum(one.samples for one in done)
    return {"items": [_proof(one) for one in done]}


@router.get(
    _ONE_STREAM + "/deletions",
    openapi_extra=asks(Action.SUBSCRIBE),
    summary="What was deleted, with the proof",
    responses=openapi_examples.answer(openapi_examples.page(_PROOF, 3)),
)
async def deletions(
    address: OfStream,
    asked: Annotated[Letters, Query()],
    registry: RegistryDep,
    keeper: KeeperDep,
    caller: CallerDep,
) -> dict[str, Any]:
    """For whoever reads the stream in that space. `done` is null while it is under way."""
    caller.must_read(asked.space, address)
    await registry.streams.get(address)
    listed = keeper.deletions.listed
    found = await listed(asked.space, address, asked.cursor, asked.limit + 1)
    page, more = found[: asked.limit], len(found) > asked.limit
    return {"items": [_proof(one) for one in page], "next": page[-1].id if more else None}


def _proof(one: Deletion) -> dict[str, Any]:
    span = one.span
    done = one.done_ns is not None
    return {
        "id": one.id,
        "stream": str(span.stream),
        "space": span.space,
        "from": None if span.from_ns == EARLIEST_NS else text_of(span.from_ns),
        "to": text_of(span.to_ns),
        "reason": one.reason,
        "by": one.by,
        "why": one.why,
        "samples": one.samples,
        "signals": one.signals,
        "first": _text(one.first_ns),
        "last": _text(one.last_ns),
        "sha256": one.sha256,
        "gaps": one.gaps,
        "dead_letters": one.dead_letters,
        "asked": text_of(one.asked_ns),
        "done": _text(one.done_ns),
        "left": 0 if done else None,
    }


def _text(time_ns: int | None) -> str | None:
    return None if time_ns is None else text_of(time_ns)
