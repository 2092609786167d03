"""Memory of a runner: histories of its deployments, and the news that it is to report.

It outlives the runner: events are on disk before anything follows from them.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from broker.deployments.report import (
    MOST_EVENTS,
    MOST_REASON,
    ReportedEnd,
    ReportedEvent,
)
from broker.errors import Corrupt, Unavailable
from broker.process import files
from testbed_runner.decision import DeploymentHistory, StateChange
from testbed_runner.log_lines import Redaction

POSITIONS = "lines.json"
_CUT = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentRecord:
    """A deployment as a runner remembers it.

    last_event: number of its newest event.  events: those that the testbed has not confirmed yet.
    """

    deployment: int
    history: DeploymentHistory = field(default_factory=DeploymentHistory)
    last_event: int = 0
    events: tuple[ReportedEvent, ...] = ()

    def after(
        self,
        history: DeploymentHistory,
        changes: Sequence[StateChange],
        *,
        at_ns: int,
        redaction: Redaction,
    ) -> "DeploymentRecord":
        """The record with a new history, and an event for each change."""
        events = [
            _event(change, self.last_event + number, at_ns, redaction)
            for number, change in enumerate(changes, 1)
        ]
        return replace(
            self,
            history=history,
            last_event=self.last_event + len(events),
            events=(*self.events, *events),
        )

    @property
    def portion(self) -> tuple[ReportedEvent, ...]:
        """The next events to report."""
        return self.events[:MOST_EVENTS]

    def confirmed(self, last: int) -> "DeploymentRecord":
        """The record once the testbed has all events up to a number."""
        return replace(self, events=tuple(each for each in self.events if each.number > last))


@dataclass(frozen=True, slots=True)
class LinePosition:
    """How far a log was reported: number of the line, its instant, and its place among those of it.

    Index as `testbed_runner.log_lines.OutputLine` has it.
    """

    number: int = 0
    at_ns: int = 0
    index: int = 0


_RECORD = TypeAdapter(DeploymentRecord)


class RunnerJournal:
    """The records of all deployments of a runner, in a folder: a file each."""

    def __init__(self, folder: Path) -> None:
        """Read what is in the folder; raises Corrupt for a file that is no record, Unavailable."""
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
            self.records = {
                int(file.stem): _read(file)
                for file in folder.glob("*.json")
                if file.stem.isdecimal()
            }
        except OSError as exc:
            raise _unwritable(folder, exc) from exc
        self.positions = _positions(folder / POSITIONS)
        """Of the logs, by the number of the deployment."""

    async def put(self, record: DeploymentRecord) -> None:
        """Write a record, synced to disk; raises Unavailable."""
        content = _RECORD.dump_json(record)
        file = self._file(record.deployment)
        try:
            await asyncio.to_thread(files.replace, file, content)
        except OSError as exc:
            raise _unwritable(self._folder, exc) from exc
        self.records[record.deployment] = record

    async def forget(self, deployment: int) -> None:
        """Remove a record."""
        self.records.pop(deployment, None)
        self.positions.pop(deployment, None)
        with suppress(OSError):
            await asyncio.to_thread(self._file(deployment).unlink, missing_ok=True)

    async def reached(self, positions: Mapping[int, LinePosition]) -> None:
        """Note how far logs were reported.  Not synced: a crash of the machine ends their programs.

        A file that cannot be written is left as it is: lines may come twice after a restart.
        """
        self.positions.update(positions)
        document = {
            number: [each.number, each.at_ns, each.index] for number, each in self.positions.items()
        }
        content = json.dumps(document).encode()
        with suppress(OSError):
            await asyncio.to_thread(_replace, self._folder / POSITIONS, content)

    def _file(self, deployment: int) -> Path:
        return self._folder / f"{deployment}.json"


def _event(change: StateChange, number: int, at_ns: int, redaction: Redaction) -> ReportedEvent:
    end = change.end
    reported = None
    if end is not None:
        reported = ReportedEnd(
            cause=end.cause,
            phase=end.phase,
            reason=_bounded(end.reason, redaction),
            exit_code=end.exit_code,
            signal=end.signal,
            limit=end.limit,
        )
    return ReportedEvent(
        number=number,
        at_ns=at_ns,
        state=change.state,
        reason=_bounded(change.reason, redaction),
        end=reported,
    )


def _bounded(text: str, redaction: Redaction) -> str:
    safe = redaction(text)
    return safe if len(safe) <= MOST_REASON else safe[: MOST_REASON - 1] + _CUT


def _read(file: Path) -> DeploymentRecord:
    try:
        return _RECORD.validate_json(file.read_bytes())
    except ValidationError as exc:
        raise Corrupt(
            f"{file} is no record of a deployment",
            hint="move it away: the deployment is looked at anew, and goes on",
        ) from exc


def _positions(file: Path) -> dict[int, LinePosition]:
    """The positions in a file; none if it is not there, or not whole after a crash."""
    try:
        document: dict[str, Any] = json.loads(file.read_bytes())
        return {int(number): LinePosition(*each) for number, each in document.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _replace(file: Path, content: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(files.PRIVATE)
    new.replace(file)


def _unwritable(folder: Path, exc: OSError) -> Unavailable:
    return files.unwritable(folder, "the runner's folder", exc, "--folder")
