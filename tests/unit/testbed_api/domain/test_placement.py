"""Which site a deployment gets, and what it is told while it gets none."""

from dataclasses import replace

import pytest

from broker.clock import NS_PER_S
from broker.deployments.life import DeploymentStage
from testbed_api.domain import placement
from testbed_api.domain.deployments import Deployment, PinnedImage
from testbed_api.domain.placement import SiteCandidate, SiteChoice
from testbed_api.domain.runners import PromisedResources, Runner, RunnerState

NOW_NS = 1_000 * NS_PER_S
MIB = 2**20
STATE = RunnerState(
    product="docker",
    version="26",
    architecture="x86_64",
    takes_work=True,
    reason="",
    cpu=2.0,
    memory_bytes=1024 * MIB,
)


def runner(name="site", *, labels=(), opens_to=("firm",), seen_ns=NOW_NS, **state):
    return Runner(
        id=name,
        organisation="lab",
        labels=frozenset(labels),
        opens_to=None if opens_to is None else frozenset(opens_to),
        made_ns=1,
        made_by="olga",
        state=replace(STATE, **state),
        seen_ns=seen_ns,
    )


def site(*arguments, memory=0, cpu=0.0, **options):
    promised = PromisedResources(cpu=cpu, memory_bytes=memory * MIB)
    return SiteCandidate(runner(*arguments, **options), promised)


def deployment(number=1, *, memory=256, cpu=0.5, labels=(), kind="archive", **more):
    more = {"organisation": "firm", **more}
    return Deployment(
        prototype="watch",
        stage=DeploymentStage.LIVE,
        space="live",
        manifest={},
        inputs={},
        outputs={},
        cpu=cpu,
        memory_bytes=memory * MIB,
        log_bytes=1,
        image_name="watch.tar",
        image=PinnedImage(
            digest="sha256:a",
            name="watch",
            kind=kind,
            architecture="" if kind == "project" else "amd64",
        ),
        deployed_ns=1,
        deployed_by="dora",
        labels=frozenset(labels),
        id=number,
        **more,
    )


def chosen(waiting, *sites):
    return placement.place(waiting, sites, NOW_NS)


def test_the_site_with_most_free_memory_gets_it():
    sites = site("a", memory=600), site("b", memory=300), site("c", memory=500)
    assert chosen([deployment()], *sites) == [SiteChoice(1, "b")]
    assert chosen([deployment()], site("b"), site("a")) == [SiteChoice(1, "a")]


def test_what_is_placed_counts_for_those_after_it():
    several = [deployment(number) for number in range(1, 6)]
    placed = chosen(several, site("a"), site("b", memory=512))
    assert [each.runner for each in placed] == ["a", "a", "a", "b", "a"]


@pytest.mark.parametrize(
    ("wanted", "there", "reason"),
    [
        ({}, {"opens_to": ["other"]}, "no site opens to firm"),
        ({"labels": ["gpu", "edge"]}, {"labels": ["edge"]}, "site lacks the label gpu"),
        ({"kind": "project"}, {}, "site runs docker, and a project needs plain processes"),
        ({}, {"product": "process"}, "site runs process, and an image needs containers"),
        ({}, {"architecture": "aarch64"}, "site is arm64, and the image is for amd64"),
        ({"memory": 2048}, {}, "site gives 1024 MiB of memory, and it needs 2048 MiB"),
        ({"cpu": 3.0}, {}, "site gives 2 cores, and it needs 3"),
        (
            {},
            {"seen_ns": NOW_NS - 30 * NS_PER_S - 1},
            "site has not answered since 1970-01-01T00:16:09.999999999Z",
        ),
        ({}, {"takes_work": False, "reason": "no pids limit"}, "site takes no work: no pids limit"),
        ({}, {"memory": 769}, "site has 255 MiB of memory free, and it needs 256 MiB"),
        ({}, {"cpu": 1.6}, "site has 2 cores free"),
    ],
)
def test_who_waits_is_told_what_the_site_lacks(wanted, there, reason):
    promised = {name: there.pop(name) for name in ("memory",) if name in there}
    if isinstance(there.get("cpu"), float):
        promised["cpu"] = there.pop("cpu")
        reason = "site has 0.4 cores free, and it needs 0.5"
    choice = chosen([deployment(**wanted)], site(**promised, **there))
    assert choice == [SiteChoice(1, None, reason, 1)]


def test_a_site_that_never_reported_is_told_of():
    silent = SiteCandidate(replace(runner(), state=None, seen_ns=None))
    assert chosen([deployment()], silent)[0].reason == "site has not answered yet"


def test_a_site_fits_to_the_last_byte_and_core():
    assert chosen([deployment(memory=256)], site(memory=768, cpu=1.5))[0].runner == "site"
    tenths = [deployment(number, memory=16, cpu=0.1) for number in range(1, 22)]
    placed = chosen(tenths, site())
    assert [each.runner for each in placed] == ["site"] * 20 + [None]


def test_the_reason_is_of_the_site_that_is_nearest_to_doing():
    sites = (
        site("far", labels=["edge"]),
        site("full", labels=["gpu"], memory=1000),
        site("off", labels=["gpu"], seen_ns=1),
    )
    choice = chosen([deployment(labels=["gpu"])], *sites)[0]
    assert choice.reason == "full has 24 MiB of memory free, and it needs 256 MiB"


def test_a_small_one_does_not_overtake_a_great_one_that_waits_for_the_same_site():
    great, small = deployment(1, memory=1000), deployment(2, memory=16)
    choices = chosen([great, small], site(memory=512))
    assert [each.place for each in choices] == [1, 2]
    assert choices[1].reason == "others wait for site before it"
    assert chosen([small, great], site(memory=512))[0].runner == "site"


def test_places_in_the_queue_are_counted_among_those_that_wait_for_the_same_sites():
    edge, gpu = site("edge", labels=["edge"], memory=1000), site("gpu", labels=["gpu"], memory=1000)
    waiting = [
        deployment(1, labels=["edge"]),
        deployment(2, labels=["gpu"]),
        deployment(3),
        deployment(4, labels=["edge"]),
        deployment(5, labels=["tpu"]),
        deployment(6, labels=["tpu"]),
    ]
    assert [each.place for each in chosen(waiting, edge, gpu)] == [1, 1, 3, 3, 1, 2]


def test_one_that_no_site_could_ever_hold_keeps_nobody_waiting():
    choices = chosen([deployment(1, memory=4096), deployment(2)], site())
    assert [each.runner for each in choices] == [None, "site"]


def test_a_project_goes_to_plain_processes_of_any_architecture():
    arm = site(product="process", architecture="riscv64")
    assert chosen([deployment(kind="project")], arm)[0].runner == "site"
