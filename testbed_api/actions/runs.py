"""Acts on runs: hand one over, read it with its evidence, compare several, and delete it."""

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from broker.clock import Clock, ns_of
from broker.errors import Forbidden, Invalid, Unknown
from broker.responses.run_document import RunDocument
from broker.responses.runs import RunHandover
from broker.rights import Action
from broker.runs import checks
from testbed_api.actions.caller import Caller
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.runs import HandedRun, RunContent, RunFilter
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class RunActions:
    """Stores and deletes runs, and writes the audit entry of each act."""

    registry: Registry
    quotas: Quotas
    clock: Clock

    async def add(
        self, context: AuditContext, caller: Caller, organisation: str, handover: RunHandover
    ) -> HandedRun:
        """Store a run of an organisation; the same record again is the run that is there.

        Raises Invalid for a record that contradicts itself, or one that is not the one that was
        sent; TooMany beyond the organisation's quota.
        """
        caller.must(Action.SUBMIT, organisation)
        document = handover.record
        checks.check(document)
        checks.check_own_hash(document, handover.sha256)
        _check_report(handover)
        run = HandedRun(
            organisation=organisation,
            scenario=document.scenario.name,
            label=document.label,
            seed=document.seed,
            passed=document.passed,
            began_ns=ns_of(document.began),
            ended_ns=ns_of(document.ended),
            handed_ns=self.clock.now_ns(),
            handed_by=caller.id,
            scenario_sha256=document.scenario.sha256,
            samples_sha256=document.samples_sha256,
            sha256=handover.sha256,
            report_sha256=handover.report_sha256,
        )
        content = RunContent(
            record=checks.canonical(document),
            report=handover.report,
            digests=frozenset(
                f"sha256:{each.sha256}" for each in document.code if each.kind != "file"
            ),
        )
        async with self.registry.change(context, self.clock) as change:
            self.quotas.handing_over(organisation, await change.runs.stored_bytes(organisation))
            return await change.runs.get(await change.runs.add(run, content))

    async def page(
        self, caller: Caller, wanted: RunFilter, before: int | None, limit: int
    ) -> list[HandedRun]:
        """Runs of an organisation, the newest first; before: number that they are below."""
        caller.must(Action.REVIEW, wanted.organisation)
        return await self.registry.runs.page(wanted, before, limit)

    async def find(self, caller: Caller, number: int, action: Action) -> HandedRun:
        """The run of a number, for an action to it.

        Raises Unknown for one that is not there, or not there for the caller; Forbidden for one
        that it may know of, and may not do that to.
        """
        run = await self._get(number)
        if caller.may(action, run.organisation):
            return run
        if run.organisation == caller.organisation:
            caller.must(action, run.organisation)
        elif caller.may(Action.REVIEW, run.organisation):
            raise Forbidden(
                f"{caller.id} may not {action} run {number}: it is another organisation's",
                hint="its evidence has all figures: `testbed runs evidence` shows them",
            )
        raise _unknown(number)

    async def document(self, run: HandedRun) -> RunDocument:
        """The record of a run, as it was handed over."""
        return RunDocument.model_validate(orjson.loads(await self.registry.runs.record(run.id)))

    async def report(self, run: HandedRun) -> str:
        """The report of a run as HTML; raises Unknown if it was handed over without one."""
        report = await self.registry.runs.report(run.id)
        if report is None:
            raise Unknown(
                f"run {run.id} was handed over without a report",
                hint="its evidence has all figures: `testbed runs evidence` shows them",
            )
        return report

    async def delete(self, context: AuditContext, caller: Caller, number: int) -> None:
        """Delete a run; the audit keeps the SHA-256 of its record."""
        run = await self.find(caller, number, Action.MANAGE)
        async with self.registry.change(context, self.clock) as change:
            await change.runs.delete(await change.runs.get(run.id))

    async def several(self, caller: Caller, numbers: Sequence[int]) -> list[HandedRun]:
        """Several runs that the caller may read, in the order of the numbers."""
        return [await self.find(caller, number, Action.REVIEW) for number in numbers]

    async def _get(self, number: int) -> HandedRun:
        try:
            return await self.registry.runs.get(number)
        except Unknown as exc:
            raise _unknown(number) from exc


def _unknown(number: int) -> Unknown:
    return Unknown(
        f"there is no run {number} that you may read", hint="`testbed runs list` shows those there"
    )


def _check_report(handover: RunHandover) -> None:
    report, stated = handover.report, handover.report_sha256
    if (report is None) != (stated is None):
        raise Invalid(
            "report_sha256: a report has a hash, and no report has none",
            hint="send both, or neither",
        )
    if report is not None and stated is not None:
        checks.check_hash("report_sha256", report, stated)
