"""Who asks: a factory, and somebody in every relation to what is its own.

The same nouns go into the registry of a server and into the `Rights` that the probes ask the policy
about, so what the server makes of its tables is held against what was meant.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from broker.batch import EquipmentKind, Series, Source, Wide
from broker.clock import NS_PER_S
from broker.credential import Credential
from broker.deployments.life import DeploymentStage
from broker.namespace import LIVE, EquipmentAddress, StreamAddress
from broker.recordings import bundle
from broker.recordings.bundle import RecordingFacts
from broker.recordings.manifest import RecordingCreator
from broker.responses.run_document import RunDocument
from broker.rights import (
    Entry,
    Grant,
    Listing,
    Party,
    Pause,
    Principal,
    PrincipalKind,
    Rights,
    Role,
    Sample,
    Scope,
    Span,
)
from broker.run_clock import clock_stream
from broker.runs import checks
from broker.streams import Signal, StreamSpec
from testbed_api.domain import enrolment, passwords, runners, tokens
from testbed_api.domain.deployments import Deployment, DeploymentMetrics, PinnedImage
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.grants import GrantRequest
from testbed_api.domain.organisations import Organisation
from testbed_api.domain.recordings import HeldStream, ServerRecording
from testbed_api.domain.runners import Runner
from testbed_api.domain.runs import HandedRun, RunContent
from testbed_api.domain.secrets import SealedSecret
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry
from testbed_api.stores import duckdb
from testbed_api.stores.port import Block

DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
"""Of the image in the document's examples."""
RUN = "run-probe"
RIG = StreamAddress("factory", "pump-rig", "rig")
"""Granted to a company, and listed to another with an example."""
MILL = StreamAddress("factory", "mill", "spindle")
"""Shown to nobody."""
PRESS = StreamAddress("stranger", "press", "force")
SCORE = StreamAddress("company", "detector", "score")
STREAMS = (RIG, MILL, PRESS, SCORE)
RUN_OWNERS = (RIG.organisation, PRESS.organisation)
"""Organisations that handed runs over."""

ORGANISATIONS = {
    "institute": Party.INTERMEDIARY,
    "factory": Party.PARTNER,
    "stranger": Party.PARTNER,
    "company": Party.COMPANY,
    "looker": Party.COMPANY,
    "late": Party.COMPANY,
    "cut": Party.COMPANY,
    "still": Party.COMPANY,
    "fund": Party.AGENCY,
}
PAUSED = "still"
GUESTS = ("company", "late", "cut", PAUSED)
"""They were granted the rig: until now, until lately, until it was revoked, and now paused."""
DAY_NS = 86_400 * NS_PER_S
WATCHER = "watcher"
"""A part of the testbed: it sees whatever reaches the bus."""
NARROWED = "factory-narrowed"
"""An owner who audits as well, with a token of that role alone: as any auditor."""
SPARE = "spare"
"""Goes before the name of what a probe may end: nobody asks as it."""
TWO_TOKENS = ("factory-owner", "stranger-owner")
"""They have one to spare."""
IMAGE = f"sha256:{'5' * 64}"
"""Digest of an image that the organisations of RUN_OWNERS hold each, and may delete."""
SECRET = "SPARE"
"""Name of a secret that each of these has."""
PASSWORD = "correct horse battery staple"
"""Of the factory's spare member."""
WAITING = ("approval", "refusal", "withdrawal")
"""What ends a request: the company waits with one for each, of what it reads already."""


def canary(name: object) -> str:
    """Words that stand in what an object says of itself, and nowhere else."""
    return f"canary {str(name).replace('/', ' ')} canary"


@dataclass(frozen=True)
class Cast:
    """rights: what was meant.  credentials: text by the name of who shows it, empty for none.

    whose: the principal behind each that is to be believed.  grants: number of the grant that each
    organisation was given, of what is WAITING, and `spare` for one that may end.  tokens: of each
    principal's first token, and `spare-` the name of TWO_TOKENS for the other.  code: lets a
    gateway of the company's detector in, once.  runs: number of the run that each of two
    organisations handed over, and of a second one under `spare-` its name.  recording: number of
    the one that the company made of the rig.  deployments: number of the one of each of two
    organisations, and of a second one of the factory, at its own site, under SPARE.  runner_code:
    lets in a runner of the factory, once.
    """

    rights: Rights
    credentials: Mapping[str, str]
    whose: Mapping[str, str]
    grants: Mapping[str, int]
    tokens: Mapping[str, int]
    code: str
    runs: Mapping[str, int]
    recording: int = 0
    deployments: Mapping[str, int] = field(default_factory=lambda: defaultdict(int))
    runner_code: str = ""


@dataclass
class _Making:
    registry: Registry
    now_ns: int
    principals: list[Principal] = field(default_factory=list)
    credentials: dict[str, str] = field(default_factory=dict)
    whose: dict[str, str] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)

    async def join(self, principal: Principal) -> None:
        """One more, with a token that counts."""
        self.principals.append(principal)
        await self.registry.principals.add(principal)
        self.credentials[principal.id] = await self.token(
            principal.id, Span(principal.span.from_ns)
        )
        self.whose[principal.id] = principal.id

    async def token(self, name: str, span: Span, *roles: Role) -> str:
        """The text of a new token, of these roles alone if any are named."""
        credential, token = tokens.issued(name, span)
        token = replace(token, roles=frozenset(roles) or None)
        self.tokens.setdefault(name, (await self.registry.tokens.add(token)).id)
        return credential.text

    async def end(self, name: str) -> None:
        """Remove somebody; the token stays in its hands."""
        (principal,) = [each for each in self.principals if each.id == name]
        await self.registry.principals.end(principal, by=None, now_ns=self.now_ns)
        ended = replace(principal, span=principal.span.ended(self.now_ns))
        self.principals[self.principals.index(principal)] = ended

    async def ask(self, name: str, company: str) -> GrantRequest:
        """For the rig, as a company does."""
        purpose, by = canary(f"grant {company}"), f"{company}-owner"
        wanted = GrantRequest(company, Entry(LIVE, RIG), purpose, self.now_ns - DAY_NS, by)
        request = await self.registry.grants.add(wanted)
        self.numbers[name] = request.id
        return request

    async def grant(self, name: str, company: str, until_ns: int | None, *, cut: bool) -> None:
        """The rig, to a company."""
        request = await self.ask(name, company)
        given = request.granted(Span(self.now_ns - DAY_NS, until_ns), "factory-owner", self.now_ns)
        await self.registry.grants.update(given, request)
        if cut:
            given, before = given.revoked("factory-owner", self.now_ns), given
            await self.registry.grants.update(given, before)
        assert given.grant is not None
        self.grants.append(given.grant)


async def made(folder: Path, now_ns: int) -> Cast:
    """Write all of it into a data folder that no server has open yet."""
    folder.mkdir(mode=0o700)  # noqa: ASYNC240 - before anything runs
    async with open_engine(folder) as engine:
        making = _Making(Registry(engine), now_ns)
        for name, kind in ORGANISATIONS.items():
            await making.registry.organisations.add(Organisation(name, canary(name), kind))
        for principal in _everybody(now_ns - DAY_NS):
            await making.join(principal)
        await _narrow(making, now_ns - DAY_NS)
        await _equip(making.registry)
        await _agree(making)
        await _spoil(making)
        code = await _spare(making)
        pause, listing = await _stop_and_show(making)
        await _pushed(making.registry, now_ns)
        runs = await _hand_over(making.registry, now_ns)
        recording = await _taken(folder, making)
        deployments, runner_code = await _deploy(making.registry, now_ns)
    await _record(folder, listing)
    (folder / "images").mkdir(mode=0o700)
    (folder / "images" / f"{DIGEST.replace(':', '-')}.tar").write_bytes(b"-")
    known = {Entry(LIVE, each) for each in STREAMS}
    known |= {Entry(RUN, each) for each in (SCORE, clock_stream("company"))}
    rights = Rights(
        ORGANISATIONS,
        tuple(making.principals),
        tuple(making.grants),
        (pause,),
        (listing,),
        frozenset(known),
    )
    return Cast(
        rights,
        making.credentials,
        making.whose,
        making.numbers,
        making.tokens,
        code,
        runs,
        recording,
        deployments,
        runner_code,
    )


def _everybody(from_ns: int) -> Iterator[Principal]:
    span = Span(from_ns)
    roles: dict[str, tuple[Role, ...]] = dict.fromkeys(ORGANISATIONS, (Role.OWNER, Role.DEVELOPER))
    roles |= {"factory": tuple(Role), "company": tuple(Role)}
    roles |= {"institute": (Role.OWNER, Role.OPERATOR, Role.AUDITOR)}
    roles |= {"fund": (Role.OWNER, Role.AUDITOR)}
    for organisation, several in roles.items():
        for role in several:
            name = f"{organisation}-{role}"
            yield Principal(name, organisation, PrincipalKind.PERSON, frozenset({role}), span=span)
        yield Principal(
            f"{SPARE}-{organisation}", organisation, PrincipalKind.PERSON, frozenset({Role.AUDITOR})
        )
    reads = frozenset({Entry(LIVE, RIG)})
    for guest in (*GUESTS, "stranger"):
        yield _machine(f"{guest}-reader", guest, Scope(reads), span)
    own = frozenset({Entry(LIVE, SCORE)})
    yield _machine("company-writer", "company", Scope(frozenset(), own), span)
    yield _machine("factory-writer", "factory", Scope(writes=frozenset({Entry(LIVE, MILL)})), span)
    yield _machine("factory-gateway", "factory", Scope(equipment=RIG.owner), span)
    yield _machine("stranger-gateway", "stranger", Scope(equipment=PRESS.owner), span)
    yield _machine("gone-machine", "company", Scope(reads), span)
    scored = frozenset({Entry(RUN, SCORE)})
    clock = frozenset({Entry(RUN, clock_stream("company"))})
    yield _machine("company-member", "company", Scope(writes=scored), span)
    yield _machine("company-coordinator", "company", Scope(scored, clock), span)
    yield _machine("factory-expired", "factory", Scope(equipment=RIG.owner), Span(from_ns, from_ns))
    for organisation in ORGANISATIONS:
        yield _machine(f"{SPARE}-{organisation}-machine", organisation, Scope(), span)
    yield Principal(
        "gone-member", "factory", PrincipalKind.PERSON, frozenset({Role.OWNER}), span=span
    )
    for organisation in RUN_OWNERS:
        for name in (f"{organisation}-site", f"{SPARE}-{organisation}-site"):
            yield Principal(name, organisation, PrincipalKind.RUNNER, span=span)
        yield _machine(f"{SPARE}-{organisation}-watch", organisation, Scope(), span)
    yield Principal(WATCHER, "institute", PrincipalKind.SYSTEM, span=span)


def _machine(name: str, organisation: str, scope: Scope, span: Span) -> Principal:
    return Principal(name, organisation, PrincipalKind.MACHINE, scope=scope, span=span)


async def _narrow(making: _Making, from_ns: int) -> None:
    both = frozenset({Role.OWNER, Role.AUDITOR})
    await making.join(
        Principal(NARROWED, "factory", PrincipalKind.PERSON, both, span=Span(from_ns))
    )
    making.credentials[NARROWED] = await making.token(NARROWED, Span(from_ns), Role.AUDITOR)
    making.whose[NARROWED] = "factory-auditor"


async def _equip(registry: Registry) -> None:
    for stream in STREAMS:
        name = canary(stream.owner)
        await registry.equipment.put(Equipment(stream.owner, name, EquipmentKind.REAL))
        await registry.streams.add(_spec(stream))


def _spec(stream: StreamAddress) -> StreamSpec:
    signals = (Signal("p", description=canary(stream)),)
    return StreamSpec(stream, signals, description=canary(stream))


async def _agree(making: _Making) -> None:
    lately_ns = making.now_ns - NS_PER_S
    for name, until_ns in (("company", None), ("late", lately_ns), ("cut", None), ("still", None)):
        await making.grant(name, name, until_ns, cut=name == "cut")
    await making.grant(SPARE, "company", lately_ns, cut=False)
    for name in WAITING:
        await making.ask(name, "company")


async def _spare(making: _Making) -> str:
    """What is used up once it was asked with: tokens, a password, and a code, which comes back."""
    registry, now_ns = making.registry, making.now_ns
    for owner in TWO_TOKENS:
        _, token = tokens.issued(owner, Span(now_ns), bus=False)  # the broker may know one alone
        making.tokens[f"{SPARE}-{owner}"] = (await registry.tokens.add(token)).id
    await registry.passwords.set(f"{SPARE}-factory", passwords.hashed(PASSWORD), now_ns)
    code, issued = enrolment.issued(SCORE.owner, "company-owner", now_ns)
    await registry.enrolments.add(issued)
    return code


async def _hand_over(registry: Registry, now_ns: int) -> dict[str, int]:
    """Two runs of each of two organisations, whose words are nobody else's to read."""
    example = RunDocument.model_validate(RunDocument.example())
    numbers = {}
    for organisation in RUN_OWNERS:
        for name, seed in ((organisation, 1), (f"{SPARE}-{organisation}", 2)):
            label = canary(f"runs of {organisation}")
            document = example.model_copy(update={"label": label, "seed": seed})
            run = HandedRun(
                organisation=organisation,
                scenario=document.scenario.name,
                label=label,
                seed=seed,
                passed=True,
                began_ns=now_ns,
                ended_ns=now_ns,
                handed_ns=now_ns,
                handed_by=f"{organisation}-owner",
                scenario_sha256=document.scenario.sha256,
                samples_sha256=document.samples_sha256,
                sha256=checks.sha256(document),
            )
            content = RunContent(record=checks.canonical(document), report=f"<p>{label}")
            numbers[name] = await registry.runs.add(run, content)
    return numbers


async def _pushed(registry: Registry, now_ns: int) -> None:
    """An image and a secret of each of two organisations."""
    for organisation in RUN_OWNERS:
        name = canary(organisation)
        image = PinnedImage(digest=IMAGE, name=name, kind="registry", pushed_ns=now_ns)
        await registry.images.add(organisation, image)
        by = f"{organisation}-owner"
        secret = SealedSecret(
            organisation=organisation, name=SECRET, sealed=b"-", set_ns=now_ns, set_by=by
        )
        await registry.secrets.put(secret)


async def _deploy(registry: Registry, now_ns: int) -> tuple[dict[str, int], str]:
    """Sites of two organisations, and what each of them has deployed at its own."""
    numbers = {}
    for organisation in RUN_OWNERS:
        by = f"{organisation}-owner"
        image = PinnedImage(digest=DIGEST, name="watch", kind="archive", pushed_by=by)
        await registry.images.add(organisation, image)
        for name in (f"{organisation}-site", f"{SPARE}-{organisation}-site"):
            site = Runner(
                id=name,
                organisation=organisation,
                labels=frozenset(),
                opens_to=frozenset({organisation}),
                made_ns=now_ns,
                made_by=by,
            )
            await registry.runners.put(site)
        stages = {organisation: DeploymentStage.LIVE, SPARE: DeploymentStage.RECORDED}
        for name, stage in stages.items():
            row = _deployment(organisation, stage, image, now_ns)
            number = await registry.deployments.add(row)
            await registry.deployments.assign(number, f"{organisation}-site", row.reason)
            numbers.setdefault(name, number)
    code, issued = runners.issued(f"{SPARE}-factory-site", "factory-owner", now_ns)
    await registry.runners.add_code(issued)
    return numbers, code


def _deployment(
    organisation: str, stage: DeploymentStage, image: PinnedImage, now_ns: int
) -> Deployment:
    used = dict.fromkeys(("messages_in", "messages_out", "bytes_in", "bytes_out", "restarts"), 0)
    metrics = DeploymentMetrics(at_ns=now_ns, cpu_s=1.0, memory_bytes=1, pids=1, lag_s=None, **used)
    return Deployment(
        organisation=organisation,
        prototype="watch",
        stage=stage,
        space=LIVE,
        manifest={"prototype": "watch"},
        inputs={},
        outputs={},
        cpu=0.5,
        memory_bytes=1,
        log_bytes=1,
        image_name="watch",
        image=image,
        deployed_ns=now_ns,
        deployed_by=f"{organisation}-owner",
        principal=f"{SPARE}-{organisation}-watch",
        metrics=metrics,
        since_ns=now_ns,
        reason=canary(f"deployments of {organisation}"),
    )


async def _stop_and_show(making: _Making) -> tuple[Pause, Listing]:
    pause = Pause("factory", "still", span=Span(making.now_ns))
    await making.registry.pauses.add(pause, by="factory-owner")
    sample = Sample(Entry(LIVE, RIG), making.now_ns - DAY_NS, making.now_ns)
    listing = Listing(RIG.owner, frozenset({"looker"}), Span(making.now_ns - DAY_NS), sample)
    await making.registry.listings.put(listing, by="factory-owner")
    return pause, listing


async def _record(folder: Path, listing: Listing) -> None:
    """What the rig is shown with."""
    assert listing.sample is not None
    times = np.arange(listing.sample.from_ns, listing.sample.to_ns, DAY_NS // 24)
    frame = Wide(times, {"p": np.arange(len(times), dtype=np.float64)})
    async with duckdb.open(folder / "samples.duckdb") as store:
        await store.write([Block(LIVE, _spec(RIG), (frame,))])


async def _taken(folder: Path, making: _Making) -> int:
    """A recording of the rig that the company has on the server."""
    span = {"space": LIVE, "from_ns": making.now_ns - DAY_NS, "to_ns": making.now_ns}
    row = ServerRecording(
        name="probed",
        note="",
        organisation="company",
        made_by="company-owner",
        created_ns=making.now_ns,
        streams=(HeldStream(stream=RIG, samples=1, first_ns=making.now_ns - 1),),
        **span,
    )
    number = await making.registry.recordings.add(row)
    creator = RecordingCreator(principal=row.made_by, organisation=row.organisation)
    facts = RecordingFacts(
        name=row.name, created_ns=making.now_ns, creator=creator, software={}, **span
    )
    (folder / "recordings").mkdir(mode=0o700)
    with (
        bundle.create(folder / "recordings" / str(number), facts) as writer,
        writer.stream(_spec(RIG), Source.LIVE) as table,
    ):
        sample = (np.array([making.now_ns - 1]), np.array([1.0]), np.zeros(1, np.uint8))
        table.append({"p": Series(*sample)})
    whole = bundle.peek(folder / "recordings" / str(number))
    await making.registry.recordings.complete(
        number, sha256=whole.sha256, size_bytes=1, streams=row.streams, at_ns=making.now_ns
    )
    return number


async def _spoil(making: _Making) -> None:
    """Credentials that are not to be believed."""
    for name in ("gone-member", "gone-machine"):
        await making.end(name)
        del making.whose[name]
    del making.whose["factory-expired"]
    stale = Span(making.now_ns - DAY_NS, making.now_ns - NS_PER_S)
    credentials = making.credentials
    credentials["stale token"] = await making.token("factory-owner", stale)
    credentials["anonymous"] = ""
    credentials["forged secret"] = Credential.make("factory-owner").text
    secret = Credential.parse(credentials["stranger-owner"]).secret
    credentials["another's secret"] = f"factory-owner.{secret}"
    credentials["a part of the testbed"] = Credential.make("testbed-recorder").text
    credentials["not a credential"] = "' OR 1=1 --"


def equipment_of(cast: Cast) -> list[EquipmentAddress]:
    """All that there is."""
    return sorted({each.address.owner for each in cast.rights.known})
