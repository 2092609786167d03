"""Deployments over HTTP: placed, run by a runner that is written by hand, stopped, and seen."""

import asyncio
import time

import pytest

from broker.clock import NS_PER_S, WallClock, text_of
from broker.messages import Freshness, Health
from broker.namespace import StreamAddress
from broker.prototypes.manifest import PrototypeManifest
from broker.rights import Entry, Role
from testbed_api.deployments.replays import EndedReplays
from testbed_api.registry.audit import EventFilter
from tests.integration.api_bed import RIG, START_NS, assert_problem, stored
from tests.integration.deployment_bed import MANIFEST, MIB

SCORE = StreamAddress("company", "watch", "score")
SOURCE = {"kind": "simulated", "inputs": {"rig": {"simulator": "pump-rig"}}}


async def test_a_deployment_is_placed_run_and_seen_with_what_it_says(bed, deploying, site):
    deployed = await deploying.deployed()
    number = deployed["id"]
    assert (deployed["state"], deployed["site"], deployed["place"]) == ("waiting", "site-1", None)
    assert (deployed["principal"], deployed["space"]) == (f"watch-{number}", "live")
    item = (await site.items())[number]
    assert (item["wanted"], item["cause"], item["image_kind"]) == ("run", None, "archive")
    assert PrototypeManifest.model_validate(item["manifest"]) == PrototypeManifest.model_validate(
        MANIFEST
    )
    assert (item["inputs"], item["outputs"]) == ({"rig": str(RIG)}, {"score": str(SCORE)})
    await site.events(number, "pulling", "starting", "connecting", "running")
    metrics = {"cpu_s": 1.5, "memory_bytes": 7, "pids": 1, "restarts": 0, "lag_s": 0.25}
    metrics |= dict.fromkeys(("messages_in", "messages_out", "bytes_in", "bytes_out"), 3)
    lines = [{"number": at, "at_ns": at, "text": f"line {at}"} for at in (1, 2, 3)]
    news = {"id": number, "lines": lines, "metrics": metrics | {"at_ns": bed.clock.now_ns()}}
    await site.report(news)
    await site.report(news)
    seen = await deploying.show(number)
    assert (seen["state"], seen["restarts"], seen["end"]) == ("running", 0, None)
    events = (await bed.ask(deploying.cora, "GET", f"/deployments/{number}/events")).json()
    assert [each["number"] for each in events["items"]] == [1, 2, 3, 4, 5]
    log = (await bed.ask(deploying.cora, "GET", f"/deployments/{number}/logs?limit=2")).json()
    assert [each["text"] for each in log["items"]] == ["line 1", "line 2"]
    assert (log["next"], log["dropped"]) == (2, 0)
    rest = await bed.ask(deploying.cora, "GET", f"/deployments/{number}/logs?after=2")
    assert [each["text"] for each in rest.json()["items"]] == ["line 3"]
    used = (await bed.ask(deploying.cora, "GET", f"/deployments/{number}/metrics")).json()
    assert (used["cpu_s"], used["lag_s"], used["messages_out"]) == (1.5, 0.25, 3)
    item = (await site.items())[number]
    assert (item["last_event"], item["last_line"]) == (4, 3)


async def test_operators_count_what_each_deployment_uses(bed, deploying, site, admin):
    number = (await deploying.deployed())["id"]
    await site.events(number, "starting", "connecting", "running")
    labels = f'deployment="{number}",organisation="company",prototype="watch",site="site-1"'
    stage = 'stage="live"'
    text = (await bed.ask(admin, "GET", "/metrics")).text
    assert "testbed_deployment_memory_bytes{" not in text
    metrics = {"cpu_s": 1.5, "memory_bytes": 7, "pids": 1, "restarts": 0, "at_ns": 1}
    metrics |= {"messages_in": 4, "messages_out": 3, "bytes_in": 2, "bytes_out": 1}
    await site.report({"id": number, "metrics": metrics})
    text = (await bed.ask(admin, "GET", "/metrics")).text
    for line in (
        f'testbed_deployment_state{{{labels},{stage},state="running"}} 1.0',
        f"testbed_deployment_restarts_total{{{labels},{stage}}} 0.0",
        f"testbed_deployment_cpu_seconds_total{{{labels},{stage}}} 1.5",
        f"testbed_deployment_published_batches_total{{{labels},{stage}}} 3.0",
        f"testbed_deployment_memory_bytes{{{labels},{stage}}} 7.0",
    ):
        assert line in text
    assert "testbed_deployment_lag_seconds{" not in text


async def test_its_credential_is_for_its_streams_and_ends_with_it(bed, deploying, site):
    number = (await deploying.deployed())["id"]
    answer = await site.material(number)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["secrets"], answer.json()["source_credential"]) == ({}, None)
    program = {"Authorization": f"Bearer {answer.json()['credential']}"}
    scope = (await bed.registry.principals.find(f"watch-{number}", bed.clock.now_ns())).scope
    assert scope.reads == {Entry("live", RIG)}
    assert scope.writes == {Entry("live", SCORE)}
    assert (await bed.ask(program, "GET", "/me")).status_code == 200
    again = (await site.material(number)).json()["credential"]
    assert (await bed.ask(program, "GET", "/me")).status_code == 401
    program = {"Authorization": f"Bearer {again}"}
    await site.events(number, "starting", "connecting", "running")
    end = {"cause": "memory", "phase": "running", "reason": "killed", "exit_code": 137}
    await site.events(number, {"state": "ended", "reason": "killed", "end": end}, first=4)
    assert (await bed.ask(program, "GET", "/me")).status_code == 401
    assert f"watch-{number}" in bed.disconnected
    seen = await deploying.show(number)
    assert (seen["state"], seen["end"]["cause"], seen["end"]["exit_code"]) == (
        *("ended", "memory", 137),
    )
    assert seen["ended"] == text_of(bed.clock.now_ns())
    assert await site.items() == {}
    assert_problem(await site.material(number), 404, "unknown")
    events = await bed.registry.audit.events(EventFilter(), 0, 1_000)
    (ended,) = [each.event for each in events if each.event.action == "end-deployment"]
    assert (ended.target, ended.principal, ended.owner) == (
        *(f"deployment {number}", "site-1", "company"),
    )
    assert all("watch-1." not in each.event.details for each in events)


@pytest.mark.parametrize("how", ["revoked", "ended elsewhere"])
async def test_a_grant_that_ends_stops_it_within_a_second(bed, deploying, site, owner, how):
    number = (await deploying.deployed())["id"]
    await site.events(number, "starting", "connecting", "running")
    async with site.waiting() as items:
        if how == "revoked":
            answer = await bed.ask(owner, "DELETE", f"/grants/{deploying.grant.id}")
            assert answer.is_success
        else:
            ended = deploying.grant.revoked("fay", bed.clock.now_ns())
            await bed.registry.grants.update(ended, deploying.grant)
    (item,) = items
    assert (item["wanted"], item["cause"]) == ("stop", "grant")
    assert item["reason"] == f"the grant of input rig, {RIG}, has ended"
    await deploying.give()
    assert (await site.items())[number]["wanted"] == "stop"
    assert_problem(await site.material(number), 409, "refused", "has ended")


async def test_a_pause_freezes_it_and_its_end_lets_it_go_on(bed, deploying, site, owner):
    number = (await deploying.deployed())["id"]
    await site.events(number, "starting", "connecting", "running")
    async with site.waiting() as items:
        paused = await bed.ask(owner, "POST", "/pauses", json={"company": "company"})
        assert paused.is_success
    (item,) = items
    assert (item["wanted"], item["cause"]) == ("freeze", None)
    assert "factory has paused grant" in item["reason"]
    assert (await deploying.show(number))["wanted"] == "freeze"
    await bed.ask(owner, "DELETE", "/pauses?company=company")
    assert (await site.items())[number]["wanted"] == "run"


async def test_work_is_answered_at_once_when_people_change_something(bed, deploying, site):
    async with site.waiting() as items:
        number = (await deploying.deployed())["id"]
    assert [each["id"] for each in items] == [number]
    assert (await bed.ask(deploying.cora, "POST", f"/deployments/{number}/stop")).is_success
    (item,) = (await site.work())["items"]
    assert (item["wanted"], item["cause"], item["reason"]) == (
        *("stop", "stopped", "cora stopped it"),
    )
    same = await site.work()
    assert await site.work(same["revision"], 0.1) == same


async def test_a_newer_one_takes_its_place_once_it_has_ended(deploying, site):
    first = (await deploying.deployed())["id"]
    await site.events(first, "starting", "connecting", "running")
    second = await deploying.deployed()
    assert (second["replaces"], second["site"]) == (first, "site-1")
    assert second["reason"] == f"it waits until deployment {first}, whose place it takes, has ended"
    items = await site.items()
    assert list(items) == [first]
    assert (items[first]["wanted"], items[first]["cause"]) == ("stop", "replaced")
    assert_problem(await site.material(second["id"]), 404, "unknown")
    third = await deploying.deployed()
    assert (await deploying.show(second["id"]))["end"]["cause"] == "replaced"
    await site.events(
        first, {"state": "stopping"}, {"state": "ended", "reason": "it went"}, first=4
    )
    assert list(await site.items()) == [third["id"]]
    assert (await deploying.show(first))["end"]["cause"] == "replaced"
    assert (await site.material(third["id"])).status_code == 200


async def test_it_waits_in_a_queue_and_is_told_for_what(bed, deploying, admin):
    first = await deploying.deployed()
    assert (first["site"], first["place"]) == (None, 1)
    assert first["reason"] == "no site opens to company"
    site = await deploying.site(admin, labels=["edge"], everybody=True)
    assert list(await site.items()) == [first["id"]]
    second = await deploying.deployed(
        manifest={"prototype": "big", "resources": {"memory": "1GiB"}}
    )
    assert (second["site"], second["place"]) == (None, 1)
    assert second["reason"] == "site-1 has 768 MiB of memory free, and it needs 1024 MiB"
    gpu = await deploying.deployed(manifest={"prototype": "other"}, labels=["gpu"])
    assert (gpu["place"], gpu["reason"]) == (1, "site-1 lacks the label gpu")
    await site.events(first["id"], {"state": "ended", "reason": "no image"})
    assert list(await site.items()) == [second["id"]]
    await bed.clock.advance(31)
    silent = await deploying.show(second["id"])
    assert silent["reason"].startswith("its site site-1 has not answered since ")
    stopped = await bed.ask(deploying.cora, "POST", f"/deployments/{second['id']}/stop")
    assert (stopped.json()["state"], stopped.json()["end"]["cause"]) == ("ended", "stopped")


async def test_a_stage_before_live_has_a_space_and_a_source_of_its_own(bed, deploying, site):
    deployed = await deploying.deployed("simulated", source=SOURCE)
    number = deployed["id"]
    space = f"run-deployment-{number}"
    assert (deployed["space"], deployed["inputs"]) == (
        space,
        {"rig": "company/watch-simulated/rig"},
    )
    item = (await site.items())[number]
    assert (item["source"], item["wanted"]) == (SOURCE, "run")
    material = (await site.material(number)).json()
    source = {"Authorization": f"Bearer {material['source_credential']}"}
    assert (await bed.ask(source, "GET", "/me")).json()["principal"] == f"watch-{number}-source"
    now_ns = bed.clock.now_ns()
    written = (await bed.registry.principals.find(f"watch-{number}-source", now_ns)).scope.writes
    assert written == {Entry(space, StreamAddress("company", "watch-simulated", "rig"))}
    refused = await deploying.deploy("simulated")
    assert_problem(refused, 422, "invalid", "nothing plays its inputs: rig")
    assert_problem(await deploying.deploy(source=SOURCE), 422, "invalid", "source")


@pytest.mark.usefixtures("site")
async def test_what_is_not_right_is_refused_and_nothing_is_left_of_it(bed, deploying):
    cases = [
        ({"digest": f"sha256:{'b' * 64}"}, 409, "image: the testbed does not hold"),
        ({"manifest": {"command": ""}}, 422, "command"),
        ({"manifest": {"prototyp": "x"}}, 422, "prototyp"),
        ({"manifest": {"inputs": {"m": "factory/mill/spindle"}}}, 409, "not granted: factory/mill"),
        ({"manifest": {"inputs": {"m": "company/none/here"}}}, 409, "not granted: company/none"),
        ({"labels": ["GPU"]}, 422, "label"),
        ({"stage": "controlled"}, 422, "stage"),
    ]
    for more, status, words in cases:
        assert_problem(
            await deploying.deploy(**({"stage": "live"} | more)),
            status,
            {409: "refused", 422: "invalid"}[status],
            words,
        )
    assert await bed.registry.deployments.going_on() == []


@pytest.mark.usefixtures("site")
async def test_an_organisation_has_so_many_at_once(deploying):
    for number in range(10):
        await deploying.deployed(
            manifest={"prototype": f"p{number}", "resources": {"memory": "16 MiB", "cpu": 0.05}}
        )
    more = await deploying.deploy(manifest={"prototype": "p10"})
    assert_problem(more, 429, "too_many", "10 deployments of company at once")
    await deploying.deployed(
        manifest={"prototype": "p9", "resources": {"memory": "16 MiB", "cpu": 0.05}}
    )
    great = await deploying.deploy(manifest={"prototype": "p9", "resources": {"memory": "16GiB"}})
    assert_problem(great, 429, "too_many", "bytes of memory")
    many = await deploying.deploy(manifest={"prototype": "p9", "resources": {"cpu": 16}})
    assert_problem(many, 429, "too_many", "16 cores")


async def test_it_is_there_for_its_organisation_and_who_runs_the_testbed_alone(
    bed, deploying, site, owner, admin
):
    number = (await deploying.deployed())["id"]
    ann = await bed.person("ann", "company", Role.AUDITOR)
    path = f"/deployments/{number}"
    for who, reads, logs, stops in (
        (ann, 200, 200, 403),
        (owner, 404, 404, 404),
        (site.credential, 404, 404, 404),
        (admin, 200, 403, 200),
    ):
        assert (await bed.ask(who, "GET", path)).status_code == reads
        assert (await bed.ask(who, "GET", f"{path}/logs")).status_code == logs
        assert (await bed.ask(who, "POST", f"{path}/stop")).status_code == stops
    missing = await bed.ask(owner, "GET", "/deployments/999")
    foreign = await bed.ask(owner, "GET", path)
    assert missing.json()["detail"] == foreign.json()["detail"].replace(str(number), "999")
    assert (await deploying.show(number))["wanted"] == "stop"
    (item,) = (await site.work())["items"]
    assert item["reason"] == "the testbed stopped it"

    async def listed(who, query=""):
        answer = await bed.ask(who, "GET", f"/deployments{query}")
        return [each["id"] for each in answer.json()["items"]]

    assert await listed(admin) == await listed(ann) == [number]
    assert await listed(owner) == []
    assert (await bed.ask(owner, "GET", "/deployments?organisation=company")).status_code == 404
    assert (await bed.ask(site.credential, "GET", "/deployments")).status_code == 403
    assert await listed(admin, "?organisation=factory") == []
    assert await listed(ann, "?stage=recorded") == []


async def test_a_runner_sees_and_does_its_own_work_alone(bed, deploying, site, admin):
    other = await deploying.site(admin, "site-2")
    number = (await deploying.deployed())["id"]
    mine, others = (site, other) if number in await site.items() else (other, site)
    assert await others.items() == {}
    assert_problem(await others.material(number), 404, "unknown")
    await others.events(number, "starting")
    await others.report({"id": 999, "lines": [{"number": 1, "at_ns": 1, "text": "x"}]})
    assert (await deploying.show(number))["state"] == "waiting"
    await mine.events(number, "starting")
    assert (await deploying.show(number))["state"] == "starting"
    for method, path in (("GET", "/equipment"), ("GET", "/streams"), ("GET", "/grants")):
        answer = await bed.ask(mine.credential, method, path)
        assert not answer.is_success or answer.json()["items"] == []
    assert (await bed.ask(deploying.cora, "GET", "/runner/work")).status_code == 403
    assert (await bed.ask(mine.credential, "POST", "/runner/report", json={})).status_code == 422


async def test_a_step_that_cannot_be_is_passed_over_and_the_rest_counts(deploying, site):
    number = (await deploying.deployed())["id"]
    await site.events(number, "starting", "frozen", "connecting")
    seen = await deploying.show(number)
    assert seen["state"] == "connecting"
    end = {"cause": "failed", "phase": "connecting", "reason": "exit code 1", "exit_code": 1}
    again = {"state": "waiting", "reason": "starts again in 1 s", "end": end}
    await site.events(number, again, "starting", first=4)
    seen = await deploying.show(number)
    assert (seen["state"], seen["restarts"], seen["end"]) == ("starting", 1, None)


@pytest.mark.parametrize("deployed", [True, False])
async def test_the_end_of_a_deployment_is_no_alarm_of_its_outputs(bed, deploying, site, deployed):
    number = (await deploying.deployed())["id"] if deployed else None
    if number is None:
        await bed.machine("old", "company", writes=frozenset({Entry("live", SCORE)}))
    now_ns = bed.clock.now_ns()
    until_ns = now_ns + 60 * NS_PER_S
    health = Health(state=Freshness.STALE, at_ns=now_ns, valid_until_ns=until_ns, last_ns=now_ns)
    bed.api.freshness.take("live", SCORE, health)
    if number is None:
        assert (await bed.ask(deploying.cora, "DELETE", "/credentials/old")).is_success
    else:
        await site.events(number, {"state": "ended", "reason": "it went"})
    streams = (await bed.ask(deploying.cora, "GET", "/status")).json()["streams"]
    (score,) = [each for each in streams if each["stream"] == str(SCORE)]
    assert bool(score["alarms"]) is not deployed


async def test_a_revoked_credential_stops_its_deployment(bed, deploying, site):
    number = (await deploying.deployed())["id"]
    revoked = await bed.ask(deploying.cora, "DELETE", f"/credentials/watch-{number}")
    assert revoked.is_success, revoked.text
    (item,) = (await site.work())["items"]
    assert (item["wanted"], item["cause"]) == ("stop", "stopped")
    assert item["reason"] == f"the credential of watch-{number} was revoked"


@pytest.mark.usefixtures("site")
async def test_a_name_that_somebody_has_is_passed_over(bed, deploying):
    await bed.machine("watch-1", "factory")
    deployed = await deploying.deployed()
    assert (deployed["id"], deployed["principal"]) == (1, "watch-1-2")


async def test_fifty_reports_a_second_are_cheap(bed, deploying, site):
    quota = bed.api.quotas.most
    object.__setattr__(quota, "deployments", 50)
    numbers = []
    needs = {"memory": "16 MiB", "cpu": 0.05}
    await site.report(cpu=50.0, memory_bytes=4096 * MIB)
    for at in range(50):
        manifest = {"prototype": f"p{at}", "resources": needs}
        numbers.append((await deploying.deployed(manifest=manifest))["id"])
    metrics = {"at_ns": 1, "cpu_s": 1.5, "memory_bytes": 7, "pids": 1, "restarts": 0}
    metrics |= dict.fromkeys(("messages_in", "messages_out", "bytes_in", "bytes_out"), 3)
    began_s = time.monotonic()
    for second in range(1, 4):
        line = {"number": second, "at_ns": 1, "text": "x" * 80}
        await site.report(*({"id": each, "lines": [line], "metrics": metrics} for each in numbers))
    per_report_s = (time.monotonic() - began_s) / 3
    assert per_report_s < 0.5
    events = await bed.registry.audit.events(EventFilter(), 0, 1_000)
    assert not [each for each in events if "/runner/report" in each.event.target]


async def test_a_recording_of_a_partner_is_played_as_long_as_its_grant_lasts(
    bed, owner, rig, deploying, site
):
    await stored(bed, rig, 10)
    await bed.api.ledger.keep_specs([("live", rig)], 0)
    await bed.clock.advance(20)
    body = {"name": "first", "streams": [{"stream": str(RIG)}]}
    body |= {"from": text_of(START_NS), "to": text_of(START_NS + 10 * NS_PER_S)}
    number = (await bed.ask(deploying.cora, "POST", "/recordings", json=body)).json()["id"]
    path = f"/recordings/{number}"
    async with asyncio.timeout(15):
        while (await bed.ask(deploying.cora, "GET", path)).json()["state"] == "making":
            await WallClock().sleep(0.05)
    source = {"kind": "recorded", "recording": number, "streams": {"rig": str(RIG)}}
    missing = await deploying.deploy("recorded", source=source | {"recording": 99})
    assert_problem(missing, 409, "refused", "no recording 99")
    deployed = await deploying.deployed("recorded", source=source)
    material = (await site.material(deployed["id"])).json()
    its = {"Authorization": f"Bearer {material['source_credential']}"}
    bundle = await bed.ask(its, "GET", f"{path}/bundle")
    assert bundle.status_code == 200
    async with site.waiting() as items:
        path_of_grant = f"/grants/{deploying.grant.id}"
        answer = await bed.ask(owner, "DELETE", path_of_grant)
        assert answer.is_success, answer.text
    (item,) = items
    assert (item["wanted"], item["cause"]) == ("stop", "grant")
    assert f"its recording of {RIG}" in item["reason"]
    assert (await bed.ask(its, "GET", f"{path}/bundle")).status_code == 404
    again = await deploying.deploy("recorded", source=source)
    assert_problem(again, 409, "refused", str(RIG))
    (span,) = await EndedReplays(registry=bed.registry, clock=bed.clock).spans()
    assert (span.span.space, span.span.stream) == (
        deployed["space"],
        StreamAddress("company", "watch-recorded", "rig"),
    )
    assert str(RIG) in span.why
    await deploying.give()
    assert not await EndedReplays(registry=bed.registry, clock=bed.clock).spans()
