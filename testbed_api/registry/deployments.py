"""The registry's deployments: what runs where, what became of it, and what it printed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.deployments.life import (
    DeploymentEnd,
    DeploymentStage,
    DeploymentState,
    EndCause,
    WantedState,
)
from broker.errors import Unknown
from broker.namespace import StreamAddress
from testbed_api.domain.deployments import (
    Deployment,
    DeploymentEvent,
    DeploymentFilter,
    DeploymentMetrics,
    PinnedImage,
    StageKey,
)
from testbed_api.registry import tables
from testbed_api.registry.base import Repository

_TABLE, _EVENTS = tables.deployments, tables.deployment_events
_GOING_ON = _TABLE.c.state != DeploymentState.ENDED


class DeploymentRepository(Repository):
    """Deployments by number; none is ever removed, so that it stays known what ran."""

    async def add(self, deployment: Deployment) -> int:
        """Insert a deployment and its first event; returns its number.

        Its space and its machines rest on the number: `name` stores them afterwards.
        """
        row = _row_of(deployment)
        async with self._session.transaction(write=True) as sql:
            inserted = insert(_TABLE).values(**row).returning(_TABLE.c.id)
            number = int((await sql.execute(inserted)).scalar_one())
            event = DeploymentEvent(1, deployment.since_ns, deployment.state, deployment.reason)
            await sql.execute(insert(_EVENTS).values(**_event_row(number, event)))
        self._session.note(deployment=number)
        return number

    async def name(self, deployment: Deployment) -> None:
        """Store the space, the machines and the bindings of a deployment that has its number."""
        names = ("space", "principal", "source_principal", "inputs", "outputs", "source")
        row = {name: value for name, value in _row_of(deployment).items() if name in names}
        await self._update(deployment.id, row)

    async def get(self, number: int) -> Deployment:
        """The deployment of a number; raises Unknown."""
        for deployment in await self._select(_TABLE.c.id == number):
            return deployment
        raise Unknown(f"there is no deployment {number}")

    async def page(
        self, wanted: DeploymentFilter, before: int | None, limit: int
    ) -> Sequence[Deployment]:
        """Deployments, the newest first.  before: number that all of them are below."""
        conditions: list[ColumnElement[bool]] = []
        if wanted.organisation is not None:
            conditions.append(_TABLE.c.organisation == wanted.organisation)
        if wanted.prototype is not None:
            conditions.append(_TABLE.c.prototype == wanted.prototype)
        if wanted.stage is not None:
            conditions.append(_TABLE.c.stage == wanted.stage)
        if not wanted.over:
            conditions.append(_GOING_ON)
        if before is not None:
            conditions.append(_TABLE.c.id < before)
        query = select(_TABLE).where(*conditions).order_by(_TABLE.c.id.desc()).limit(limit)
        return [deployment_of(row) for row in await self._session.rows(query)]

    async def going_on(self, organisation: str | None = None) -> Sequence[Deployment]:
        """The deployments that have not ended, of all organisations or one, by number."""
        mine = [] if organisation is None else [_TABLE.c.organisation == organisation]
        return await self._select(_GOING_ON, *mine)

    async def waiting(self) -> Sequence[Deployment]:
        """The deployments that are to run and that no runner has, by number."""
        mine = (_TABLE.c.runner.is_(None), _TABLE.c.wanted != WantedState.STOP)
        return await self._select(_TABLE.c.state == DeploymentState.WAITING, *mine)

    async def of_runner(self, runner: str) -> Sequence[Deployment]:
        """The deployments that a runner has and that have not ended, by number."""
        return await self._select(_GOING_ON, _TABLE.c.runner == runner)

    async def of_runner_by_number(
        self, runner: str, numbers: Collection[int]
    ) -> Mapping[int, Deployment]:
        """Those of some deployments that a runner has or had, also ended ones, by number."""
        mine = (_TABLE.c.runner == runner, _TABLE.c.id.in_(sorted(numbers)))
        return {each.id: each for each in await self._select(*mine)}

    async def first_of_each(self) -> Mapping[StageKey, int]:
        """The number of the oldest deployment that has not ended, of each prototype and stage."""
        key = (_TABLE.c.organisation, _TABLE.c.prototype, _TABLE.c.stage)
        query = select(*key, func.min(_TABLE.c.id).label("first")).where(_GOING_ON).group_by(*key)
        return {
            (row.organisation, row.prototype, DeploymentStage(row.stage)): row.first
            for row in await self._session.rows(query)
        }

    async def prototypes(self, organisation: str) -> set[str]:
        """The names of all prototypes that an organisation has ever deployed."""
        query = select(_TABLE.c.prototype).distinct().filter_by(organisation=organisation)
        return {row.prototype for row in await self._session.rows(query)}

    async def in_stage(
        self, organisation: str, prototype: str, stage: DeploymentStage
    ) -> Sequence[Deployment]:
        """The deployments of a prototype in a stage that have not ended, by number."""
        key = {"organisation": organisation, "prototype": prototype, "stage": stage}
        return await self._select(_GOING_ON, *(_TABLE.c[name] == key[name] for name in key))

    async def with_digest(self, organisation: str, digest: str) -> Sequence[int]:
        """The numbers of the deployments of an image that have not ended."""
        query = select(_TABLE.c.id).where(
            _GOING_ON, _TABLE.c.organisation == organisation, _TABLE.c.digest == digest
        )
        return [int(row.id) for row in await self._session.rows(query.order_by(_TABLE.c.id))]

    async def tried(
        self, organisation: str, digest: str, stage: DeploymentStage, limit: int
    ) -> Sequence[Deployment]:
        """Deployments of an image in a stage, also ended ones, the newest first."""
        query = (
            select(_TABLE)
            .where(
                _TABLE.c.organisation == organisation,
                _TABLE.c.digest == digest,
                _TABLE.c.stage == stage,
            )
            .order_by(_TABLE.c.id.desc())
            .limit(limit)
        )
        return [deployment_of(row) for row in await self._session.rows(query)]

    async def newest(self, deployment: Deployment) -> Deployment:
        """The newest deployment of the same prototype and stage."""
        key = {name: getattr(deployment, name) for name in ("organisation", "prototype", "stage")}
        query = select(_TABLE).filter_by(**key).order_by(_TABLE.c.id.desc()).limit(1)
        (row,) = await self._session.rows(query)
        return deployment_of(row)

    async def before(self, deployment: Deployment) -> Deployment | None:
        """The deployment of the same prototype and stage before one, with another image or
        manifest; None for the first.
        """
        key = {name: getattr(deployment, name) for name in ("organisation", "prototype", "stage")}
        former = await self._select(
            *(_TABLE.c[name] == value for name, value in key.items()), _TABLE.c.id < deployment.id
        )
        for each in reversed(former):
            if (each.image.digest, each.manifest) != (deployment.image.digest, deployment.manifest):
                return each
        return None

    async def has_digest(self, runner: str, digest: str) -> bool:
        """Whether a runner has a deployment of an image."""
        query = select(_TABLE.c.id).where(
            _GOING_ON, _TABLE.c.runner == runner, _TABLE.c.digest == digest
        )
        return bool(await self._session.rows(query.limit(1)))

    async def assign(self, number: int, runner: str, reason: str) -> None:
        """Give a deployment that waits to a runner."""
        await self._update(number, {"runner": runner, "reason": reason})

    async def want(self, deployment: Deployment) -> None:
        """Store in which state a deployment is wanted, and why."""
        row = {
            "wanted": deployment.wanted,
            "cause": deployment.cause,
            "wanted_reason": deployment.wanted_reason,
        }
        await self._update(deployment.id, row)
        self._session.note(deployment=deployment.id, wanted=deployment.wanted)

    async def report(self, deployment: Deployment, events: Sequence[DeploymentEvent]) -> None:
        """Store what became of a deployment, with further events; their numbers are given here."""
        row = _progress_of(deployment)
        async with self._session.transaction(write=True) as sql:
            await sql.execute(update(_TABLE).filter_by(id=deployment.id).values(**row))
            await _add_events(sql, deployment.id, events)

    async def events(self, number: int) -> Sequence[DeploymentEvent]:
        """All changes of state of a deployment, in their order."""
        query = select(_EVENTS).filter_by(deployment=number).order_by(_EVENTS.c.number)
        return [_event_of(row) for row in await self._session.rows(query)]

    async def _update(self, number: int, row: Mapping[str, Any]) -> None:
        async with self._session.transaction(write=True) as sql:
            await sql.execute(update(_TABLE).filter_by(id=number).values(**row))

    async def _select(self, *conditions: ColumnElement[bool]) -> Sequence[Deployment]:
        query = select(_TABLE).where(*conditions).order_by(_TABLE.c.id)
        return [deployment_of(row) for row in await self._session.rows(query)]


async def _add_events(sql: AsyncConnection, number: int, events: Sequence[DeploymentEvent]) -> None:
    if not events:
        return
    newest = select(func.max(_EVENTS.c.number)).filter_by(deployment=number)
    last = (await sql.execute(newest)).scalar() or 0
    rows = [_event_row(number, event) | {"number": at} for at, event in enumerate(events, last + 1)]
    await sql.execute(insert(_EVENTS), rows)


def _event_row(number: int, event: DeploymentEvent) -> dict[str, Any]:
    return {
        "deployment": number,
        "number": event.number,
        "at_ns": event.at_ns,
        "state": event.state,
        "reason": event.reason,
        "end": _end_text(event.end),
    }


def _event_of(row: Row[Any]) -> DeploymentEvent:
    state = DeploymentState(row.state)
    return DeploymentEvent(row.number, row.at_ns, state, row.reason, _end_of(row.end))


def _end_text(end: DeploymentEnd | None) -> str | None:
    return None if end is None else _json(asdict(end))


def _end_of(text: str | None) -> DeploymentEnd | None:
    if text is None:
        return None
    fields = orjson.loads(text)
    cause, phase = EndCause(fields.pop("cause")), DeploymentState(fields.pop("phase"))
    return DeploymentEnd(cause=cause, phase=phase, **fields)


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _streams_text(streams: Mapping[str, StreamAddress]) -> str:
    return _json({name: str(address) for name, address in streams.items()})


def _streams_of(text: str) -> dict[str, StreamAddress]:
    return {name: StreamAddress.parse(each) for name, each in orjson.loads(text).items()}


def _progress_of(deployment: Deployment) -> dict[str, Any]:
    """The columns of what became of a deployment."""
    metrics = deployment.metrics
    return {
        "state": deployment.state,
        "reason": deployment.reason,
        "since_ns": deployment.since_ns,
        "restarts": deployment.restarts,
        "last_end": _end_text(deployment.last_end),
        "metrics": None if metrics is None else _json(asdict(metrics)),
        "last_event": deployment.last_event,
        "last_line": deployment.last_line,
        "ended_ns": deployment.ended_ns,
    }


def _row_of(deployment: Deployment) -> dict[str, Any]:
    source = deployment.source
    same = (
        *("organisation", "prototype", "stage", "space", "cpu", "memory_bytes", "log_bytes"),
        *("principal", "source_principal", "runner", "wanted", "cause", "wanted_reason"),
        *("deployed_ns", "deployed_by", "promoted_from", "replaces"),
    )
    return {
        **{name: getattr(deployment, name) for name in same},
        "manifest": _json(deployment.manifest),
        "inputs": _streams_text(deployment.inputs),
        "outputs": _streams_text(deployment.outputs),
        "image": deployment.image_name,
        "image_kind": deployment.image.kind,
        "digest": deployment.image.digest,
        "reference": deployment.image.reference,
        "architecture": deployment.image.architecture,
        "labels": _json(sorted(deployment.labels)),
        "source": None if source is None else _json(source),
        **_progress_of(deployment),
    }


def deployment_of(row: Row[Any]) -> Deployment:
    """The deployment of a row; of its image only what a runner needs."""
    image = PinnedImage(
        digest=row.digest,
        name=row.image,
        kind=row.image_kind,
        reference=row.reference,
        architecture=row.architecture,
    )
    same = (
        *("id", "organisation", "prototype", "space", "cpu", "memory_bytes", "log_bytes"),
        *("principal", "source_principal", "runner", "wanted_reason", "reason", "since_ns"),
        *("restarts", "last_event", "last_line", "deployed_ns", "deployed_by", "promoted_from"),
        *("replaces", "ended_ns"),
    )
    metrics = row.metrics
    return Deployment(
        **{name: getattr(row, name) for name in same},
        stage=DeploymentStage(row.stage),
        manifest=orjson.loads(row.manifest),
        inputs=_streams_of(row.inputs),
        outputs=_streams_of(row.outputs),
        image_name=row.image,
        image=image,
        labels=frozenset(orjson.loads(row.labels)),
        source=None if row.source is None else orjson.loads(row.source),
        wanted=WantedState(row.wanted),
        cause=None if row.cause is None else EndCause(row.cause),
        state=DeploymentState(row.state),
        last_end=_end_of(row.last_end),
        metrics=None if metrics is None else DeploymentMetrics(**orjson.loads(metrics)),
    )
