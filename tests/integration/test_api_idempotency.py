"""A request with an Idempotency-Key is carried out once, however often it is sent."""

import asyncio

import httpx
import pytest
from sqlalchemy import select

from broker.clock import DAY_S
from broker.credential import Credential
from broker.errors import Corrupt, Taken
from broker.responses.base import IDEMPOTENCY_KEY
from broker.rights import Entry
from testbed_api.domain import request_keys, tokens
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.request_keys import RequestKey
from testbed_api.http.auth import Authenticator
from testbed_api.registry import tables
from testbed_api.registry.audit import EventFilter
from tests.integration.api_bed import RIG, Bed, assert_problem

GRANTED = {"company": "company", "streams": [{"stream": str(RIG)}], "purpose": "to try"}
KEY = "b1c0ffee-0000-4000-8000-000000000001"


async def sent(bed: Bed, who: dict[str, str], path: str, body: object, key: str = KEY):
    headers = who | {IDEMPOTENCY_KEY: key}
    return await bed.http.post(path, headers=headers, json=body)


async def grants(bed: Bed, who: dict[str, str]) -> int:
    return len((await bed.ask(who, "GET", "/grants")).json()["items"])


def secret_of(who: dict[str, str]) -> str:
    return Credential.parse(who["Authorization"].removeprefix("Bearer ")).secret


async def kept(bed: Bed):
    """The rows of all keys."""
    async with bed.registry.request_keys._session.transaction() as sql:
        return (await sql.execute(select(tables.request_keys))).all()


@pytest.mark.usefixtures("rig")
async def test_a_request_that_is_sent_fifty_times_makes_one_grant(bed, owner):
    async with asyncio.TaskGroup() as group:
        sending = [group.create_task(sent(bed, owner, "/grants", GRANTED)) for _ in range(50)]
    answers = [task.result() for task in sending]
    answers.append(await sent(bed, owner, "/grants", GRANTED))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert {answer.headers["content-type"] for answer in answers} == {"application/json"}
    replayed = [answer.headers.get("idempotency-replayed") for answer in answers]
    assert (replayed.count("true"), replayed.count(None)) == (50, 1)
    assert await grants(bed, owner) == 1


@pytest.mark.usefixtures("rig")
async def test_the_audit_says_which_request_a_later_one_repeats(bed, owner):
    first = await sent(bed, owner, "/grants", GRANTED)
    again = await sent(bed, owner, "/grants", GRANTED)
    links = await bed.registry.audit.events(EventFilter(action="share"), 0, 10)
    events = {link.event.request: link.event for link in links}
    repeat = events[again.headers["x-request-id"]]
    assert f'"repeats":"{first.headers["x-request-id"]}"' in repeat.details
    assert "repeats" not in events[first.headers["x-request-id"]].details


@pytest.mark.usefixtures("rig")
async def test_without_a_key_or_with_another_one_it_is_a_request_of_its_own(bed, owner):
    await sent(bed, owner, "/grants", GRANTED)
    await sent(bed, owner, "/grants", GRANTED, key="another")
    await bed.ask(owner, "POST", "/grants", json=GRANTED)
    assert await grants(bed, owner) == 3


@pytest.mark.usefixtures("rig")
async def test_a_key_with_another_content_is_refused(bed, owner):
    assert (await sent(bed, owner, "/grants", GRANTED)).status_code == 201
    for path, body in (("/grants", GRANTED | {"purpose": "another"}), ("/pauses", GRANTED)):
        answer = await sent(bed, owner, path, body)
        assert_problem(answer, 422, "invalid", "was used for another request")
    assert await grants(bed, owner) == 1


@pytest.mark.parametrize("key", ["", "two words", "é", "x" * 201])
async def test_a_text_that_is_no_key_is_refused(bed, owner, key):
    headers = owner | {IDEMPOTENCY_KEY: key.encode()}
    answer = await bed.http.post("/grants", headers=headers, json=GRANTED)
    assert_problem(answer, 422, "invalid", IDEMPOTENCY_KEY)


async def test_a_key_is_its_tokens_alone(bed, owner):
    first = (await sent(bed, owner, "/tokens", {"label": "laptop"})).json()
    other = {"Authorization": f"Bearer {first['credential']}"}
    second = (await sent(bed, other, "/tokens", {"label": "laptop"})).json()
    assert first["id"] != second["id"]


async def test_a_token_that_was_revoked_gets_no_answer_of_before(bed, owner):
    token = (await bed.ask(owner, "POST", "/tokens", json={})).json()
    holder = {"Authorization": f"Bearer {token['credential']}"}
    assert (await sent(bed, holder, "/tokens", {})).status_code == 201
    await bed.ask(owner, "DELETE", f"/tokens/{token['id']}")
    assert_problem(await sent(bed, holder, "/tokens", {}), 401, "unauthenticated")


async def test_a_new_credential_is_answered_again_and_not_stored_in_clear(bed, owner):
    first = await sent(bed, owner, "/tokens", {"label": "laptop"})
    again = await sent(bed, owner, "/tokens", {"label": "laptop"})
    assert first.json() == again.json()
    secret = Credential.parse(first.json()["credential"]).secret
    (row,) = await kept(bed)
    stored = f"{row.id} {row.content} {row.request}".encode() + row.sealed
    for clear in (secret, secret_of(owner), KEY):
        assert clear.encode() not in stored
    somebody = RequestKey(id=row.id, content=row.content, secret="of whoever has the registry")
    with pytest.raises(Corrupt):
        somebody.opened(row.sealed)


@pytest.mark.usefixtures("rig")
async def test_after_a_day_a_key_is_a_new_one_and_the_former_is_deleted(bed, owner):
    await sent(bed, owner, "/grants", GRANTED)
    await bed.clock.advance(DAY_S - 1)
    await sent(bed, owner, "/grants", GRANTED)
    assert await grants(bed, owner) == 1
    await bed.clock.advance(2)
    await sent(bed, owner, "/grants", GRANTED)
    assert await grants(bed, owner) == 2
    assert len(await kept(bed)) == 1


@pytest.mark.usefixtures("rig")
async def test_a_refused_request_leaves_its_key_unused(bed, owner, admin):
    wanted = GRANTED | {"company": "newcomer"}
    assert_problem(await sent(bed, owner, "/grants", wanted), 404, "unknown")
    body = {"id": "newcomer", "name": "New", "kind": "company", "owner": "nell"}
    assert (await bed.ask(admin, "POST", "/organisations", json=body)).status_code == 201
    assert (await sent(bed, owner, "/grants", wanted)).status_code == 201


@pytest.mark.usefixtures("rig")
async def test_a_crash_between_change_and_answer_makes_no_second_one(bed, owner):
    await granted_without_an_answer(bed, owner)
    answer = await sent(bed, owner, "/grants", GRANTED)
    assert_problem(answer, 409, "taken", "was carried out at", "its answer was not kept")
    assert await grants(bed, owner) == 1


@pytest.mark.usefixtures("rig")
async def test_of_two_processes_at_once_one_makes_the_change(bed, owner):
    context = await granted_without_an_answer(bed, owner)
    with pytest.raises(Taken, match="is being carried out"):
        async with bed.api.registry.change(context, bed.clock):
            pass


async def granted_without_an_answer(bed: Bed, owner: dict[str, str]) -> AuditContext:
    """Make the change of a request as a process does that ends before it answers."""
    body = httpx.Request("POST", "http://api/", json=GRANTED).content
    content = request_keys.content_hash("POST", "/api/v1/grants", b"", body)
    key = RequestKey.of(KEY, secret=secret_of(owner), content=content)
    authenticator = Authenticator(registry=bed.api.registry, clock=bed.clock)
    caller = await authenticator.find("fay", tokens.hashed(secret_of(owner)))
    context = AuditContext(principal="fay", organisation="factory", request="5" * 16, key=key)
    entries = [Entry("live", RIG)]
    await bed.api.grants.give(context, caller, "company", entries, purpose="to try", lasting_s=None)
    return AuditContext(principal="fay", organisation="factory", key=key)


@pytest.mark.usefixtures("rig")
async def test_a_crash_before_the_change_is_committed_leaves_nothing(bed, owner):
    key = RequestKey.of(KEY, secret=secret_of(owner), content="5" * 64)
    context = AuditContext(principal="fay", organisation="factory", key=key)
    with pytest.raises(RuntimeError, match="crash"):
        async with bed.api.registry.change(context, bed.clock):
            raise RuntimeError("crash")
    assert await kept(bed) == []
    assert (await sent(bed, owner, "/grants", GRANTED)).status_code == 201
