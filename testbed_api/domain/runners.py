"""Runners: the sites that run deployments, what they say of themselves, and who deploys there."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from broker.clock import NS_PER_S
from broker.errors import Invalid, Refused
from broker.rights import Principal, PrincipalKind, Span
from testbed_api.domain import enrolment as enrolling
from testbed_api.domain import organisations

MOST_LABELS = 20
SILENT_NS = 30 * NS_PER_S
"""A runner that was not heard of for so long gets no new deployments."""
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,38}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerState:
    """The state of a runner as it says itself; fields as `RunnerReport` has them."""

    product: str
    version: str
    architecture: str
    takes_work: bool
    reason: str
    cpu: float
    memory_bytes: int
    images: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """A site that runs deployments; its name is that of its principal.

    opens_to: organisations that deploy there, None for all.  state: None before its first report.
    seen_ns: when it was heard of last.  ended_ns: when it was locked out.
    """

    id: str
    organisation: str
    labels: frozenset[str]
    opens_to: frozenset[str] | None
    made_ns: int
    made_by: str
    state: RunnerState | None = None
    seen_ns: int | None = None
    ended_ns: int | None = None

    def __post_init__(self) -> None:
        organisations.checked_principal(self.id)
        checked_labels(self.labels)

    def is_heard_of(self, now_ns: int) -> bool:
        """Whether it has reported lately."""
        return self.seen_ns is not None and now_ns - self.seen_ns <= SILENT_NS

    def opens(self, organisation: str) -> bool:
        """Whether an organisation may deploy there."""
        return self.opens_to is None or organisation in self.opens_to

    def is_seen_by(self, organisation: str) -> bool:
        """Whether an organisation knows of it: its own, or one that it opens to."""
        return organisation == self.organisation or self.opens(organisation)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromisedResources:
    """The resources that a runner has promised to its deployments, and how many they are."""

    cpu: float = 0.0
    memory_bytes: int = 0
    deployments: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerCode:
    """A one-time code of a runner; of the code only its hash is kept.

    public_key: of the runner that showed it first, which may show it again while it lasts.
    """

    runner: str
    code_hash: str = field(repr=False)
    span: Span
    by: str
    public_key: bytes | None = None
    used_ns: int | None = None
    id: int = 0

    def used(self, public_key: bytes, now_ns: int) -> "RunnerCode":
        """The code after its use with this key; raises Refused if it does not count, or no more."""
        if not self.span.covers(now_ns) or self.public_key not in {None, public_key}:
            raise Refused("the code was used, or its hour is over", hint="have a new one made")
        return replace(self, public_key=public_key, used_ns=now_ns)


def issued(runner: str, by: str, now_ns: int) -> tuple[str, RunnerCode]:
    """Make a new code to be shown once, and what is stored of it."""
    code, span = enrolling.new_code(), enrolling.lasting(now_ns)
    return code, RunnerCode(runner=runner, code_hash=enrolling.hashed(code), span=span, by=by)


def principal_of(runner: Runner, now_ns: int) -> Principal:
    """The principal of a runner from now on: it has neither roles nor streams."""
    return Principal(runner.id, runner.organisation, PrincipalKind.RUNNER, span=Span(now_ns))


def checked_labels(labels: Collection[str]) -> None:
    """Raise Invalid unless all texts can be labels of a site."""
    if len(labels) > MOST_LABELS:
        raise Invalid(f"{len(labels)} labels are too many", hint=f"{MOST_LABELS} at most")
    for label in sorted(labels):
        if _LABEL.fullmatch(label) is None:
            raise Invalid(
                f"label {label[:60]!r} is none",
                hint="use 1 to 40 of a-z, 0-9, '.', '_' and '-', such as edge or gpu",
            )
