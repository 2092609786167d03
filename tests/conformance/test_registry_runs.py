"""The registry's runs, the same on both products."""

from dataclasses import replace

import pytest

from broker.errors import Unknown
from testbed_api.domain.organisations import Organisation
from testbed_api.domain.runs import HandedRun, RunContent, RunFilter
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

RUN = HandedRun(
    organisation="firm",
    scenario="valve",
    label="seed 1",
    seed=2**53 - 1,
    passed=True,
    began_ns=10,
    ended_ns=11,
    handed_ns=12,
    handed_by="cora",
    scenario_sha256="a" * 64,
    samples_sha256="b" * 64,
    sha256="c" * 64,
    report_sha256="d" * 64,
)
CONTENT = RunContent(record=b'{"v":1,"nul":"\\u0000"}', report="<p>\N{SNOWMAN}</p>\x00")
FIRM = RunFilter(organisation="firm")


@pytest.fixture
async def registry(where):
    async with open_engine(where) as engine:
        registry = Registry(engine)
        for name in ("firm", "other"):
            await registry.organisations.add(Organisation(name, name))
        yield registry


async def test_a_run_is_read_as_it_was_handed_over(registry):
    number = await registry.runs.add(RUN, CONTENT)
    assert await registry.runs.get(number) == replace(RUN, id=number)
    assert await registry.runs.record(number) == CONTENT.record
    assert await registry.runs.report(number) == CONTENT.report
    without = await registry.runs.add(replace(RUN, sha256="e" * 64), RunContent(record=b"{}"))
    assert await registry.runs.report(without) is None
    assert await registry.runs.stored_bytes("firm") > await registry.runs.stored_bytes("other") == 0


async def test_the_same_record_of_an_organisation_is_the_run_that_is_there(registry):
    number = await registry.runs.add(RUN, CONTENT)
    assert await registry.runs.add(replace(RUN, handed_ns=99), CONTENT) == number
    assert (await registry.runs.get(number)).handed_ns == RUN.handed_ns
    assert await registry.runs.add(replace(RUN, organisation="other"), CONTENT) != number


async def test_a_listing_has_the_newest_first_and_what_is_wanted_alone(registry):
    variants = [
        RUN,
        replace(RUN, sha256="1" * 64, passed=False, began_ns=20),
        replace(RUN, sha256="2" * 64, scenario="press", began_ns=30),
        replace(RUN, organisation="other"),
    ]
    first, second, third, _ = [await registry.runs.add(each, CONTENT) for each in variants]

    async def numbers(wanted, before=None, limit=10):
        return [each.id for each in await registry.runs.page(wanted, before, limit)]

    assert await numbers(FIRM) == [third, second, first]
    assert await numbers(FIRM, limit=2) == [third, second]
    assert await numbers(FIRM, before=second) == [first]
    assert await numbers(replace(FIRM, passed=False)) == [second]
    assert await numbers(replace(FIRM, scenario="valve", passed=True)) == [first]
    assert await numbers(replace(FIRM, since_ns=20)) == [third, second]


async def test_the_number_of_a_deleted_run_stands_for_no_other(registry):
    number = await registry.runs.add(RUN, CONTENT)
    await registry.runs.delete(await registry.runs.get(number))
    with pytest.raises(Unknown):
        await registry.runs.get(number)
    with pytest.raises(Unknown):
        await registry.runs.record(number)
    assert await registry.runs.add(RUN, CONTENT) > number


async def test_a_run_is_found_by_the_image_that_it_tried(registry):
    digest = f"sha256:{'d' * 64}"
    tried = replace(CONTENT, digests=frozenset({digest, f"sha256:{'e' * 64}"}))
    first = await registry.runs.add(replace(RUN, passed=True), tried)
    failed = replace(RUN, passed=False, sha256="f" * 64)
    await registry.runs.add(failed, tried)
    await registry.runs.add(replace(RUN, passed=True), tried)
    assert (await registry.runs.newest_passed(RUN.organisation, digest)).id == first
    assert await registry.runs.newest_passed("nobody", digest) is None
    assert await registry.runs.newest_passed(RUN.organisation, f"sha256:{'0' * 64}") is None
    await registry.runs.delete(await registry.runs.get(first))
    assert await registry.runs.newest_passed(RUN.organisation, digest) is None
