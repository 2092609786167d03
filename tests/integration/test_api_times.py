"""Times in queries of the API, as people write them; bodies that change something take instants."""

import pytest

from broker.clock import DAY_S
from tests.integration.api_bed import STREAM, assert_problem, stored


async def pressures(bed, who, **span):
    """The pressures in a history, None for a bad one."""
    answer = await bed.ask(who, "GET", f"{STREAM}/history", params={"signals": "Pressure"} | span)
    assert answer.status_code == 200, answer.text
    frames = answer.json()["frames"]
    return [value for frame in frames for value in frame["value"]]


@pytest.mark.parametrize(
    ("span", "count"),
    [
        ({"from": "-10s"}, 10),
        ({"from": "-1m", "to": "-50s"}, 10),
        ({"from": "today"}, 60),
        ({"from": "2026-11-23", "to": "tomorrow"}, 60),
        ({"from": "yesterday", "to": "today"}, 0),
        ({"from": "2026-11-23T12:00:00Z", "to": "now"}, 60),
    ],
)
async def test_the_span_of_a_history_is_by_the_servers_clock(bed, rig, reader, span, count):
    await stored(bed, rig, 60)
    await bed.clock.advance(60)
    assert len(await pressures(bed, reader, **span)) == count


@pytest.mark.usefixtures("rig")
@pytest.mark.parametrize("path", [f"{STREAM}/history", f"{STREAM}/gaps", f"{STREAM}/dead-letters"])
async def test_a_time_that_is_none_is_refused_with_all_forms(bed, owner, path):
    answer = await bed.ask(owner, "GET", path, params={"from": "monday"})
    assert_problem(answer, 422, "invalid", "'monday' is not an instant", "-10m", "yesterday")
    answer = await bed.ask(owner, "GET", path, params={"from": "now", "to": "-1h"})
    assert_problem(answer, 422, "invalid", "empty or inverted")
    answer = await bed.ask(owner, "GET", path, params={"from": "-1d", "to": "now"})
    assert answer.status_code == 200


async def test_events_and_access_are_of_times_before_now(bed, owner, rig):
    assert rig.address.owner.equipment == "pump-rig"
    await bed.ask(owner, "POST", "/credentials", json={"principal": "box"})
    await bed.clock.advance(2 * DAY_S)
    for span, count in (({"from": "-1d"}, 0), ({"from": "-3d", "to": "-1d"}, 1)):
        events = (await bed.ask(owner, "GET", "/audit", params=span | {"action": "issue"})).json()
        assert len(events["items"]) == count, events
    path = f"/equipment/{rig.address.owner}/access"
    report = (await bed.ask(owner, "GET", path, params={"from": "yesterday"})).json()
    assert report["did"]["from"] == "2026-11-24T00:00:00.000000000Z"
    assert (await bed.ask(owner, "GET", path, params={"at": "-1h"})).status_code == 200


@pytest.mark.usefixtures("rig")
async def test_a_body_that_deletes_or_grants_names_exact_instants(bed, owner):
    gone = await bed.ask(owner, "POST", f"{STREAM}/deletions", json={"from": "yesterday"})
    assert_problem(gone, 422, "invalid", "'yesterday' is not an instant", "2026-11-23T12:00:00Z")
