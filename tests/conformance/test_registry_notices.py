"""The registry's queue of notices and its e-mail addresses, the same on both products."""

import pytest

from broker.rights import Role
from testbed_api.domain import organisations
from testbed_api.domain.notices import Channel, QueuedNotice
from testbed_api.domain.organisations import Organisation
from testbed_api.registry.engine import open_engine
from testbed_api.registry.registry import Registry


@pytest.fixture
async def registry(where):
    async with open_engine(where) as engine:
        yield Registry(engine)


def notice(person: str, queued_ns: int) -> QueuedNotice:
    return QueuedNotice(
        channel=Channel.MAIL,
        organisation="factory",
        person=person,
        content={"kind": "asked"},
        queued_ns=queued_ns,
    )


async def test_a_notice_waits_until_it_is_claimed_put_off_and_removed(registry):
    await registry.notices.add([notice("fay", 1), notice("finn", 9)])
    assert await registry.notices.claim(0, 5) == []
    (first,) = await registry.notices.claim(1, 5)
    assert (first.person, first.content, first.attempts) == ("fay", {"kind": "asked"}, 0)
    await registry.notices.put_off(first, 20, "the mail server is away")
    (backlog,) = await registry.notices.backlog()
    assert (backlog.waiting, backlog.failed, backlog.oldest_ns) == (2, 1, 1)
    assert backlog.reason == "the mail server is away"
    assert [each.person for each in await registry.notices.claim(10, 11)] == ["finn"]
    claimed = await registry.notices.claim(20, 30)
    assert [(each.person, each.attempts) for each in claimed] == [("fay", 1), ("finn", 0)]
    for each in claimed:
        await registry.notices.remove(each)
    assert await registry.notices.backlog() == []


async def test_the_id_of_a_notice_that_is_removed_is_not_used_again(registry):
    ids = []
    for second in (1, 2):
        await registry.notices.add([notice("fay", second)])
        (claimed,) = await registry.notices.claim(second, 5)
        await registry.notices.remove(claimed)
        ids.append(claimed.id)
    assert ids[0] < ids[1]


async def test_owners_and_named_people_with_an_address_are_the_recipients(registry):
    await registry.organisations.add(Organisation("factory", "F"))
    people = {"fay": Role.OWNER, "finn": Role.ENGINEER, "otto": Role.OPERATOR, "olga": Role.OWNER}
    for name, role in people.items():
        await registry.principals.add(organisations.person(name, "factory", {role}, 1))
    for name in ("fay", "finn", "otto"):
        await registry.emails.set(name, f"{name}@factory.example")
    assert await registry.emails.recipients("factory", ["finn"], 5) == ["fay", "finn"]
    assert await registry.emails.recipients("another", ["finn"], 5) == []
    await registry.emails.set("finn", "finn@mail.example")
    assert await registry.emails.find("finn") == "finn@mail.example"
    finn = organisations.person("finn", "factory", {Role.ENGINEER}, 1)
    await registry.principals.end(finn, by=None, now_ns=6)
    assert await registry.emails.find("finn") is None
