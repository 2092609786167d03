"""Runs that were handed over to the testbed: each an immutable record of an organisation."""

from dataclasses import dataclass, field

MOST_BODY = 4 * 1024 * 1024
"""Bytes of a request that hands a run over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedRun:
    """A run as it was handed over, without its record and its report.

    label: tells it from others of a matrix.  scenario_sha256: of the scenario file.
    samples_sha256: of all samples, which is equal for equal runs.  sha256: of the record.
    report_sha256: None without a report.  id: 0 before it is stored.
    """

    organisation: str
    scenario: str
    label: str
    seed: int
    passed: bool
    began_ns: int
    ended_ns: int
    handed_ns: int
    handed_by: str
    scenario_sha256: str
    samples_sha256: str
    sha256: str
    report_sha256: str | None = None
    id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContent:
    """The record of a run as canonical JSON, and its report as HTML; None without one.

    digests: of the images and packed projects that it tried.
    """

    record: bytes = field(repr=False)
    report: str | None = field(default=None, repr=False)
    digests: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """The runs of an organisation that a listing is about; None for no condition.

    since_ns: of the beginning of a run.
    """

    organisation: str
    scenario: str | None = None
    passed: bool | None = None
    since_ns: int | None = None
