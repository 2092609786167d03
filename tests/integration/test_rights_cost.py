"""The cost of rights in SQL statements: it does not grow with people or with foreign listings."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from broker.namespace import EquipmentAddress
from broker.rights import Entry, Listing, Role, Span
from testbed_api.domain import organisations, tokens
from tests.integration.api_bed import RIG, STREAM, Bed

STREAMS = {"streams": [{"stream": str(RIG)}], "purpose": "to try"}


def spaces(*names: str) -> dict[str, object]:
    """A request for the rig in some spaces."""
    return STREAMS | {"streams": [{"space": name, "stream": str(RIG)} for name in names]}


@contextmanager
def statements(bed: Bed) -> Iterator[list[str]]:
    """All SQL statements while it is open."""
    listed: list[str] = []
    engine = bed.registry._engine.registry.sync_engine

    def note(_connection, _cursor, statement, *_more) -> None:
        listed.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield listed
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def people(bed: Bed, first: int, last: int) -> None:
    """Developers of the company, each with a token."""
    now_ns = bed.clock.now_ns()
    async with bed.registry.unaudited_change() as change:
        for number in range(first, last):
            person = organisations.person(f"dev-{number}", "company", {Role.DEVELOPER}, now_ns)
            _, token = tokens.issued(person.id, person.span)
            await change.principals.add(person)
            await change.tokens.add(token)


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("rig")
async def test_an_act_on_a_grant_takes_the_same_statements_for_1_10_and_100_people(bed, owner):
    cora = await bed.person("cora", "company", Role.OWNER)
    await bed.ask(owner, "PUT", f"/equipment/{RIG.owner}/listing", json={"everybody": True})
    seen: dict[str, set[int]] = {}

    async def act(name: str, who: dict[str, str], method: str, path: str, **content: object):
        with statements(bed) as listed:
            answer = await bed.ask(who, method, path, **content)
        assert answer.status_code < 300, answer.text
        seen.setdefault(name, set()).add(len(listed))
        return answer

    company_people = 0
    for company in (1, 10, 100):
        await people(bed, company_people, company - 1)
        company_people = company - 1
        bed.disconnected.clear()
        answer = await bed.ask(cora, "POST", "/requests", json=spaces("live", "run-1", "run-2"))
        first, second, third = [grant["id"] for grant in answer.json()["items"]]
        await act("approve", owner, "POST", f"/grants/{first}/approval", json={})
        assert len(bed.disconnected) == company
        await act("pause", owner, "POST", "/pauses", json={"company": "company"})
        assert len(bed.disconnected) == 2 * company
        await act("resume", owner, "DELETE", "/pauses?company=company")
        await act("revoke", owner, "DELETE", f"/grants/{first}")
        assert len(bed.disconnected) == 4 * company
        await act("refuse", owner, "POST", f"/grants/{second}/refusal", json={})
        await act("withdraw", cora, "POST", f"/grants/{third}/withdrawal")
        body = STREAMS | {"company": "company"}
        given = await act("give", owner, "POST", "/grants", json=body)
        await bed.ask(owner, "DELETE", f"/grants/{given.json()['items'][0]['id']}")
    assert {name: len(counts) for name, counts in seen.items()} == dict.fromkeys(seen, 1), seen
    assert max(seen["approve"]) <= 35


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("rig")
async def test_an_act_on_an_equipment_takes_the_same_statements_for_1_10_and_100_streams(
    bed, owner
):
    cora = await bed.person("cora", "company", Role.OWNER)
    await bed.ask(owner, "PUT", f"/equipment/{RIG.owner}/listing", json={"everybody": True})
    for who in (cora, owner):
        await bed.ask(who, "GET", "/me")  # the last use of its token is noted
    whole = {"equipment": str(RIG.owner)}
    seen: dict[str, set[int]] = {}

    async def act(name: str, who: dict[str, str], path: str, body: dict[str, object]) -> None:
        with statements(bed) as listed:
            answer = await bed.ask(who, "POST", path, json=body)
        assert answer.status_code < 300, answer.text
        assert len(answer.json()["items"]) == streams
        seen.setdefault(name, set()).add(len(listed))

    registered = 1
    for streams in (1, 10, 100):
        new = [
            {"stream": f"s{number}", "signals": [{"name": "p"}]}
            for number in range(registered, streams)
        ]
        if new:
            await bed.ask(owner, "POST", f"/equipment/{RIG.owner}/specs", json={"streams": new})
        registered = streams
        request = {"equipment": [whole], "purpose": "to try"}
        bed.disconnected.clear()
        await act("ask", cora, "/requests", request)
        await act("ask again", cora, "/requests", request)
        await act("approve", owner, "/grants/approval", whole)
        await act("revoke", owner, "/grants/revocation", {"company": "company"})
        assert bed.disconnected == ["cora"] * 2
        await act("ask", cora, "/requests", request)
        await act("refuse", owner, "/grants/refusal", whole)
        await act("ask", cora, "/requests", request)
        await act("withdraw", cora, "/grants/withdrawal", whole)
    assert {name: len(counts) for name, counts in seen.items()} == dict.fromkeys(seen, 1), seen
    assert max(seen["approve"]) <= 35


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("rig")
async def test_a_request_loads_no_listing_that_does_not_concern_it(bed, owner):
    cora = await bed.person("cora", "company", Role.OWNER)
    listed = EquipmentAddress("factory", "pump-rig")
    to_cora = Listing(listed, frozenset({"company"}), Span(bed.clock.now_ns()))
    await bed.registry.listings.put(to_cora, by="fay")
    for who in (cora, owner):
        await bed.ask(who, "GET", "/me")  # the last use of its token is noted
    counts = {"other": [], "own": []}
    for first, last in ((0, 1), (1, 100)):
        async with bed.registry.unaudited_change() as change:
            for number in range(first, last):
                address = EquipmentAddress("factory", f"mill-{number}")
                span = Span(bed.clock.now_ns())
                foreign = Listing(address, frozenset({"testbed"}), span)
                await change.listings.put(foreign, by="fay")
        with statements(bed) as noted:
            answer = await bed.ask(cora, "GET", STREAM)
        assert answer.status_code == 200
        counts["other"].append(len(noted))
        with statements(bed) as noted:
            answer = await bed.ask(owner, "GET", STREAM)
        counts["own"].append(len(noted))
        rights = await bed.registry.rights.of_principal("cora", bed.clock.now_ns())
        assert rights.listings == (to_cora,)
        assert (await bed.registry.rights.on_bus("cora", bed.clock.now_ns())).listings == ()
    assert all(before == after for before, after in counts.values())


@pytest.mark.timeout(60)
async def test_a_new_spec_takes_the_same_statements_with_many_streams(bed, owner, rig):
    await bed.ask(owner, "GET", "/me")  # the last use of its token is noted
    counts = []
    for number in range(40):
        with statements(bed) as noted:
            path = f"/streams/{RIG.owner}/s{number}/specs"
            answer = await bed.ask(owner, "POST", path, json={"signals": [{"name": "p"}]})
        assert answer.status_code == 200
        counts.append(len(noted))
    assert len(set(counts)) == 1
    assert counts[0] <= 18
    for size in (1, 10, 100):
        proposals = [
            {"stream": f"b{size}-{number}", "signals": [{"name": "p"}]} for number in range(size)
        ]
        with statements(bed) as noted:
            path, body = f"/equipment/{RIG.owner}/specs", {"streams": proposals}
            answer = await bed.ask(owner, "POST", path, json=body)
        assert answer.status_code == 200
        counts.append(len(noted))
    assert len(set(counts)) == 1
    about = Entry("live", rig.address)
    now_ns = bed.clock.now_ns()
    whole = await bed.registry.rights.of_principal("fay", now_ns)
    rights = await bed.registry.rights.of_principal("fay", now_ns, rig.address)
    assert len(whole.known) == 41 + 111
    assert rights.known == {about}
