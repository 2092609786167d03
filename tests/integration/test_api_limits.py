"""The API's limits, route by route, and the broker's auth callout."""

import asyncio
from dataclasses import replace

import httpx
import pytest
from pydantic import SecretStr

from broker import api_client
from broker.bus import client
from broker.clock import WallClock
from broker.errors import Forbidden, Unavailable
from broker.rights import Role
from broker.settings import BusSettings
from testbed_api import service
from testbed_api.http.app import create_app
from testbed_api.limits.quotas import Quotas, QuotaSettings
from testbed_api.settings import ServerSettings
from tests.integration.api_bed import SPEC, STREAM, assert_problem, stored

ROOT_URL = "http://api/api/v1"
BEGIN, END = "2026-11-23T12:00:00Z", "2026-11-23T13:00:00Z"
HISTORY = f"{STREAM}/history?from={BEGIN}&to={END}"


def limited(bed, **most):
    """The same bed with other limits."""
    api = replace(bed.api, quotas=Quotas(bed.clock, QuotaSettings(**most)))
    door = httpx.ASGITransport(create_app(api), raise_app_exceptions=False)
    return replace(bed, api=api, http=httpx.AsyncClient(transport=door, base_url=ROOT_URL))


async def test_more_requests_than_an_organisation_may_make_are_put_off(bed, owner, writer, admin):
    bed = limited(bed, requests_per_s=1)
    for at in range(10):
        who = owner if at % 2 else writer
        assert (await bed.ask(who, "GET", "/equipment")).status_code == 200
    refused = await bed.ask(owner, "GET", "/equipment")
    assert_problem(refused, 429, "too_many", "more than 1 requests/s")
    assert refused.headers["retry-after"] == "1"
    assert (await bed.ask(admin, "GET", "/equipment")).status_code == 200
    figures = (await bed.ask(admin, "GET", "/metrics")).text
    assert 'testbed_limited_total{organisation="factory",what="requests"} 1.0' in figures
    await bed.clock.advance(1)
    assert (await bed.ask(owner, "GET", "/equipment")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer fay.wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "x"},
    ],
    ids=["none", "wrong", "empty", "no bearer"],
)
@pytest.mark.parametrize("path", ["", "/health", "/equipment", "/openapi.json", "/nowhere"])
async def test_who_shows_no_right_credential_is_counted_by_address(bed, owner, headers, path):
    bed = limited(bed, anonymous_per_s=1)
    answers = [await bed.http.get(path, headers=headers) for _ in range(12)]
    if path == "/nowhere" and headers.get("Authorization", "").startswith("Bearer"):
        assert {each.status_code for each in answers} == {404}  # nobody looks at it
        return
    assert [each.status_code for each in answers[:10]] == [answers[0].status_code] * 10
    for answer in answers[10:]:
        assert_problem(answer, 429, "too_many", "of one address")
    assert (await bed.ask(owner, "GET", "/equipment")).status_code == 200


async def test_one_more_stream_than_may_be_is_refused_and_none_that_is_there(bed, owner, rig):
    bed = limited(bed, streams=1)
    assert (await bed.ask(owner, "POST", f"{STREAM}/specs", json=SPEC)).status_code == 200
    other = f"/streams/{rig.address.owner}/other"
    refused = await bed.ask(owner, "POST", f"{other}/specs", json=SPEC)
    assert_problem(refused, 429, "too_many", "1 streams")
    assert (await bed.ask(owner, "GET", other)).status_code == 404


async def test_who_reads_more_samples_than_it_may_waits_before_the_next_look(bed, reader, rig):
    await stored(bed, rig, 1_000)
    bed = limited(bed, points_per_s=100)
    whole = await bed.ask(reader, "GET", HISTORY)
    assert whole.json()["frames"]
    refused = await bed.ask(reader, "GET", HISTORY)
    assert_problem(refused, 429, "too_many", "100 samples/s")
    await bed.clock.advance(int(refused.headers["retry-after"]))
    assert (await bed.ask(reader, "GET", HISTORY)).status_code == 200


async def test_an_example_counts_as_what_is_read(bed, owner, rig):
    await stored(bed, rig, 1_000)
    bed = limited(bed, points_per_s=100)
    example = {"stream": str(rig.address), "from": BEGIN, "to": END}
    listing = {"everybody": True, "sample": example}
    path = f"/equipment/{rig.address.owner}"
    assert (await bed.ask(owner, "PUT", f"{path}/listing", json=listing)).status_code == 200
    cora = await bed.person("cora", "company", Role.DEVELOPER)
    assert (await bed.ask(cora, "GET", f"{path}/sample")).json()["frames"]
    refused = await bed.ask(cora, "GET", f"{path}/sample")
    assert_problem(refused, 429, "too_many", "100 samples/s")
    assert (await bed.ask(owner, "GET", f"{path}/sample")).status_code == 200


@pytest.mark.usefixtures("rig")
async def test_one_more_live_connection_than_may_be_is_refused(bed, owner):
    bed = limited(bed, connections=1)
    with bed.api.quotas.following("factory"):
        refused = await bed.ask(owner, "GET", f"{STREAM}/live")
    assert_problem(refused, 429, "too_many", "1 live connections")


async def test_a_client_of_ours_takes_it_for_later(bed, owner):
    bed = limited(bed, requests_per_s=1)
    for _ in range(10):
        await bed.ask(owner, "GET", "/equipment")
    with pytest.raises(Unavailable, match="more than 1 requests/s"):
        raise api_client.problem(await bed.ask(owner, "GET", "/equipment"))


def test_the_defaults_are_those_of_the_settings():
    assert ServerSettings().limits == QuotaSettings() == Quotas(WallClock()).most


async def test_the_broker_lets_in_no_more_than_an_organisation_may_have(tmp_path):
    clock = WallClock()
    settings = ServerSettings(
        folder=tmp_path / "data", api_port=0, mqtt_port=0, limit_connections=2
    )
    async with (
        service.serve(settings, clock) as server,
        api_client.connect(f"http://{server.api}", server.administrator) as door,
    ):
        keys = {
            name: await door.create_organisation(name, owner=f"{name}-o", kind="partner")
            for name in ("factory", "company")
        }

        def opened(name, number):
            way = BusSettings(broker=f"mqtt://{server.broker}", credential=SecretStr(keys[name]))
            return client.open(way, clock, client_id=f"{name}-o--{number}")

        async with opened("factory", 1) as first:
            await first.ready()
            async with opened("factory", 2) as second:
                await second.ready()
                async with opened("factory", 3) as third:
                    with pytest.raises(Forbidden):
                        await third.ready()
                async with opened("company", 1) as other:
                    await other.ready()
            async with asyncio.timeout(10):
                while True:  # the second has left: the broker says so when it is asked again
                    await clock.sleep(1.1)
                    async with opened("factory", 4) as fourth:
                        try:
                            await fourth.ready()
                            break
                        except Forbidden:
                            continue
