"""The registry's runners: sites, their one-time codes, and what they have promised."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Row, func, insert, select, update

from broker.deployments.life import DeploymentState
from broker.errors import Taken, Unknown
from testbed_api.domain.runners import PromisedResources, Runner, RunnerCode, RunnerState
from testbed_api.registry import tables
from testbed_api.registry.base import Repository, going_on, span_of

_TABLE, _CODES, _DEPLOYMENTS = tables.runners, tables.runner_codes, tables.deployments


class RunnerRepository(Repository):
    """Runners by name, those that were locked out too."""

    async def put(self, runner: Runner) -> None:
        """Insert a runner, or one that comes back after it was locked out.

        One that is there gets its labels and its openness.  Raises Taken if it is another
        organisation's.
        """
        row = {
            "id": runner.id,
            "organisation": runner.organisation,
            "labels": _listed(runner.labels),
            "opens_to": None if runner.opens_to is None else _listed(runner.opens_to),
            "made_ns": runner.made_ns,
            "made_by": runner.made_by,
            "ended_ns": None,
            "ended_by": None,
        }
        async with self._session.transaction(write=True) as sql:
            known = (await sql.execute(select(_TABLE).filter_by(id=runner.id))).first()
            if known is None:
                fresh = {"takes_work": False, "reason": ""}
                await sql.execute(insert(_TABLE).values(**row, **fresh))
            elif known.organisation != runner.organisation:
                raise Taken(f"runner {runner.id!r} exists already", hint="choose another name")
            else:
                await sql.execute(update(_TABLE).filter_by(id=runner.id).values(**row))
        self._session.note(runner=runner.id, labels=sorted(runner.labels))

    async def find(self, name: str) -> Runner | None:
        """The runner of a name, also one that was locked out; None if there is none."""
        rows = await self._session.rows(select(_TABLE).filter_by(id=name))
        return _runner_of(rows[0]) if rows else None

    async def get(self, name: str) -> Runner:
        """The runner of a name that was not locked out; raises Unknown."""
        runner = await self.find(name)
        if runner is None or runner.ended_ns is not None:
            raise Unknown(f"there is no runner {name!r}")
        return runner

    async def all(self) -> list[Runner]:
        """All runners that were not locked out, by name."""
        query = select(_TABLE).where(_TABLE.c.ended_ns.is_(None)).order_by(_TABLE.c.id)
        return [_runner_of(row) for row in await self._session.rows(query)]

    async def promised(self) -> Mapping[str, PromisedResources]:
        """Sums of what each runner has promised; one without deployments is left out."""
        columns = _DEPLOYMENTS.c
        sums = (
            func.sum(columns.cpu).label("cpu"),
            func.sum(columns.memory_bytes).label("memory_bytes"),
            func.count().label("deployments"),
        )
        has = (columns.runner.is_not(None), columns.state != DeploymentState.ENDED)
        query = select(columns.runner, *sums).where(*has).group_by(columns.runner)
        return {
            row.runner: PromisedResources(
                cpu=row.cpu, memory_bytes=int(row.memory_bytes), deployments=row.deployments
            )
            for row in await self._session.rows(query)
        }

    async def report(self, name: str, state: RunnerState, at_ns: int) -> None:
        """Store what a runner says of itself."""
        values = {
            "seen_ns": at_ns,
            "product": state.product,
            "version": state.version,
            "architecture": state.architecture,
            "takes_work": state.takes_work,
            "reason": state.reason,
            "cpu": state.cpu,
            "memory_bytes": state.memory_bytes,
            "images": _listed(state.images),
        }
        async with self._session.transaction(write=True) as sql:
            await sql.execute(update(_TABLE).filter_by(id=name).values(**values))

    async def end(self, name: str, *, by: str, now_ns: int) -> None:
        """Note that a runner is locked out, and end its codes."""
        async with self._session.transaction(write=True) as sql:
            await sql.execute(
                update(_TABLE).filter_by(id=name).values(ended_ns=now_ns, ended_by=by)
            )
            codes = update(_CODES).filter_by(runner=name).where(going_on(_CODES, now_ns))
            await sql.execute(codes.values(ended_ns=now_ns, ended_by=by))
        self._session.note(runner=name)

    async def add_code(self, code: RunnerCode) -> None:
        """Store a new code, and end the runner's unused former ones."""
        now_ns = code.span.from_ns
        async with self._session.transaction(write=True) as sql:
            unused = update(_CODES).filter_by(runner=code.runner).where(going_on(_CODES, now_ns))
            await sql.execute(unused.values(ended_ns=now_ns, ended_by=code.by))
            row = {"runner": code.runner, "code_hash": code.code_hash, "made_by": code.by}
            span = {"from_ns": now_ns, "until_ns": code.span.until_ns}
            await sql.execute(insert(_CODES).values(**row, **span))

    async def find_code(self, code_hash: str) -> RunnerCode | None:
        """The code with a hash, whether it still counts or not."""
        for row in await self._session.rows(select(_CODES).filter_by(code_hash=code_hash)):
            return _code_of(row)
        return None

    async def update_code(self, code: RunnerCode) -> None:
        """Store the use of a code."""
        used = {"public_key": code.public_key, "used_ns": code.used_ns}
        async with self._session.transaction(write=True) as sql:
            await sql.execute(update(_CODES).filter_by(id=code.id).values(**used))


def _listed(texts: Collection[str]) -> str:
    return orjson.dumps(sorted(texts)).decode()


def _runner_of(row: Row[Any]) -> Runner:
    opens_to = None if row.opens_to is None else frozenset(_texts(row.opens_to))
    return Runner(
        id=row.id,
        organisation=row.organisation,
        labels=frozenset(_texts(row.labels)),
        opens_to=opens_to,
        made_ns=row.made_ns,
        made_by=row.made_by,
        state=_state_of(row),
        seen_ns=row.seen_ns,
        ended_ns=row.ended_ns,
    )


def _state_of(row: Row[Any]) -> RunnerState | None:
    if row.product is None:
        return None
    return RunnerState(
        product=row.product,
        version=row.version,
        architecture=row.architecture,
        takes_work=row.takes_work,
        reason=row.reason,
        cpu=row.cpu,
        memory_bytes=row.memory_bytes,
        images=frozenset(_texts(row.images)),
    )


def _code_of(row: Row[Any]) -> RunnerCode:
    return RunnerCode(
        runner=row.runner,
        code_hash=row.code_hash,
        span=span_of(row),
        by=row.made_by,
        public_key=row.public_key,
        used_ns=row.used_ns,
        id=row.id,
    )


def _texts(text: str) -> Sequence[str]:
    listed: list[str] = orjson.loads(text)
    return listed
