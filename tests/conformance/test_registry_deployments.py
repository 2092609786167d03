"""Runners, images, deployments and their logs in the registry: alike over each database."""

from dataclasses import replace

import pytest

from broker.deployments.life import (
    DeploymentEnd,
    DeploymentStage,
    DeploymentState,
    EndCause,
    WantedState,
)
from broker.errors import Taken, Unknown
from broker.namespace import StreamAddress
from broker.rights import Party
from testbed_api.domain import runners
from testbed_api.domain.deployments import (
    Deployment,
    DeploymentEvent,
    DeploymentFilter,
    DeploymentMetrics,
    PinnedImage,
    PrintedLine,
)
from testbed_api.domain.organisations import Organisation
from testbed_api.domain.runners import PromisedResources, Runner, RunnerState
from testbed_api.domain.secrets import SealedSecret
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

DIGEST = f"sha256:{'a' * 64}"
SITE = Runner(
    id="site-1",
    organisation="lab",
    labels=frozenset({"edge", "gpu"}),
    opens_to=frozenset({"lab", "firm"}),
    made_ns=5,
    made_by="olga",
)
STATE = RunnerState(
    product="docker",
    version="26",
    architecture="amd64",
    takes_work=True,
    reason="",
    cpu=2.5,
    memory_bytes=2**40,
    images=frozenset({DIGEST}),
)
IMAGE = PinnedImage(
    digest=DIGEST,
    name="watch.tar",
    kind="archive",
    architecture="amd64",
    size_bytes=2**40,
    pushed_ns=3,
    pushed_by="dora",
)
WATCH = Deployment(
    organisation="firm",
    prototype="watch",
    stage=DeploymentStage.LIVE,
    space="live",
    manifest={"prototype": "watch"},
    inputs={"rig": StreamAddress("factory", "rig", "s")},
    outputs={"score": StreamAddress("firm", "watch", "score")},
    cpu=0.25,
    memory_bytes=2**35,
    log_bytes=65_536,
    image_name="watch.tar",
    image=replace(IMAGE, size_bytes=0, pushed_ns=0, pushed_by=""),
    labels=frozenset({"edge"}),
    deployed_ns=7,
    deployed_by="dora",
    principal="watch-1",
    since_ns=7,
    reason="waits",
)
END = DeploymentEnd(
    cause=EndCause.MEMORY,
    phase=DeploymentState.RUNNING,
    reason="killed",
    exit_code=137,
    signal=9,
    limit="memory 32 GiB",
)


@pytest.fixture
async def registry(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        for name in ("factory", "lab", "firm"):
            await registry.organisations.add(Organisation(name, name, Party.COMPANY))
        yield registry


async def test_a_runner_comes_back_as_it_was_written(registry):
    await registry.runners.put(SITE)
    assert await registry.runners.get("site-1") == SITE
    await registry.runners.report("site-1", STATE, 9)
    reported = replace(SITE, state=STATE, seen_ns=9)
    assert await registry.runners.all() == [reported]
    open_to_all = replace(SITE, opens_to=None, labels=frozenset())
    await registry.runners.put(open_to_all)
    assert (await registry.runners.get("site-1")).opens_to is None
    await registry.runners.end("site-1", by="olga", now_ns=10)
    assert (await registry.runners.find("site-1")).ended_ns == 10
    assert await registry.runners.all() == []
    with pytest.raises(Unknown, match="no runner 'site-1'"):
        await registry.runners.get("site-1")
    await registry.runners.put(SITE)
    assert [each.id for each in await registry.runners.all()] == ["site-1"]
    with pytest.raises(Taken):
        await registry.runners.put(replace(SITE, organisation="firm"))


async def test_a_new_code_of_a_runner_ends_the_one_before(registry):
    await registry.runners.put(SITE)
    _, first = runners.issued("site-1", "olga", 5)
    _, second = runners.issued("site-1", "olga", 6)
    await registry.runners.add_code(first)
    await registry.runners.add_code(second)
    assert not (await registry.runners.find_code(first.code_hash)).span.covers(7)
    issued = await registry.runners.find_code(second.code_hash)
    assert issued.span.covers(7)
    await registry.runners.update_code(issued.used(b"k" * 32, 8))
    used = await registry.runners.find_code(second.code_hash)
    assert (used.public_key, used.used_ns, used.runner) == (b"k" * 32, 8, "site-1")
    await registry.runners.end("site-1", by="olga", now_ns=9)
    assert not (await registry.runners.find_code(second.code_hash)).span.covers(9)
    assert await registry.runners.find_code("none") is None


async def test_an_image_is_held_by_its_organisation_alone(registry):
    await registry.images.add("firm", IMAGE)
    assert await registry.images.find("firm", DIGEST) == IMAGE
    assert await registry.images.find("lab", DIGEST) is None
    await registry.images.add("firm", replace(IMAGE, name="newer.tar"))
    await registry.images.use("firm", DIGEST, 11)
    assert await registry.images.find("firm", DIGEST) == replace(
        IMAGE, name="newer.tar", used_ns=11
    )


async def test_images_are_counted_and_go_once_nothing_needs_them(registry):
    other = replace(IMAGE, digest=f"sha256:{'2' * 64}", name="pinned", kind="registry")
    await registry.images.add("firm", replace(IMAGE, pushed_ns=5))
    await registry.images.add("firm", replace(other, pushed_ns=6))
    await registry.images.add("lab", replace(IMAGE, pushed_ns=7))
    listed = await registry.images.of_organisation("firm")
    assert [each.digest for each in listed] == [other.digest, DIGEST]
    assert await registry.images.used_bytes("firm") == IMAGE.size_bytes
    assert await registry.images.used_bytes("nobody") == 0
    assert await registry.images.digests() == {DIGEST}
    number = await registry.deployments.add(WATCH)
    assert await registry.images.deployments(WATCH.organisation) == {WATCH.image.digest: [number]}

    async def unused(before_ns):
        rows = await registry.images.unused_since(before_ns)
        return [(owner, image.digest) for owner, image in rows]

    assert await unused(6) == []
    assert await unused(8) == [("firm", other.digest), ("lab", DIGEST)]
    ended = replace(WATCH, id=number, state=DeploymentState.ENDED, ended_ns=50)
    await registry.deployments.report(ended, [])
    assert await registry.images.deployments(WATCH.organisation) == {}
    assert ("firm", DIGEST) not in await unused(50)
    assert ("firm", DIGEST) in await unused(51)
    await registry.images.use("firm", DIGEST, 60)
    assert ("firm", DIGEST) not in await unused(60)
    assert await registry.images.remove("firm", DIGEST) is False
    assert await registry.images.remove("lab", DIGEST) is True
    assert await registry.images.digests() == frozenset()


async def test_a_secret_is_one_of_its_name_and_organisation(registry):
    secret = SealedSecret(organisation="firm", name="KEY", sealed=b"\0\1", set_ns=1, set_by="ann")
    await registry.secrets.put(secret)
    await registry.secrets.put(replace(secret, organisation="lab"))
    newer = replace(secret, sealed=b"\2", set_ns=2, set_by="bob")
    await registry.secrets.put(newer)
    await registry.secrets.put(replace(secret, name="A_KEY"))
    assert await registry.secrets.of_organisation("firm") == [replace(secret, name="A_KEY"), newer]
    assert await registry.secrets.named("firm", ["KEY"]) == [newer]
    assert await registry.secrets.count("firm", but="KEY") == 1
    with pytest.raises(Unknown, match="lab has no secret A_KEY"):
        await registry.secrets.named("lab", ["KEY", "A_KEY"])
    await registry.secrets.remove("firm", "KEY")
    with pytest.raises(Unknown, match="firm has no secret 'KEY'"):
        await registry.secrets.remove("firm", "KEY")
    assert len(await registry.secrets.of_organisation("lab")) == 1


async def test_what_was_deployed_before_is_found_again(registry):
    first = await registry.deployments.add(WATCH)
    again = await registry.deployments.add(WATCH)
    other = replace(WATCH, manifest={"prototype": "watch", "command": "other"})
    second = await registry.deployments.add(other)
    elsewhere = await registry.deployments.add(replace(WATCH, prototype="other"))
    get = registry.deployments.get
    assert (await registry.deployments.newest(await get(first))).id == second
    assert (await registry.deployments.before(await get(second))).id == again
    assert await registry.deployments.before(await get(again)) is None
    assert await registry.deployments.before(await get(elsewhere)) is None
    tried = await registry.deployments.tried(
        WATCH.organisation, WATCH.image.digest, WATCH.stage, limit=3
    )
    assert [each.id for each in tried] == [elsewhere, second, again]


async def test_a_deployment_comes_back_as_it_was_written(registry):
    number = await registry.deployments.add(WATCH)
    assert await registry.deployments.get(number) == replace(WATCH, id=number)
    moved = replace(
        WATCH,
        id=number,
        space="run-deployment-1",
        principal="watch-9",
        source_principal="watch-9-source",
        source={"inputs": {}},
    )
    await registry.deployments.name(moved)
    assert await registry.deployments.get(number) == moved
    await registry.runners.put(SITE)
    await registry.deployments.assign(number, "site-1", "site-1 has it")
    stopped = moved.stopped(EndCause.GRANT, "the grant ended")
    await registry.deployments.want(stopped)
    stored = await registry.deployments.get(number)
    assert (stored.runner, stored.reason) == ("site-1", "site-1 has it")
    assert (stored.wanted, stored.cause) == (WantedState.STOP, EndCause.GRANT)
    with pytest.raises(Unknown, match="no deployment"):
        await registry.deployments.get(number + 1)


async def test_what_became_of_a_deployment_is_stored_with_its_events(registry):
    number = await registry.deployments.add(WATCH)
    metrics = DeploymentMetrics(
        at_ns=9,
        cpu_s=1.5,
        memory_bytes=2**35,
        pids=3,
        messages_in=2**40,
        messages_out=1,
        bytes_in=2,
        bytes_out=3,
        lag_s=None,
        restarts=1,
    )
    deployment = replace(
        await registry.deployments.get(number), metrics=metrics, restarts=1, last_event=2
    )
    ended = replace(deployment.ended(END, 12), last_line=2**40)
    events = [
        DeploymentEvent(1, 10, DeploymentState.RUNNING, "the broker let it in"),
        DeploymentEvent(2, 12, DeploymentState.ENDED, "killed", END),
    ]
    await registry.deployments.report(ended, events)
    assert await registry.deployments.get(number) == ended
    assert await registry.deployments.events(number) == [
        DeploymentEvent(1, 7, DeploymentState.WAITING, "waits"),
        replace(events[0], number=2),
        replace(events[1], number=3),
    ]
    assert (ended.end, deployment.end) == (END, None)


async def test_lists_of_deployments_have_those_that_are_asked_for(registry):
    await registry.runners.put(SITE)
    first = await registry.deployments.add(WATCH)
    second = await registry.deployments.add(replace(WATCH, stage=DeploymentStage.RECORDED))
    third = await registry.deployments.add(replace(WATCH, organisation="lab", prototype="other"))
    await registry.deployments.assign(second, "site-1", "")
    over = (await registry.deployments.get(third)).ended(END, 9)
    await registry.deployments.report(over, [])

    async def numbers(before=None, limit=9, **wanted):
        page = await registry.deployments.page(DeploymentFilter(**wanted), before, limit)
        return [each.id for each in page]

    assert await numbers() == [second, first]
    assert await numbers(over=True) == [third, second, first]
    assert await numbers(over=True, limit=1, before=third) == [second]
    assert await numbers(organisation="lab", over=True) == [third]
    assert await numbers(stage=DeploymentStage.LIVE) == [first]
    assert await numbers(prototype="other") == []
    waiting = await registry.deployments.waiting()
    assert [each.id for each in waiting] == [first]
    assert [each.id for each in await registry.deployments.of_runner("site-1")] == [second]
    assert [each.id for each in await registry.deployments.going_on("firm")] == [first, second]
    in_stage = await registry.deployments.in_stage("firm", "watch", DeploymentStage.LIVE)
    assert [each.id for each in in_stage] == [first]
    assert await registry.deployments.with_digest("firm", DIGEST) == [first, second]
    assert await registry.deployments.with_digest("lab", DIGEST) == []
    assert await registry.deployments.prototypes("lab") == {"other"}
    assert await registry.deployments.has_digest("site-1", DIGEST)
    assert not await registry.deployments.has_digest("site-1", "sha256:b")
    assert await registry.runners.promised() == {
        "site-1": PromisedResources(cpu=0.25, memory_bytes=2**35, deployments=1)
    }


def lines(first, last, size=10):
    return [PrintedLine(number, number, "x" * size) for number in range(first, last + 1)]


async def test_lines_of_a_log_come_back_in_pages_and_none_is_stored_twice(registry):
    number = await registry.deployments.add(WATCH)
    other = await registry.deployments.add(WATCH)
    logs = registry.deployment_logs
    assert await logs.page(number, 0, 10) == []
    assert await logs.newest(number, 10) == []
    await logs.add(number, lines(1, 5), 65_536)
    await logs.add(number, lines(3, 8), 65_536)
    await logs.add(number, lines(1, 8), 65_536)
    await logs.add(other, lines(1, 1), 65_536)
    await logs.add(number, [PrintedLine(12, 2**62, "\u2603 \x00\n")], 65_536)
    assert await logs.page(number, 0, 3) == lines(1, 3)
    assert await logs.page(number, 6, 3) == [
        *lines(7, 8),
        PrintedLine(12, 2**62, "\u2603 \x00\n"),
    ]
    assert [line.number for line in await logs.newest(number, 2)] == [8, 12]
    assert await logs.page(number, 12, 3) == []


@pytest.mark.parametrize("together", [1, 40, 2_000])
async def test_a_log_keeps_its_newest_lines_within_its_size(registry, together):
    number = await registry.deployments.add(WATCH)
    logs = registry.deployment_logs
    for at in range(1, 2_001, together):
        await logs.add(number, lines(at, at + together - 1, size=100), 65_536)
    stored = await logs.page(number, 0, 10_000)
    assert stored == lines(stored[0].number, 2_000, size=100)
    assert 0.8 * 65_536 < sum(len(line.text) + 20 for line in stored) < 1.1 * 65_536
    assert await logs.newest(number, 500) == stored[-500:]


async def test_a_line_that_is_greater_than_a_chunk_is_stored_whole(registry):
    number = await registry.deployments.add(WATCH)
    long = lines(1, 3, size=40_000)
    await registry.deployment_logs.add(number, long, 65_536)
    assert await registry.deployment_logs.newest(number, 5) == long[-1:]
