"""The API over its real registry and store, asked through HTTP in process."""

import csv
import io
import re
from collections.abc import AsyncIterator

import orjson
import pytest

from broker import codec
from broker.batch import Gap
from broker.clock import NS_PER_S, text_of
from broker.messages import Held
from broker.namespace import StreamAddress
from broker.rights import Action, Entry
from testbed_api.http.app import create_app
from testbed_api.http.dependencies import RecorderStatus
from testbed_api.http.middleware.body_limit import MOST_BODY
from testbed_api.recorder.ledger import DeadLetter, FlushEntries, StreamEpoch
from tests.integration.api_bed import (
    EQUIPMENT,
    OTHER,
    RIG,
    SPEC,
    START_NS,
    STREAM,
    Bed,
    answered,
    assert_problem,
    stored,
)

# --- who is asking --------------------------------------------------------------------------------


async def test_only_health_and_the_documentation_are_open(bed):
    for path, methods in create_app(None).openapi()["paths"].items():
        url = path.removeprefix("/api/v1").format(
            organisation="o",
            equipment="e",
            stream="s",
            version=1,
            principal="p",
            space="live",
            number=1,
            person="p",
            runner="r",
            digest=f"sha256:{64 * 'a'}",
            name="n",
        )
        for method in methods:
            answer = await bed.ask({}, method.upper(), url)
            if path in {"/api/v1", "/api/v1/health"}:
                assert answer.status_code == 200
            elif path.endswith(("/sign-in", "/enrolments", "/runners/enrol")):
                assert_problem(answer, 422, "invalid")
            else:
                assert_problem(answer, 401, "unauthenticated")
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("text", ["", "ada", "ada.wrong-secret-of-24-letters", "nobody.x", "ä.ö"])
async def test_a_wrong_credential_is_told_so_and_nothing_else(bed, admin, text):  # noqa: ARG001
    who = {"Authorization": f"Bearer {text}".encode()}
    assert_problem(await bed.ask(who, "GET", "/me"), 401, "unauthenticated")


async def test_a_credential_ends_at_its_expiry(bed, owner):
    body = {"principal": "guest", "expires_in_s": 10}
    created = await bed.ask(owner, "POST", "/credentials", json=body)
    who = {"Authorization": f"Bearer {created.json()['credential']}"}
    assert (await bed.ask(who, "GET", "/me")).status_code == 200
    await bed.clock.advance(10)
    assert_problem(await bed.ask(who, "GET", "/me"), 401, "unauthenticated")


async def test_a_credential_is_shown_once_and_listed_without_its_secret(bed, owner):
    body = {"principal": "detector", "reads": [{"stream": str(RIG)}]}
    created = (await bed.ask(owner, "POST", "/credentials", json=body)).json()
    listed = await bed.ask(owner, "GET", "/credentials")
    entry = {"space": "live", "stream": str(RIG)}
    assert (created["reads"], created["not_granted"], created["not_registered"]) == (
        [entry],
        [],
        [entry],
    )
    assert created["credential"].partition(".")[2] not in listed.text
    again = await bed.ask(owner, "POST", "/credentials", json=body)
    assert_problem(again, 409, "taken", "detector")


async def test_a_removed_credential_is_refused_and_its_connections_are_ended(bed, owner, reader):
    gone = await bed.ask(owner, "DELETE", "/credentials/detector")
    assert gone.status_code == 204
    assert bed.disconnected == ["detector"]
    assert_problem(await bed.ask(reader, "GET", "/me"), 401, "unauthenticated")
    assert_problem(await bed.ask(owner, "DELETE", "/credentials/detector"), 404, "unknown")


async def test_the_last_owner_stays(bed, owner):
    members = "/organisations/factory/members"
    refused = await bed.ask(owner, "DELETE", f"{members}/fay")
    assert_problem(refused, 409, "refused", "fay", "make another one first")
    refused = await bed.ask(owner, "PUT", f"{members}/fay", json={"roles": ["auditor"]})
    assert_problem(refused, 409, "refused", "fay", "make another one first")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"principal": "testbed-recorder"}, "testbed-"),
        ({"principal": "Ada"}, "is not an id"),
        ({"principal": "a--b"}, "--"),
        ({"principal": "x", "role": "system"}, "role"),
        ({"principal": "x", "writes": [{"stream": "firm/b/c"}]}, "cannot publish firm/b/c"),
        ({"principal": "x", "equipment": "firm/b"}, "no gateway of firm/b"),
        ({"principal": "x", "reads": [{"stream": "a/b"}]}, "organisation/equipment/stream"),
        ({"principal": "x", "reads": [{"space": "moon", "stream": "a/b/c"}]}, "moon"),
        ({"principal": "x", "expires_in_s": -1}, "expires_in_s"),
        ({"principal": "x", "colour": "red"}, "colour"),
    ],
)
async def test_a_credential_that_makes_no_sense_is_refused_by_field_and_value(
    bed, owner, body, word
):
    answer = await bed.ask(owner, "POST", "/credentials", json=body)
    assert_problem(answer, 422, "invalid", word)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/organisations"),
        ("POST", "/credentials"),
        ("GET", "/credentials"),
        ("DELETE", "/credentials/gateway"),
        ("POST", "/tokens"),
        ("DELETE", "/tokens/1"),
        ("PUT", "/me/password"),
        ("GET", "/organisations/factory/members"),
        ("POST", "/organisations/factory/members"),
        ("DELETE", "/organisations/factory/members/fay"),
        ("POST", "/grants"),
        ("PUT", f"{STREAM}/retention"),
        ("POST", f"{STREAM}/deletions"),
        ("GET", "/metrics"),
        ("PUT", f"/equipment/{RIG.owner}"),
        ("POST", f"{STREAM}/specs"),
    ],
)
@pytest.mark.usefixtures("rig")
async def test_a_reader_may_not_do_what_is_not_its_business(bed, reader, method, path):
    bodies = {
        "/organisations": {"id": "x", "name": "X", "kind": "company", "owner": "xi"},
        "/organisations/factory/members": {"person": "x", "roles": ["owner"]},
        "/credentials": {"principal": "x"},
        "/tokens": {},
        "/me/password": {"password": "x" * 20},
        "/grants": {"company": "company", "streams": [{"stream": str(RIG)}]},
        f"{STREAM}/retention": {"keep_days": 3},
        f"{STREAM}/deletions": {},
        f"/equipment/{RIG.owner}": EQUIPMENT,
        f"{STREAM}/specs": SPEC,
    }
    body = bodies.get(path) if method in {"POST", "PUT"} else None
    assert_problem(await bed.ask(reader, method, path, json=body), 403, "forbidden")


@pytest.mark.usefixtures("rig")
async def test_foreign_and_missing_objects_answer_alike(bed, reader, owner):
    await bed.ask(owner, "PUT", f"/equipment/{OTHER.owner}", json=EQUIPMENT)
    await bed.ask(owner, "POST", f"/streams/{OTHER}/specs", json=SPEC)
    for rest in ("", "/specs/1", "/history", "/gaps", "/dead-letters", "/live"):
        foreign = await bed.ask(reader, "GET", f"/streams/{OTHER}{rest}")
        missing = await bed.ask(reader, "GET", f"/streams/factory/mill/missing{rest}")
        assert_problem(foreign, 404, "unknown")
        assert answered(foreign).replace("spindle", "missing") == answered(missing)
    foreign = await bed.ask(reader, "GET", "/equipment/factory/mill")
    missing = await bed.ask(reader, "GET", "/equipment/factory/mall")
    assert answered(foreign).replace("mill", "mall") == answered(missing)


@pytest.mark.usefixtures("rig")
async def test_a_right_in_one_space_is_none_in_another(bed):
    in_a_run = frozenset({Entry("run-1", RIG)})
    who = await bed.machine("other", reads=in_a_run, writes=in_a_run)
    for rest in ("history", "gaps", "dead-letters", "live"):
        assert_problem(await bed.ask(who, "GET", f"{STREAM}/{rest}"), 404, "unknown")
    inside = await bed.ask(who, "GET", f"{STREAM}/dead-letters", params={"space": "run-1"})
    assert inside.status_code == 200


# --- the registry ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("rig")
async def test_an_organisation_is_made_once(bed, admin, reader):
    body = {"id": "firm", "name": "The Firm", "kind": "company", "owner": "eve"}
    assert (await bed.ask(admin, "POST", "/organisations", json=body)).status_code == 201
    assert_problem(await bed.ask(admin, "POST", "/organisations", json=body), 409, "taken")
    seen = (await bed.ask(reader, "GET", "/organisations")).json()
    assert [each["id"] for each in seen["items"]] == ["factory"]


async def test_an_organisation_has_a_kind_that_somebody_chose(bed, admin):
    body = {"id": "firm", "name": "The Firm", "owner": "eve"}
    answer = await bed.ask(admin, "POST", "/organisations", json=body)
    assert_problem(answer, 422, "invalid", "kind", "missing")


@pytest.mark.usefixtures("rig")
async def test_an_equipments_kind_never_changes(bed, writer):
    path = f"/equipment/{RIG.owner}"
    renamed = await bed.ask(writer, "PUT", path, json=EQUIPMENT | {"name": "Rig"})
    assert renamed.json()["name"] == "Rig"
    assert (await bed.ask(writer, "GET", path)).json() == renamed.json()
    real = await bed.ask(writer, "PUT", path, json=EQUIPMENT | {"kind": "real"})
    assert_problem(real, 409, "taken", "simulated")


@pytest.mark.usefixtures("rig")
async def test_the_same_spec_keeps_its_version_and_a_change_gets_the_next(bed, writer, reader):
    same = await bed.ask(writer, "POST", f"{STREAM}/specs", json=SPEC)
    assert same.json()["version"] == 1
    changed = await bed.ask(writer, "POST", f"{STREAM}/specs", json=SPEC | {"period_s": 0.5})
    assert changed.json()["version"] == 2
    assert (await bed.ask(reader, "GET", STREAM)).json()["spec"]["version"] == 2
    assert (await bed.ask(reader, "GET", f"{STREAM}/specs/1")).json()["period_s"] == 0
    assert_problem(await bed.ask(reader, "GET", f"{STREAM}/specs/3"), 404, "unknown", "3")
    assert_problem(await bed.ask(reader, "GET", f"{STREAM}/specs/0"), 422, "invalid", "version")


@pytest.mark.parametrize(
    ("signals", "words"),
    [
        ([{"name": "p", "unit": "bars"}], ["'p'", "bars", "UCUM"]),
        ([{"name": "p", "low": 2, "high": 1}], ["low must be below high"]),
        ([{"name": "p", "dtype": "text"}], ["signals.0.dtype", "text", "float64"]),
        ([{"name": "p"}, {"name": "p"}], ["'p' twice"]),
        ([{"name": "p/q"}], ["p/q"]),
        ([{"name": "p", "colour": "red"}], ["signals.0.colour"]),
        ([], ["signals"]),
        ([{"name": "Pressure", "dtype": "int64"}], ["was float64 in version 1"]),
    ],
)
@pytest.mark.usefixtures("rig")
async def test_a_spec_that_makes_no_sense_is_refused_by_field_and_value(
    bed, writer, signals, words
):
    answer = await bed.ask(writer, "POST", f"{STREAM}/specs", json={"signals": signals})
    assert_problem(answer, 422, "invalid", *words)


async def test_a_spec_needs_its_equipment(bed, writer):
    answer = await bed.ask(writer, "POST", f"{STREAM}/specs", json=SPEC)
    assert_problem(answer, 404, "unknown", "factory/pump-rig")


def _named(**specs: dict[str, object]) -> dict[str, object]:
    return {"streams": [{"stream": name} | spec for name, spec in specs.items()]}


@pytest.mark.usefixtures("rig")
async def test_specs_of_several_streams_are_registered_in_one_change(bed, owner, reader):
    path = f"/equipment/{RIG.owner}/specs"
    changed = SPEC | {"period_s": 0.5}
    answer = await bed.ask(owner, "POST", path, json=_named(new=SPEC, rig=changed, other=SPEC))
    assert [(spec["stream"], spec["version"]) for spec in answer.json()["items"]] == [
        (f"{RIG.owner}/new", 1),
        (str(RIG), 2),
        (f"{RIG.owner}/other", 1),
    ]
    again = await bed.ask(owner, "POST", path, json=_named(new=SPEC, rig=changed))
    assert [spec["version"] for spec in again.json()["items"]] == [1, 2]
    gateway = await bed.machine("one-stream", writes=frozenset({Entry("live", RIG)}))
    foreign = await bed.ask(gateway, "POST", path, json=_named(rig=SPEC, new=SPEC))
    assert_problem(foreign, 404, "unknown", f"{RIG.owner}/new")
    assert_problem(await bed.ask(reader, "POST", path, json=_named(rig=SPEC)), 403, "forbidden")


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        (
            [{"stream": "ok"}, {"stream": "b", "signals": [{"name": "p", "low": 2, "high": 1}]}],
            ["'p'"],
        ),
        (
            [{"stream": "ok"}, {"stream": "rig", "signals": [{"name": "running"}]}],
            ["was bool", "rig"],
        ),
        ([{"stream": "ok"}, {"stream": "ok"}], ["factory/pump-rig/ok is named twice"]),
        ([{"stream": "ok"}, {"stream": "a/b"}], ["streams.1.stream", "a/b"]),
        ([{}], ["streams.0.stream"]),
        ([], ["streams"]),
        ([{"stream": f"s{number}"} for number in range(501)], ["streams", "500"]),
    ],
)
@pytest.mark.usefixtures("rig")
async def test_of_several_specs_with_a_wrong_one_none_is_registered(bed, owner, streams, words):
    proposed = [{"signals": [{"name": "p"}]} | stream for stream in streams]
    answer = await bed.ask(
        owner, "POST", f"/equipment/{RIG.owner}/specs", json={"streams": proposed}
    )
    assert_problem(answer, 422, "invalid", *words)
    seen = (await bed.ask(owner, "GET", "/streams")).json()["items"]
    assert [stream["stream"] for stream in seen] == [str(RIG)]


async def test_pages_follow_one_another_without_hole_or_repeat(bed, owner):
    names = [f"s{number:02}" for number in range(25)]
    listed = [StreamAddress("factory", "mill", name) for name in names]
    await bed.ask(owner, "PUT", "/equipment/factory/mill", json=EQUIPMENT)
    for stream in listed:
        await bed.ask(owner, "POST", f"/streams/{stream}/specs", json=SPEC)
    half = frozenset(Entry("live", each) for each in listed[::2])
    who = await bed.machine("half", reads=half)
    assert await _all_pages(bed, owner, limit=5) == [str(each) for each in listed]
    assert await _all_pages(bed, who, limit=5) == [str(each) for each in listed[::2]]
    assert await _all_pages(bed, await bed.machine("none"), limit=5) == []
    wrong = await bed.ask(owner, "GET", "/streams", params={"cursor": "x"})
    assert_problem(wrong, 422, "invalid", "organisation/equipment/stream")


async def _all_pages(bed: Bed, who: dict[str, str], limit: int) -> list[str]:
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await bed.ask(who, "GET", "/streams", params={"limit": limit, **cursor})
        page = answer.json()
        assert len(page["items"]) <= limit
        seen += [each["stream"] for each in page["items"]]
        if page["next"] is None:
            return seen
        assert len(page["items"]) == limit
        cursor = {"cursor": page["next"]}


# --- what is stored -------------------------------------------------------------------------------


async def test_history_as_json_is_in_the_frames_of_the_wire(bed, rig, reader):
    await stored(bed, rig, 25_000)
    life = StreamEpoch("live", RIG, "e1")
    gap = Gap(("Pressure",), START_NS, START_NS + NS_PER_S, "server-overflow")
    await bed.api.ledger.commit(FlushEntries(held={life: Held(1)}, gaps=[(life, 1, gap)]))
    await bed.clock.advance(30_000)
    span = {"from": "2026-11-23T12:00:00Z"}
    answer = await bed.ask(reader, "GET", f"{STREAM}/history", params=span)
    document = orjson.loads(answer.content)
    frames, misfits = codec.frames_from_json(document["frames"], rig)
    assert (document["stream"], document["space"], document["spec"]) == (str(RIG), "live", 1)
    assert (sum(map(len, frames)), misfits) == (50_001, ())
    assert [codec.gap_from_json(each) for each in document["gaps"]] == [gap]
    assert answer.headers["testbed-gaps"] == "1"


async def test_history_as_csv_has_a_row_a_time_stamp_and_no_bad_value(bed, rig, reader):
    await stored(bed, rig, 12_000)  # a row may begin in one frame and end in the next
    await bed.clock.advance(12_000)
    params = {"format": "csv", "from": "2026-11-23T12:00:00Z"}
    answer = await bed.ask(reader, "GET", f"{STREAM}/history", params=params)
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert rows[0] == ["time", "Pressure", "Volume Flow RateRMS", "running"]
    assert rows[1] == ["2026-11-23T12:00:00.000000000Z", "0.0", "7.5", "true"]
    assert rows[2] == ["2026-11-23T12:00:01.000000000Z", "", "7.5", ""]
    assert len(rows) == 12_001


async def test_history_gives_the_signals_and_the_span_that_were_asked_for(bed, rig, reader):
    await stored(bed, rig, 10)
    params = {
        "signals": ["Volume Flow RateRMS"],
        "from": "2026-11-23T13:00:02+01:00",
        "to": "2026-11-23T12:00:05Z",
    }
    document = (await bed.ask(reader, "GET", f"{STREAM}/history", params=params)).json()
    frames, _ = codec.frames_from_json(document["frames"], rig)
    assert [name for name, _ in frames[0].series()] == ["Volume Flow RateRMS"]
    assert ((frames[0].time_ns - START_NS) // NS_PER_S).tolist() == [2, 3, 4]


async def test_thinned_history_keeps_the_greatest_value(bed, rig, reader):
    await stored(bed, rig, 3_000)
    await bed.clock.advance(3_000)
    params = {"points": 20, "signals": ["Pressure"]}
    document = (await bed.ask(reader, "GET", f"{STREAM}/history", params=params)).json()
    values = [value for frame in document["frames"] for value in frame["value"]]
    assert 10 <= len(values) <= 40
    assert max(value for value in values if value is not None) == 2_999.0


async def test_history_in_windows_has_one_value_at_the_begin_of_each(bed, rig, reader):
    await stored(bed, rig, 25)
    span = {"from": "2026-11-23T12:00:00Z", "to": "2026-11-23T12:00:25Z", "every": "10s"}
    params = span | {"how": "max", "signals": ["Pressure", "Volume Flow RateRMS"]}
    document = (await bed.ask(reader, "GET", f"{STREAM}/history", params=params)).json()
    frames, misfits = codec.frames_from_json(document["frames"], rig)
    assert (document["every"], document["how"], misfits) == ("10s", "max", ())
    named = dict(frames[0].series())
    assert ((named["Pressure"].time_ns - START_NS) // NS_PER_S).tolist() == [0, 10, 20]
    assert named["Pressure"].values.tolist() == [9.0, 19.0, 24.0]
    assert named["Volume Flow RateRMS"].values.tolist() == [7.5] * 3
    params = span | {"how": "last", "format": "csv"}
    answer = await bed.ask(reader, "GET", f"{STREAM}/history", params=params)
    assert answer.text.splitlines() == [
        "time,Pressure,Volume Flow RateRMS,running",
        "2026-11-23T12:00:00.000000000Z,9.0,7.5,true",
        "2026-11-23T12:00:10.000000000Z,19.0,7.5,",
        "2026-11-23T12:00:20.000000000Z,24.0,7.5,",
    ]


async def test_a_window_of_bad_samples_has_no_value(bed, rig, reader):
    await stored(bed, rig, 3)
    params = {"from": "2026-11-23T12:00:00Z", "to": "2026-11-23T12:00:03Z", "every": "1s"}
    params |= {"signals": ["Pressure"]}
    document = (await bed.ask(reader, "GET", f"{STREAM}/history", params=params)).json()
    (frame,) = document["frames"]
    assert (document["how"], frame["value"]) == ("mean", [0.0, None, 2.0])
    assert frame["quality"] == ["good", "bad", "good"]


@pytest.mark.usefixtures("rig")
async def test_history_of_an_empty_span_is_a_whole_answer(bed, reader):
    answer = await bed.ask(reader, "GET", f"{STREAM}/history")
    assert answer.json()["frames"] == []
    as_csv = await bed.ask(reader, "GET", f"{STREAM}/history", params={"format": "csv"})
    assert as_csv.text == "time,Pressure,Volume Flow RateRMS,running\r\n"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"from": "2026-11-24T00:00:00Z", "to": "2026-11-23T00:00:00Z"}, ["empty or inverted"]),
        ({"from": "monday"}, ["monday", "yesterday", "2026-11-23T12:00:00Z"]),
        ({"to": "1500-01-01T00:00:00Z"}, ["1678"]),
        ({"signals": ["Presure"]}, ["Presure", "Volume Flow RateRMS"]),
        ({"signal": ["Pressure"]}, ["signal"]),
        ({"points": 1}, ["points = '1'"]),
        ({"every": "1M"}, ["'1M'", "15min"]),
        ({"every": "1000d"}, ["1ms to 366d"]),
        ({"every": "1s", "how": "median"}, ["median", "'last'"]),
        ({"how": "last"}, ["'every'", "every=1s"]),
        ({"every": "1s", "points": 10}, ["'every' and 'points'"]),
        ({"every": "1s"}, ["mean", "'running' is bool", "how=last", "Pressure, Volume Flow"]),
        ({"format": "xml"}, ["xml", "'json' or 'csv'"]),
        ({"space": "moon"}, ["moon", "run-"]),
    ],
)
@pytest.mark.usefixtures("rig")
async def test_a_wrong_question_is_answered_with_what_would_be_right(bed, owner, params, words):
    answer = await bed.ask(owner, "GET", f"{STREAM}/history", params=params)
    assert_problem(answer, 422, "invalid", *words)


@pytest.mark.usefixtures("rig")
async def test_the_earliest_span_that_can_be_stored_can_be_asked_for(bed, reader):
    params = {"to": "1677-09-21T00:15:00Z"}
    answer = await bed.ask(reader, "GET", f"{STREAM}/history", params=params)
    assert answer.status_code == 200


@pytest.mark.usefixtures("rig")
async def test_gaps_of_a_span_are_told(bed, reader):
    life = StreamEpoch("live", RIG, "e1")
    gaps = [Gap((), START_NS + n * NS_PER_S, START_NS + n * NS_PER_S, "late") for n in range(3)]
    await bed.api.ledger.commit(FlushEntries(gaps=[(life, n, gap) for n, gap in enumerate(gaps)]))
    every = await bed.ask(reader, "GET", f"{STREAM}/gaps")
    assert [codec.gap_from_json(each) for each in every.json()["items"]] == gaps
    params = {"from": "2026-11-23T12:00:02Z", "to": "2026-11-23T12:00:01Z"}
    wrong = await bed.ask(reader, "GET", f"{STREAM}/gaps", params=params)
    assert_problem(wrong, 422, "invalid", "inverted")


@pytest.mark.usefixtures("rig")
async def test_gaps_come_in_pages_by_where_they_begin(bed, reader):
    life = StreamEpoch("live", RIG, "e1")
    starts = [5, 3, 3, 9, 1, 3]
    entries = [(life, None, Gap((), at, 20, f"cause-{n}")) for n, at in enumerate(starts)]
    await bed.api.ledger.commit(FlushEntries(gaps=entries))
    causes, following = [], None
    while True:
        params = {"limit": 2} | ({"cursor": following} if following else {})
        page = (await bed.ask(reader, "GET", f"{STREAM}/gaps", params=params)).json()
        causes += [each["cause"] for each in page["items"]]
        assert len(page["items"]) <= 2
        if (following := page["next"]) is None:
            break
    assert causes == ["cause-4", "cause-1", "cause-2", "cause-5", "cause-0", "cause-3"]
    beyond = {"cursor": f"{10**19 - 1}.{10**19 - 1}"}
    assert (await bed.ask(reader, "GET", f"{STREAM}/gaps", params=beyond)).json()["items"] == []
    wrong = await bed.ask(reader, "GET", f"{STREAM}/gaps", params={"cursor": "x"})
    assert_problem(wrong, 422, "invalid", "cursor")


@pytest.mark.usefixtures("rig")
async def test_status_tells_of_each_stream_that_is_seen_what_is_wrong(bed, reader, admin):
    now_ns = bed.clock.now_ns()
    old, new = now_ns - 7_200 * NS_PER_S, now_ns - 60 * NS_PER_S
    gaps = [
        (StreamEpoch("live", address, "e1"), None, Gap((), at, at, "gateway-down"))
        for address, at in ((RIG, old), (RIG, new), (OTHER, new))
    ]
    letter = DeadLetter("run-1", str(RIG), reason="no float64", value="x", received_ns=new)
    await bed.api.ledger.commit(FlushEntries(gaps=gaps, dead_letters=[letter]))
    whole = (await bed.ask(admin, "GET", "/status")).json()
    assert [(each["stream"], each["space"]) for each in whole["streams"]] == [
        (str(OTHER), "live"),
        (str(RIG), "live"),
        (str(RIG), "run-1"),
    ]
    assert (whole["interrupted"], whole["broker"]) == (None, False)
    (mine,) = (await bed.ask(reader, "GET", "/status")).json()["streams"]
    assert mine == {
        "stream": str(RIG),
        "space": "live",
        "state": None,
        "last": None,
        "alarms": [],
        "gaps": 1,
        "dead_letters": 0,
    }
    params = {"within_s": 10_000}
    (longer,) = (await bed.ask(reader, "GET", "/status", params=params)).json()["streams"]
    assert longer["gaps"] == 2


@pytest.mark.usefixtures("rig")
async def test_dead_letters_are_for_the_publisher_page_by_page(bed, reader, writer, owner):
    letters = [
        DeadLetter("live", str(RIG), reason=f"reason {n}", value="1", received_ns=START_NS)
        for n in range(5)
    ]
    await bed.api.ledger.commit(FlushEntries(dead_letters=letters))
    assert_problem(await bed.ask(reader, "GET", f"{STREAM}/dead-letters"), 403, "forbidden")
    first = (await bed.ask(writer, "GET", f"{STREAM}/dead-letters", params={"limit": 3})).json()
    params = {"limit": 3, "cursor": first["next"]}
    second = (await bed.ask(owner, "GET", f"{STREAM}/dead-letters", params=params)).json()
    reasons = [each["reason"] for each in first["items"] + second["items"]]
    assert reasons == [f"reason {n}" for n in range(5)]
    assert second["next"] is None
    before = {"to": text_of(START_NS)}
    none = (await bed.ask(owner, "GET", f"{STREAM}/dead-letters", params=before)).json()
    assert none["items"] == []


# --- whoever runs it ------------------------------------------------------------------------------


async def test_readiness_says_what_is_wrong(bed, reader):
    assert_problem(await bed.ask(reader, "GET", "/ready"), 503, "unavailable", "broker")
    assert (await bed.ask(reader, "GET", "/ready")).headers["retry-after"] == "2"


async def test_metrics_count_what_was_recorded(bed, admin):
    bed.recorded.update(samples=12, waiting=3)
    text = (await bed.ask(admin, "GET", "/metrics")).text
    assert "testbed_recorder_samples_total 12.0" in text
    assert "testbed_recorder_waiting 3.0" in text
    assert "testbed_ledger_gaps 0.0" in text
    assert "testbed_broker_connected 0.0" in text


# --- bad requests ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 422, "body"),
        (b"{", 422, "JSON"),
        (b"[]", 422, "body"),
        (b'"\\ud800"', 422, "body"),
        (b'{"id":"\\ud800","name":"x"}', 422, "id"),
        (b'{"id":"x","owner":"y","kind":"company","name":"\\u0000"}', 422, "printable"),
        (b'{"id":"\xff"}', 400, "body"),
        (b"[" * 100_000, 400, "body"),
        (b"x" * (MOST_BODY + 1), 413, str(MOST_BODY)),
    ],
)
async def test_a_body_that_is_none_is_a_problem_of_the_sender(bed, admin, body, status, word):
    who = admin | {"Content-Type": "application/json"}
    answer = await bed.ask(who, "POST", "/organisations", content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.text


async def test_a_body_that_does_not_say_how_long_it_is_is_bounded_too(bed, admin):
    async def much() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    who = admin | {"Content-Type": "application/json"}
    answer = await bed.ask(who, "POST", "/organisations", content=much())
    assert_problem(answer, 413, "too_large", str(MOST_BODY))


async def test_a_path_or_method_that_is_none_is_a_problem_too(bed):
    assert_problem(await bed.ask({}, "GET", "/nothing"), 404, "unknown")
    assert_problem(await bed.ask({}, "PATCH", "/me"), 405, "method_not_allowed")


async def test_a_fault_of_ours_has_a_number_and_no_traceback(bed, admin, caplog):  # noqa: ARG001
    def broken() -> dict[str, int]:
        raise ZeroDivisionError("secret detail")

    object.__setattr__(bed.api, "recorder", RecorderStatus(counts=broken))
    answer = await bed.ask(admin, "GET", "/metrics")
    assert_problem(answer, 500, "bug", "fault of the testbed")
    assert "secret detail" not in answer.text


async def test_the_documentation_names_no_other_host(bed):
    page = await bed.ask({}, "GET", "/docs")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assets = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
    assert len(assets) == 5
    for asset in assets:
        answer = await bed.ask({}, "GET", f"/{asset}")
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


def test_every_route_is_documented_with_an_example():
    for path, methods in create_app(None).openapi()["paths"].items():
        for route in methods.values():
            assert route["summary"], path
            assert route["description"], path
            assert route["x-action"] in {"open", *Action}, path
            answers = [each for status, each in route["responses"].items() if status < "204"]
            for answer in answers:
                assert all("example" in kind for kind in answer["content"].values()), path


# --- what a gateway that starts asks for ----------------------------------------------------------


@pytest.mark.usefixtures("rig")
async def test_a_gateway_learns_what_the_ledger_holds_of_its_streams(bed, owner, writer):
    other = StreamAddress("factory", "pump-rig", "a")
    for stream, epoch, seq in ((RIG, "e1", 9), (RIG, "e2", 4), (other, "e1", 1)):
        life = StreamEpoch("live", stream, epoch)
        until_ns = {life: START_NS + seq}
        await bed.api.ledger.commit(
            FlushEntries(held={life: Held(seq)}, until_ns=until_ns, begun=[life])
        )
    path = f"/equipment/{RIG.owner}/held"
    first = (await bed.ask(owner, "GET", path, params={"limit": 1})).json()
    assert [each["stream"] for each in first["items"]] == [str(other)]
    params = {"limit": 1, "cursor": first["next"]}
    answer = (await bed.ask(owner, "GET", path, params=params)).json()
    until = "2026-11-23T12:00:00.000000004Z"
    held = {"stream": str(RIG), "epoch": "e2", "seq": 4, "until": until}
    assert answer == {"items": [held], "next": None}
    assert (await bed.ask(writer, "GET", path)).json()["items"] == [held]  # of its own streams
    assert (await bed.ask(owner, "GET", path, params={"space": "run-1"})).json()["items"] == []
