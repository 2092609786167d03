"""What partners and companies do with each other over HTTP: listings, grants, pauses, the view."""

import json

import pytest

from broker import clock
from broker.namespace import StreamAddress
from broker.rights import Role
from testbed_api.registry.audit import EventFilter
from tests.integration.api_bed import RIG, SPEC, START_NS, STREAM, answered, assert_problem, stored

EQUIPMENT = f"/equipment/{RIG.owner}"
SAMPLE = {
    "stream": str(RIG),
    "from": clock.text_of(START_NS),
    "to": clock.text_of(START_NS + 3 * clock.NS_PER_S),
}
ASKED = {"streams": [{"stream": str(RIG)}], "purpose": "to find the fault", "expires_in_s": 600}


@pytest.fixture
async def cora(bed):
    """A developer of a company."""
    return await bed.person("cora", "company", Role.DEVELOPER)


@pytest.fixture
async def listed(bed, owner, rig):  # noqa: ARG001
    """The rig, listed to the company."""
    answer = await bed.ask(
        owner, "PUT", f"{EQUIPMENT}/listing", json={"organisations": ["company"]}
    )
    assert answer.status_code == 200, answer.text


async def asked(bed, who, **change):
    answer = await bed.ask(who, "POST", "/requests", json=ASKED | change)
    assert answer.status_code == 201, answer.text
    return [each["id"] for each in answer.json()["items"]]


async def reads(bed, who, **params):
    answer = await bed.ask(who, "GET", f"{STREAM}/history", params=params)
    assert answer.status_code in {200, 403, 404}
    return answer.status_code == 200


# --- listings -------------------------------------------------------------------------------------


PATHS = [EQUIPMENT, f"{EQUIPMENT}/listing", f"{EQUIPMENT}/sample", STREAM, f"{STREAM}/specs/1"]


async def test_the_audit_of_a_request_has_the_end_that_was_asked_for(bed, owner, listed, cora):  # noqa: ARG001
    await asked(bed, cora)
    event = [each.event for each in await bed.registry.audit.events(EventFilter(), 0, 10_000)][-1]
    until_ns = bed.clock.now_ns() + 600 * clock.NS_PER_S
    assert json.loads(event.details)["until_ns"] == until_ns


async def test_what_is_not_listed_answers_like_what_is_not_there(bed, owner, rig, cora):  # noqa: ARG001
    for path in PATHS:
        foreign = await bed.ask(cora, "GET", path)
        missing = await bed.ask(cora, "GET", path.replace("pump-rig", "no-such-rig"))
        assert foreign.status_code == missing.status_code == 404
        there = answered(foreign).replace("pump-rig", "no-such-rig")
        assert there == answered(missing)
    for path in (EQUIPMENT, "/equipment/factory/no-such-rig"):
        stream = path.removeprefix("/equipment/") + "/rig"
        wanted = ASKED | {"streams": [{"stream": stream}]}
        assert_problem(await bed.ask(cora, "POST", "/requests", json=wanted), 404, "unknown")
    assert (await bed.ask(cora, "GET", "/listings")).json() == {"items": [], "next": None}


async def test_a_listing_shows_all_but_samples_to_those_it_names(bed, owner, rig, cora):
    dora = await bed.person("dora", "testbed", Role.AUDITOR)
    await stored(bed, rig, 10)
    body = {"organisations": ["company"], "terms": "ask before you publish", "sample": SAMPLE}
    answer = await bed.ask(owner, "PUT", f"{EQUIPMENT}/listing", json=body)
    assert answer.json()["listed_to"] == ["company"]
    (seen,) = (await bed.ask(cora, "GET", "/listings")).json()["items"]
    assert seen == (await bed.ask(cora, "GET", f"{EQUIPMENT}/listing")).json()
    assert (seen["terms"], seen["name"]) == ("ask before you publish", "Pump rig")
    assert seen["streams"][0]["signals"]["Pressure"] == "bar"
    assert "listed_to" not in seen
    assert not await reads(bed, cora)
    example = (await bed.ask(cora, "GET", f"{EQUIPMENT}/sample")).json()
    times = {at for frame in example["frames"] for at in frame["dt"]}
    assert times == {0, clock.NS_PER_S, 2 * clock.NS_PER_S}
    assert (await bed.ask(cora, "GET", f"{EQUIPMENT}/sample?format=csv")).text.count("\n") == 4
    assert_problem(await bed.ask(dora, "GET", f"{EQUIPMENT}/sample"), 404, "unknown")


async def test_terms_stay_unless_others_are_given_and_end_with_the_listing(bed, owner, rig, cora):  # noqa: ARG001
    path, company = f"{EQUIPMENT}/listing", {"organisations": ["company"]}
    for change, terms in (
        ({"terms": "Cite us."}, "Cite us."),
        ({}, "Cite us."),
        ({"terms": None}, "Cite us."),
        ({"terms": ""}, ""),
        ({"terms": "Cite us."}, "Cite us."),
    ):
        answer = await bed.ask(owner, "PUT", path, json=company | change)
        assert answer.json()["terms"] == terms
        assert (await bed.ask(cora, "GET", path)).json()["terms"] == terms
    await bed.ask(owner, "DELETE", path)
    assert (await bed.ask(owner, "PUT", path, json=company)).json()["terms"] == ""


async def test_a_listing_goes_to_everybody_and_ends(bed, owner, rig, cora):  # noqa: ARG001
    dora = await bed.person("dora", "testbed", Role.AUDITOR)
    path = f"{EQUIPMENT}/listing"
    await bed.ask(owner, "PUT", path, json={"everybody": True})
    for who in (cora, dora):
        assert (await bed.ask(who, "GET", path)).json()["everybody"] is True
        assert_problem(await bed.ask(who, "GET", f"{EQUIPMENT}/sample"), 404, "unknown")
    for method in ("PUT", "DELETE"):
        body = {"json": {"everybody": True}} if method == "PUT" else {}
        assert_problem(await bed.ask(cora, method, path, **body), 403, "forbidden")
    assert (await bed.ask(owner, "DELETE", path)).status_code == 204
    assert_problem(await bed.ask(cora, "GET", path), 404, "unknown")
    assert (await bed.ask(owner, "GET", path)).json()["listed_to"] == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"everybody": True, "organisations": ["company"]}, 422),
        ({"organisations": ["nobody"]}, 404),
        ({"everybody": True, "sample": SAMPLE | {"to": SAMPLE["from"]}}, 422),
        ({"everybody": True, "sample": SAMPLE | {"stream": "factory/mill/spindle"}}, 422),
        ({"everybody": True, "sample": SAMPLE | {"stream": "factory/pump-rig/no"}}, 404),
        ({"everybody": True, "terms": "a\nb"}, 422),
        ({"everybody": True, "secret": 1}, 422),
    ],
)
async def test_a_listing_that_makes_no_sense_is_refused(bed, owner, rig, body, status):  # noqa: ARG001
    answer = await bed.ask(owner, "PUT", f"{EQUIPMENT}/listing", json=body)
    assert answer.status_code == status, answer.text


# --- grants ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("listed")
async def test_a_company_asks_and_the_partner_reads_a_sentence_and_approves(bed, owner, cora):
    (number,) = await asked(bed, cora)
    assert bed.disconnected == []
    grant = (await bed.ask(owner, "GET", f"/grants/{number}")).json()
    assert grant["sentence"] == (
        "The owners and developers of company, and those of its machines that list the stream,"
        " would read factory/pump-rig/rig in live, as it comes and all that is stored of it,"
        ' until 2026-11-23 12:10:00 UTC. Purpose: "to find the fault". cora asked on'
        " 2026-11-23 12:00:00 UTC. Nobody does until an owner or engineer of factory approves."
    )
    assert not await reads(bed, cora)
    path = f"/grants/{number}/approval"
    assert_problem(await bed.ask(cora, "POST", path, json={}), 403, "forbidden")
    done = (await bed.ask(owner, "POST", path, json={})).json()
    assert (done["state"], done["until"]) == ("granted", "2026-11-23T12:10:00.000000000Z")
    assert "may read factory/pump-rig/rig in live" in done["sentence"]
    assert await reads(bed, cora)
    assert bed.disconnected == ["cora"]
    assert_problem(await bed.ask(owner, "POST", path, json={}), 409, "refused", "granted already")
    await bed.clock.advance(600)
    assert not await reads(bed, cora)
    assert "that is over" in (await bed.ask(cora, "GET", f"/grants/{number}")).json()["sentence"]


@pytest.mark.usefixtures("listed")
async def test_the_partner_grants_less_and_never_more(bed, writer, cora):
    two = StreamAddress("factory", "pump-rig", "two")
    await bed.ask(writer, "POST", f"/streams/{two}/specs", json=SPEC)
    fay = await bed.person("finn", "factory", Role.ENGINEER)
    await bed.ask(fay, "POST", f"/streams/{two}/specs", json=SPEC)
    both = [{"stream": str(RIG)}, {"stream": str(two)}]
    first, second = await asked(bed, cora, streams=both)
    path = f"/grants/{first}/approval"
    more = await bed.ask(fay, "POST", path, json={"expires_in_s": 601})
    assert_problem(more, 422, "invalid", "was asked for until 2026-11-23 12:10:00 UTC")
    less = (await bed.ask(fay, "POST", path, json={"expires_in_s": 60})).json()
    assert less["until"] == "2026-11-23T12:01:00.000000000Z"
    refusal = {"reason": "too near to our recipe"}
    refused = (await bed.ask(fay, "POST", f"/grants/{second}/refusal", json=refusal)).json()
    assert refused["state"] == "refused"
    grant = (await bed.ask(cora, "GET", f"/grants/{second}")).json()
    assert "finn refused it: too near to our recipe" in grant["sentence"]
    assert await reads(bed, cora)
    answer = await bed.ask(cora, "GET", f"/streams/{two}/history")
    assert_problem(answer, 403, "not_granted", "was refused by factory: too near to our recipe")
    await bed.clock.advance(60)
    assert not await reads(bed, cora)


@pytest.mark.usefixtures("listed")
async def test_a_grant_may_begin_later(bed, owner, cora):
    begin = clock.text_of(START_NS + 60 * clock.NS_PER_S + 1)
    (number,) = await asked(bed, cora, **{"from": begin})
    done = (await bed.ask(owner, "POST", f"/grants/{number}/approval", json={})).json()
    assert done["from"] == "2026-11-23T12:01:01.000000000Z"  # whole seconds, as connections end
    assert not await reads(bed, cora)
    await bed.clock.advance(61)
    assert await reads(bed, cora)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("after", ["asked", "granted"])
async def test_a_company_withdraws_what_it_asked_for_or_got(bed, owner, cora, after):
    (number,) = await asked(bed, cora)
    if after == "granted":
        await bed.ask(owner, "POST", f"/grants/{number}/approval", json={})
    path = f"/grants/{number}/withdrawal"
    assert_problem(await bed.ask(owner, "POST", path), 403, "forbidden")
    grant = (await bed.ask(cora, "POST", path)).json()
    assert "withdrawn on 2026-11-23 12:00:00 UTC by cora of company" in grant["sentence"]
    assert not await reads(bed, cora)
    approval = await bed.ask(owner, "POST", f"/grants/{number}/approval", json={})
    assert_problem(approval, 409, "refused")


@pytest.mark.usefixtures("listed")
async def test_nobody_else_knows_of_a_grant(bed, admin, owner, cora):
    (number,) = await asked(bed, cora)
    for method, rest, body in (
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/approval", {}),
        ("POST", "/refusal", {}),
        ("POST", "/withdrawal", None),
    ):
        foreign = await bed.ask(admin, method, f"/grants/{number}{rest}", json=body)
        missing = await bed.ask(admin, method, f"/grants/{number + 1}{rest}", json=body)
        assert foreign.status_code == missing.status_code == 404
        assert answered(foreign) == answered(missing).replace(f"{number + 1}", f"{number}")
    assert (await bed.ask(admin, "GET", "/grants")).json()["items"] == []
    assert len((await bed.ask(owner, "GET", "/grants")).json()["items"]) == 1


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("role", [Role.ENGINEER, Role.OPERATOR, Role.AUDITOR])
async def test_only_owners_and_developers_ask(bed, role):
    carl = await bed.person("carl", "company", role)
    assert_problem(await bed.ask(carl, "POST", "/requests", json=ASKED), 403, "forbidden")


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"purpose": ""}, "purpose"),
        ({"until": "2026-11-23T11:00:00Z", "expires_in_s": None}, "is over before it begins"),
        ({"until": "2026-11-23T13:00:00Z"}, "both given"),
        ({"until": "tomorrow", "expires_in_s": None}, "tomorrow"),
        ({"until": "9999-01-01T00:00:00Z", "expires_in_s": None}, "cannot be stored"),
        ({"streams": []}, "streams"),
        ({"streams": [{"stream": str(RIG), "space": "nowhere"}]}, "nowhere"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(bed, cora, change, word):
    answer = await bed.ask(cora, "POST", "/requests", json=ASKED | change)
    assert_problem(answer, 422, "invalid", word)


@pytest.mark.usefixtures("listed")
async def test_grants_come_in_pages_on_both_sides(bed, owner, cora):
    streams = [{"space": f"run-{at}", "stream": str(RIG)} for at in range(5)]
    numbers = await asked(bed, cora, streams=streams)
    for who in (owner, cora):
        pages, cursor = [], 0
        while cursor is not None:
            params = {"limit": 2, "cursor": cursor}
            page = (await bed.ask(who, "GET", "/grants", params=params)).json()
            pages.append([each["id"] for each in page["items"]])
            cursor = page["next"]
        assert pages == [numbers[:2], numbers[2:4], numbers[4:]]


@pytest.mark.usefixtures("listed")
async def test_recorded_data_ends_with_its_grant_in_every_space(bed, owner, rig, cora):
    await stored(bed, rig, 5)
    spaces = ["live", "run-1"]
    streams = [{"space": each, "stream": str(RIG)} for each in spaces]
    numbers = await asked(bed, cora, streams=streams)
    for number in numbers:
        await bed.ask(owner, "POST", f"/grants/{number}/approval", json={})
    whole = {"from": clock.text_of(START_NS), "to": clock.text_of(START_NS + 10**10)}
    assert [await reads(bed, cora, space=each, **whole) for each in spaces] == [True, True]
    await bed.ask(owner, "DELETE", f"/grants/{numbers[1]}")
    assert [await reads(bed, cora, space=each, **whole) for each in spaces] == [True, False]
    await bed.clock.advance(600)  # what was recorded while it held is no less the owner's
    assert [await reads(bed, cora, space=each, **whole) for each in spaces] == [False, False]
    for rest in ("/gaps", "/deletions", "/live"):
        assert_problem(await bed.ask(cora, "GET", STREAM + rest), 403, "not_granted")
    assert await reads(bed, owner, **whole)


@pytest.mark.usefixtures("listed")
async def test_a_whole_equipment_is_asked_for_and_answered_with_one_request_each(bed, owner, cora):
    await bed.ask(owner, "POST", f"/streams/{RIG.owner}/two/specs", json=SPEC)
    body = {"equipment": [{"equipment": str(RIG.owner)}], "purpose": "to find the fault"}
    answer = await bed.ask(cora, "POST", "/requests", json=body)
    assert answer.status_code == 201
    numbers = [grant["id"] for grant in answer.json()["items"]]
    assert len(numbers) == 2
    again = await bed.ask(cora, "POST", "/requests", json=body)
    assert again.status_code == 200
    assert again.json()["standing"] == numbers
    assert again.json()["notes"][0].startswith(f"grant {numbers[0]} was asked for before")
    whole = {"equipment": str(RIG.owner), "company": "company"}
    assert_problem(await bed.ask(cora, "POST", "/grants/approval", json=whole), 403, "forbidden")
    approved = await bed.ask(owner, "POST", "/grants/approval", json=whole | {"expires_in_s": 60})
    assert [grant["until"] for grant in approved.json()["items"]] == [
        "2026-11-23T12:01:00.000000000Z"
    ] * 2
    assert await reads(bed, cora)
    gone = await bed.ask(owner, "POST", "/grants/revocation", json={"numbers": numbers})
    assert {grant["state"] for grant in gone.json()["items"]} == {"revoked"}
    assert not await reads(bed, cora)


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({}, 422, "no grant is named"),
        ({"numbers": [1], "company": "company"}, 422, "beside an equipment or a company"),
        ({"equipment": "pump-rig"}, 422, "pump-rig"),
        ({"equipment": "another/pump-rig"}, 404, "there is no equipment another/pump-rig"),
        ({"equipment": str(RIG.owner)}, 404, "none of the grants of factory/pump-rig"),
        ({"company": "nobody"}, 404, "none of the grants to nobody"),
        ({"numbers": [77]}, 404, "there is no grant 77"),
    ],
)
async def test_a_selection_of_nothing_is_refused(bed, owner, body, status, word):
    answer = await bed.ask(owner, "POST", "/grants/approval", json=body)
    assert_problem(answer, status, {404: "unknown", 422: "invalid"}[status], word)


async def test_an_equipment_that_is_not_listed_is_asked_for_in_vain(bed, rig, cora):  # noqa: ARG001
    answers = []
    for equipment in (str(RIG.owner), "factory/no-such-rig"):
        body = {"equipment": [{"equipment": equipment}], "purpose": "to try"}
        answer = await bed.ask(cora, "POST", "/requests", json=body)
        assert answer.status_code == 404
        answers.append(answered(answer).replace("pump-rig", "no-such-rig"))
    assert answers[0] == answers[1]


# --- why not ---


@pytest.mark.usefixtures("listed")
async def test_a_reader_is_told_what_became_of_its_grant_or_request(bed, owner, cora):
    async def why(detail):
        for rest in ("/history", "/gaps", "/deletions", "/live"):
            answer = await bed.ask(cora, "GET", STREAM + rest)
            assert_problem(answer, 403, "not_granted", detail)

    what = f"of stream {RIG} in space live"
    (first,) = await asked(bed, cora)
    await why(f"request {first} {what} waits for factory's answer")
    await bed.ask(owner, "POST", f"/grants/{first}/refusal", json={"reason": "not now"})
    await why(f"request {first} {what} was refused by factory: not now")
    (second,) = await asked(bed, cora)
    await bed.ask(owner, "POST", f"/grants/{second}/approval", json={})
    assert await reads(bed, cora)
    await bed.clock.advance(600)
    await why(f"grant {second} {what} ended on 2026-11-23 12:10:00 UTC")
    (third,) = await asked(bed, cora)
    await bed.ask(owner, "POST", f"/grants/{third}/approval", json={})
    body = {"numbers": [third], "reason": "trial over"}
    revoked = await bed.ask(owner, "POST", "/grants/revocation", json=body)
    assert revoked.status_code == 200, revoked.text
    at = "2026-11-23 12:10:00 UTC"
    await why(f"grant {third} {what} was revoked by factory on {at}: trial over")
    (fourth,) = await asked(bed, cora)
    await why(f"request {fourth} {what} waits for factory's answer")


@pytest.mark.usefixtures("listed")
async def test_only_a_company_with_a_grant_or_request_is_told_why_it_does_not_read(
    bed, owner, cora
):
    (number,) = await asked(bed, cora)
    await bed.ask(owner, "POST", f"/grants/{number}/approval", json={})
    await bed.ask(owner, "DELETE", f"/grants/{number}")
    eve = await bed.person("eve", "testbed", Role.OWNER)
    auditor = await bed.person("anna", "company", Role.AUDITOR)
    missing = STREAM.replace("pump-rig", "no-such-rig")
    for who in (eve, auditor):
        for rest in ("/history", "/gaps", "/deletions", "/live", "/history?space=run-1"):
            foreign = await bed.ask(who, "GET", STREAM + rest)
            nothing = await bed.ask(who, "GET", missing + rest)
            assert_problem(foreign, 404, "unknown")
            assert answered(foreign).replace("pump-rig", "no-such-rig") == answered(nothing)
    other = await bed.ask(cora, "GET", f"{STREAM}/history?space=run-1")
    assert_problem(other, 404, "unknown")  # the grant is of another space


# --- pauses ---------------------------------------------------------------------------------------


PAUSES = [{}, {"company": "company"}, {"equipment": str(RIG.owner)}]


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize("about", [*PAUSES, {"company": "company", "equipment": str(RIG.owner)}])
async def test_a_pause_stops_and_resumes_with_one_call_each(bed, owner, cora, about):
    (number,) = await asked(bed, cora)
    await bed.ask(owner, "POST", f"/grants/{number}/approval", json={})
    otto = await bed.person("otto", "factory", Role.OPERATOR)
    bed.disconnected.clear()
    for _ in range(2):  # twice is once
        assert (await bed.ask(otto, "POST", "/pauses", json=about)).status_code == 201
    for rest in ("/history", "/gaps", "/deletions", "/live"):
        answer = await bed.ask(cora, "GET", STREAM + rest)
        assert_problem(answer, 403, "paused", f"grant {number} of stream {RIG} in space live")
        assert "is paused by factory since 2026-11-23T12:00:00" in answer.json()["detail"]
    eve = await bed.person("eve", "testbed", Role.OWNER)
    auditor = await bed.person("anna", "company", Role.AUDITOR)
    for who in (eve, auditor):  # who would read nothing without the pause
        assert_problem(await bed.ask(who, "GET", f"{STREAM}/history"), 404, "unknown")
    assert bed.disconnected == ["cora"]
    grant = (await bed.ask(cora, "GET", f"/grants/{number}")).json()
    assert grant["paused"] is True
    assert grant["paused_since"] == clock.text_of(START_NS)
    assert "factory has paused it since 2026-11-23 12:00:00 UTC" in grant["sentence"]
    assert len((await bed.ask(owner, "GET", "/pauses")).json()["items"]) == 1
    wrong = await bed.ask(otto, "DELETE", "/pauses", params={"company": "testbed"})
    assert_problem(wrong, 404, "unknown", "no pause stands for exactly all grants to testbed")
    assert "`testbed grant list` shows" in wrong.json()["hint"]
    assert (await bed.ask(otto, "DELETE", "/pauses", params=about)).json() == {"resumed": 1}
    assert await reads(bed, cora)
    assert bed.disconnected == ["cora", "cora"]


@pytest.mark.usefixtures("listed")
async def test_a_pause_is_its_owners_alone(bed, cora):
    theirs = {"equipment": str(RIG.owner)}
    assert_problem(await bed.ask(cora, "POST", "/pauses", json=theirs), 403, "forbidden")
    missing = {"equipment": "factory/no-such-rig"}
    assert_problem(await bed.ask(cora, "POST", "/pauses", json=missing), 404, "unknown")
    assert_problem(await bed.ask(cora, "POST", "/pauses", json={}), 403, "forbidden")


# --- the view -------------------------------------------------------------------------------------


async def view(bed, who, **params):
    answer = await bed.ask(who, "GET", f"{EQUIPMENT}/access", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def others(report):
    return [each["principal"] for each in report["could"] if each["organisation"] == "company"]


@pytest.mark.usefixtures("listed")
async def test_the_view_says_who_could_at_any_moment(bed, owner, cora):
    (number,) = await asked(bed, cora)
    await bed.clock.advance(10)
    await bed.ask(owner, "POST", f"/grants/{number}/approval", json={})
    await bed.clock.advance(10)
    now = await view(bed, owner)
    (right,) = [each for each in now["could"] if each["principal"] == "cora"]
    assert (right["grant"], right["purpose"]) == (number, "to find the fault")
    assert right["from"] == clock.text_of(START_NS + 10 * clock.NS_PER_S)
    assert right["until"] == "2026-11-23T12:10:00.000000000Z"
    assert {each["principal"] for each in now["could"]} == {"cora", "fay", "gateway"}
    await bed.ask(owner, "DELETE", f"/grants/{number}")
    await bed.clock.advance(10)
    at = [clock.text_of(START_NS + round(s * clock.NS_PER_S)) for s in (9.999, 10, 19.999, 20)]
    assert others(await view(bed, owner)) == []
    assert [others(await view(bed, owner, at=each)) for each in at] == [[], ["cora"], ["cora"], []]
    whole = {"from": at[0], "to": at[3]}
    assert others(await view(bed, owner, **whole)) == ["cora"]
    for who, status in ((cora, 403), (await bed.person("eve", "testbed", Role.OWNER), 404)):
        answer = await bed.ask(who, "GET", f"{EQUIPMENT}/access")
        assert answer.status_code == status


@pytest.mark.usefixtures("listed")
async def test_the_view_shows_both_of_two_grants_each_to_its_own_end(bed, owner, cora):
    numbers = []
    for lasting in (600, None):
        (number,) = await asked(bed, cora, expires_in_s=lasting)
        await bed.ask(owner, "POST", f"/grants/{number}/approval", json={})
        numbers.append(number)
    rights = [each for each in (await view(bed, owner))["could"] if each["principal"] == "cora"]
    ends = [(each["grant"], each["until"]) for each in rights]
    assert ends == [(numbers[0], "2026-11-23T12:10:00.000000000Z"), (numbers[1], None)]


@pytest.mark.usefixtures("listed")
async def test_every_read_over_http_is_counted_by_principal_stream_and_day(bed, owner, rig, cora):
    await stored(bed, rig, 3)
    sample = {"organisations": ["company"], "sample": SAMPLE}
    await bed.ask(owner, "PUT", f"{EQUIPMENT}/listing", json=sample)
    (number,) = await asked(bed, cora, expires_in_s=None)
    assert not await reads(bed, cora)  # refused, and not counted
    await bed.ask(owner, "POST", f"/grants/{number}/approval", json={})
    for _ in range(3):
        assert await reads(bed, cora)
    await bed.ask(cora, "GET", f"{EQUIPMENT}/sample")
    ada = await bed.person("ada", "testbed", Role.OWNER)
    assert (await bed.ask(ada, "GET", f"/backup/samples/live/{RIG}")).status_code == 200
    await bed.clock.advance(86_400)
    assert await reads(bed, cora)
    report = await view(bed, owner)
    counted = {
        (each["organisation"], each["principal"], each["day"], each["way"]): each["times"]
        for each in report["did"]["http"]
    }
    assert counted == {
        ("company", "cora", "2026-11-23", "history"): 3,
        ("company", "cora", "2026-11-23", "sample"): 1,
        ("testbed", "ada", "2026-11-23", "backup"): 1,
        ("company", "cora", "2026-11-24", "history"): 1,
    }
    only = await view(bed, owner, **{"from": "2026-11-24T00:00:00Z", "to": "2026-11-25T00:00:00Z"})
    assert [each["times"] for each in only["did"]["http"]] == [1]


@pytest.mark.parametrize(
    "params",
    [
        {"at": "monday"},
        {"at": "2026-11-23T12:00:00Z", "from": "2026-11-23T11:00:00Z"},
        {"to": "2026-11-23T12:00:00Z"},
        {"from": "2026-11-23T12:00:00Z", "to": "2026-11-23T12:00:00Z"},
        {"at": "9999-01-01T00:00:00Z"},
    ],
)
async def test_a_moment_that_is_none_is_refused(bed, owner, rig, params):  # noqa: ARG001
    answer = await bed.ask(owner, "GET", f"{EQUIPMENT}/access", params=params)
    assert_problem(answer, 422, "invalid")


@pytest.mark.parametrize("at", ["1678-01-01T00:00:00Z", "2262-04-11T23:47:16.854775807Z"])
async def test_the_view_has_no_edge(bed, owner, rig, at):  # noqa: ARG001
    assert (await view(bed, owner, at=at))["did"]["http"] == []
