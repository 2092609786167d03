"""Everybody's rights at once: what Mosquitto is told is what NATS would be answered."""

import itertools
from dataclasses import replace

import pytest

from broker import policy
from broker.batch import EquipmentKind
from broker.credential import Credential
from broker.namespace import LIVE, StreamAddress
from broker.rights import Action, Entry, Party, Pause, Role, Scope, Span
from broker.streams import Signal, StreamSpec
from testbed_api.broker_auth import mosquitto_reconciler
from testbed_api.domain import organisations, tokens
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.grants import GrantRequest
from testbed_api.domain.organisations import Organisation
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry

RIG, MILL = (StreamAddress("factory", each, "s") for each in ("rig", "mill"))
MOMENTS = (1, 5, 9, 10, 11, 15, 20, 25, 30, 31, 40, 50, 99)


@pytest.fixture
async def registry(where):
    async with open_engine(where) as engine:
        yield Registry(engine)


def steps(registry):
    """Changes of rights, one after the other; each is awaited by whoever wants it."""
    entry = Entry(LIVE, RIG)
    run = Entry("run-x", MILL)
    yield registry.organisations.add(Organisation("factory", "F", Party.PARTNER))
    yield registry.organisations.add(Organisation("lab", "L", Party.COMPANY))
    yield registry.equipment.put(Equipment(RIG.owner, "Rig", EquipmentKind.SIMULATED))
    yield registry.equipment.put(Equipment(MILL.owner, "Mill", EquipmentKind.SIMULATED))
    people = [
        organisations.person("fay", "factory", {Role.OWNER}, 1),
        organisations.person("dev", "lab", {Role.DEVELOPER}, 1),
        organisations.machine("gateway", "factory", Scope(equipment=RIG.owner), Span(1)),
        organisations.machine("old", "factory", Scope(writes=frozenset({run})), Span(1, 20)),
        organisations.machine("robot", "lab", Scope(reads=frozenset({entry})), Span(1, 50)),
    ]
    for person in people:
        yield registry.principals.add(person)
        yield registry.tokens.add(tokens.issued(person.id, Span(1))[1])
    yield registry.streams.add(StreamSpec(RIG, (Signal("p"),)))
    yield registry.streams.add(StreamSpec(MILL, (Signal("p"),)))
    yield registry.grants.add(GrantRequest("lab", entry, "", 1).granted(Span(10, 40), "fay", 1))
    yield registry.pauses.add(Pause("factory", "lab", None, Span(15, 25)), by="fay")
    yield registry.pauses.add(Pause("factory", None, "mill", Span(2)), by="fay")
    yield registry.tokens.add(tokens.issued("dev", Span(30))[1])
    yield registry.principals.end(people[1], by="fay", now_ns=31)


async def test_at_each_moment_it_is_what_each_principal_alone_has(registry):
    for change in steps(registry):
        await change
    everything = await registry.rights_snapshot.load(0)
    for at_ns in MOMENTS:
        admitted = mosquitto_reconciler.decide(everything, at_ns).admitted
        for name in ("fay", "dev", "gateway", "old", "robot"):
            alone = await registry.rights.of_principal(name, at_ns)
            if alone.principal(name, at_ns) is None:
                assert name not in admitted
            else:
                assert admitted[name].topics == policy.topics(alone, name, at_ns)
    assert mosquitto_reconciler.decide(everything, 12).admitted["dev"].topics.subscribe


async def test_the_rights_of_each_of_several_are_what_each_alone_has(registry):
    for change in steps(registry):
        await change
    names = ("fay", "dev", "gateway", "old", "robot", "nobody")
    for at_ns in MOMENTS:
        each = await registry.rights.of_each(names, at_ns)
        for name in names:
            alone = await registry.rights.of_principal(name, at_ns)
            assert (name in each) is bool(alone.principals)
            if name not in each:
                continue
            rights, tokens_ = each[name].rights, await registry.tokens.valid(name, at_ns)
            assert [token.id for token in each[name].tokens] == [token.id for token in tokens_]
            assert policy.topics(rights, name, at_ns) == policy.topics(alone, name, at_ns)
            for entry, action in itertools.product(
                (Entry(LIVE, RIG), Entry("run-x", MILL)), Action
            ):
                decisions = [
                    policy.decide(its, name, action, entry, at_ns) for its in (rights, alone)
                ]
                assert decisions[0] == decisions[1], (name, action, at_ns)


async def test_between_two_moments_nothing_changes_by_itself(registry):
    for change in steps(registry):
        await change
    everything = await registry.rights_snapshot.load(0)
    at_ns, seen = 1, []
    while at_ns is not None:
        decided = mosquitto_reconciler.decide(everything, at_ns)
        seen.append(at_ns)
        if decided.next_ns is not None:
            before = mosquitto_reconciler.decide(everything, decided.next_ns - 1)
            assert before.admitted == decided.admitted
        at_ns = decided.next_ns
    assert seen == [1, 2, 10, 15, 20, 25, 30, 31, 40, 50]


async def test_each_change_of_rights_raises_their_version(registry):
    for number, change in enumerate(steps(registry)):
        before = await registry.rights_snapshot.version()
        await change
        quiet = number < 4  # organisations and equipment give nobody anything
        assert (await registry.rights_snapshot.version() != before) or quiet


async def test_the_newest_token_that_counts_and_is_for_the_bus_is_let_in(registry):
    await registry.organisations.add(Organisation("lab", "L", Party.COMPANY))
    await registry.principals.add(organisations.person("dev", "lab", {Role.DEVELOPER}, 1))
    issued = [
        tokens.from_credential(Credential.make("dev"), span, bus=bus)
        for span, bus in ((Span(1), True), (Span(5, 10), True), (Span(6), False))
    ]
    for token in issued:
        await registry.tokens.add(token)
    everything = await registry.rights_snapshot.load(0)
    verifiers = [
        mosquitto_reconciler.decide(everything, at_ns).admitted["dev"].verifier
        for at_ns in (4, 7, 10)
    ]
    assert verifiers == [issued[0].verifier, issued[1].verifier, issued[0].verifier]


async def test_the_newest_token_that_counts_decides_by_its_roles(registry):
    for change in steps(registry):
        await change
    both = {Role.DEVELOPER, Role.OPERATOR}
    await registry.principals.add(organisations.person("doe", "lab", both, 1))
    several = [
        (Span(1), None),
        (Span(26, 29), frozenset({Role.OPERATOR})),
        (Span(28, 33), frozenset({Role.DEVELOPER, Role.OWNER})),
        (Span(32), frozenset({Role.AUDITOR})),
    ]
    issued = [replace(tokens.issued("doe", span)[1], roles=roles) for span, roles in several]
    for token in issued:
        await registry.tokens.add(token)
    everything = await registry.rights_snapshot.load(0)
    for at_ns, newest in ((12, 0), (26, 1), (28, 2), (32, 2), (33, 0)):  # never the last
        admitted = mosquitto_reconciler.decide(everything, at_ns).admitted["doe"]
        narrow = (await registry.rights.of_principal("doe", at_ns)).with_roles(
            "doe", issued[newest].roles
        )
        assert admitted.verifier == issued[newest].verifier
        assert admitted.topics == policy.topics(narrow, "doe", at_ns)
        assert bool(admitted.topics.subscribe) is (newest != 1)


async def test_nobody_is_let_in_by_a_token_whose_roles_its_person_has_no_more(registry):
    await registry.organisations.add(Organisation("lab", "L", Party.COMPANY))
    doe = organisations.person("doe", "lab", {Role.DEVELOPER}, 1)
    await registry.principals.add(doe)
    token = replace(tokens.issued("doe", Span(1))[1], roles=frozenset({Role.DEVELOPER}))
    await registry.tokens.add(token)
    assert "doe" in mosquitto_reconciler.decide(await registry.rights_snapshot.load(0), 5).admitted
    await registry.principals.change_roles(doe, {Role.OPERATOR}, by="doe", now_ns=6)
    assert (
        "doe" not in mosquitto_reconciler.decide(await registry.rights_snapshot.load(0), 7).admitted
    )
