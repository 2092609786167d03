"""The API of runs, over its real registry: hand over, list, show, compare, evidence, delete."""

import orjson
import pytest

from broker.responses.run_document import RunDocument, sha256_of
from broker.rights import Role
from broker.runs import checks
from testbed_api.http.middleware.content_policy import SANDBOX
from testbed_api.limits.quotas import QuotaSettings
from tests.integration.api_bed import assert_problem

RUNS = "/organisations/company/runs"
REPORT = "<!doctype html><style>p{color:red}</style><p>42</p><script>alert(1)</script>"


@pytest.fixture
async def cora(bed):
    return await bed.person("cora", "company", Role.OWNER)


def document(**changes):
    example = RunDocument.example() | changes
    return RunDocument.model_validate(example)


def body(record=None, report=None, **changes):
    record = record or document()
    hashes = {} if report is None else {"report": report, "report_sha256": sha256_of(report)}
    sent = orjson.loads(checks.canonical(record))
    return {"record": sent, "sha256": checks.sha256(record)} | hashes | changes


async def handed_over(bed, who, **parts):
    answer = await bed.ask(who, "POST", RUNS, json=body(**parts))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_run_is_handed_over_once_and_read_as_it_was(bed, cora):
    run = await handed_over(bed, cora, report=REPORT)
    assert (run["organisation"], run["by"], run["passed"]) == ("company", "cora", True)
    assert (await handed_over(bed, cora, report=REPORT))["id"] == run["id"]
    path = f"/runs/{run['id']}"
    whole = (await bed.ask(cora, "GET", path)).json()
    received = RunDocument.model_validate(whole["record"])
    assert checks.sha256(received) == run["sha256"] == whole["sha256"]
    evidence = (await bed.ask(cora, "GET", f"{path}/evidence")).json()
    f1 = next(each for each in evidence["items"] if each["id"] == "expectation/1/f1")
    assert (f1["value"], f1["sources"], f1["seed"]) == (0.9, ["simulated"], 7)
    assert f1["samples"][0]["gaps"] == whole["record"]["streams"][0]["gaps"]
    events = (await bed.ask(cora, "GET", "/audit?action=submit")).json()["items"]
    assert all(run["sha256"] in orjson.dumps(each).decode() for each in events)
    assert len(events) == 2


async def test_a_report_is_harmless_in_a_browser(bed, cora):
    path = f"/runs/{(await handed_over(bed, cora, report=REPORT))['id']}/report"
    answer = await bed.ask(cora, "GET", path)
    assert answer.text == REPORT
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == SANDBOX
    assert "script-src" not in SANDBOX
    without = await handed_over(bed, cora, record=document(seed=9))
    answer = await bed.ask(cora, "GET", f"/runs/{without['id']}/report")
    assert_problem(answer, 404, "unknown", "without a report")


async def test_a_listing_has_pages_and_filters(bed, cora):
    ids = [(await handed_over(bed, cora, record=document(seed=seed)))["id"] for seed in (1, 2, 3)]
    failed = document(passed=False, incidents=["it broke"])
    ids.append((await handed_over(bed, cora, record=failed))["id"])

    async def listed(query):
        page = (await bed.ask(cora, "GET", f"/runs{query}")).json()
        return [each["id"] for each in page["items"]], page["next"]

    newest_first = ids[::-1]
    assert await listed("") == (newest_first, None)
    assert await listed("?limit=3") == (newest_first[:3], newest_first[2])
    assert await listed(f"?cursor={newest_first[2]}") == (newest_first[3:], None)
    assert await listed("?verdict=failed") == ([ids[3]], None)
    assert await listed("?scenario=other") == ([], None)
    assert await listed("?since=2026-11-23T12:00:00Z") == (newest_first, None)
    assert await listed("?since=2026-11-23T12:00:01Z") == ([], None)


async def test_compared_are_the_inputs_that_differ_first_and_all_figures(bed, cora):
    faster = document(seed=8)
    observed = faster.expectations[0].model_copy(update={"observed": {"f1": 0.95}})
    second = faster.model_copy(update={"expectations": [observed]})
    ids = [(await handed_over(bed, cora))["id"]]
    ids.append((await handed_over(bed, cora, record=second))["id"])
    answer = await bed.ask(cora, "GET", f"/runs/compare?ids={ids[0]},{ids[1]}")
    compared = answer.json()
    assert [each["id"] for each in compared["runs"]] == ids
    first, *rest = compared["inputs"]
    assert (first["name"], first["values"], first["differs"]) == ("seed", [7, 8], True)
    assert not any(each["differs"] for each in rest)
    (changed,) = [each for each in compared["figures"] if each["differs"]]
    assert (changed["name"], changed["values"]) == ("the valve is noticed: f1", [0.9, 0.95])
    for wrong in ("ids=1", "ids=a,b", "ids=1,,2", ""):
        assert (await bed.ask(cora, "GET", f"/runs/compare?{wrong}")).status_code == 422


def changed(path, value):
    """A record with another value at a path, and the hash that it then has."""

    def change():
        sent = orjson.loads(checks.canonical(document()))
        *steps, last = path
        part = sent
        for step in steps:
            part = part[step]
        part[last] = value
        return {"record": sent, "sha256": checks.sha256(RunDocument.model_validate(sent))}

    return change


LIES = {
    "record.passed": changed(["passed"], value=False),
    "record.scenario.sha256": changed(["scenario", "text"], "another"),
    "record.expectations.0.robustness": changed(["expectations", 0, "robustness"], -0.5),
    "record.expectations.0.samples.0.stream": changed(
        ["expectations", 0, "samples", 0, "stream"], "none"
    ),
    "record.expectations.0.samples.0.samples": changed(
        ["expectations", 0, "samples", 0, "samples"], 10**9
    ),
    "record.expectations.0.truth": changed(["expectations", 0, "truth"], "nobody"),
    "record.ended": changed(["ended"], "2020-01-01T00:00:00Z"),
    "record.began": changed(["began"], "yesterday"),
    "record.streams.0.first": changed(["streams", 0, "first"], None),
    "record.clock.speed": changed(["clock", "speed"], 2.0),
}


@pytest.mark.parametrize("field", LIES)
async def test_a_record_that_contradicts_itself_is_refused_with_its_field(bed, cora, field):
    answer = await bed.ask(cora, "POST", RUNS, json=LIES[field]())
    assert_problem(answer, 422, "invalid", field)
    assert (await bed.ask(cora, "GET", "/runs")).json()["items"] == []


async def test_what_is_no_record_is_refused(bed, cora):
    texts = {
        "sha256": body(sha256="0" * 64),
        "report_sha256": body(report=REPORT) | {"report": REPORT + "<b>"},
        "report_sha256: a report has a hash": body() | {"report": REPORT},
        "record.v": body(record=None) | {"record": RunDocument.example() | {"v": 2}},
        "record.more": {**body(), "record": RunDocument.example() | {"more": 1}},
        "report": body(report="x" * (2 * 1024 * 1024 + 1)),
    }
    for words, wrong in texts.items():
        assert_problem(await bed.ask(cora, "POST", RUNS, json=wrong), 422, "invalid", words)
    text = orjson.dumps(body()).decode().replace('"robustness":0.1', '"robustness":NaN')
    headers = cora | {"Content-Type": "application/json"}
    answer = await bed.ask(headers, "POST", RUNS, content=text)
    assert_problem(answer, 422, "invalid", "robustness")
    large = await bed.ask(cora, "POST", RUNS, content=b"[" + b" " * 4 * 1024 * 1024)
    assert_problem(large, 413, "too_large")


async def test_members_and_auditors_read_and_nobody_else(bed, cora, admin):
    run = await handed_over(bed, cora, report=REPORT)
    path = f"/runs/{run['id']}"
    viewer = await bed.person("olga", "company", Role.OPERATOR)
    stranger = await bed.person("fritz", "factory", *Role)
    auditor = await bed.person("otto", "testbed", Role.AUDITOR)
    machine = await bed.machine("box", "company")
    for reader in (viewer, auditor, admin):
        assert (await bed.ask(reader, "GET", path)).status_code == 200
        listed = await bed.ask(reader, "GET", "/runs?organisation=company")
        assert [each["id"] for each in listed.json()["items"]] == [run["id"]]
    assert (await bed.ask(viewer, "GET", f"{path}/report")).status_code == 200
    refused = await bed.ask(auditor, "GET", f"{path}/report")
    assert_problem(refused, 403, "forbidden", "may not watch")
    assert_problem(await bed.ask(machine, "GET", path), 403, "forbidden")
    for end in ("", "/evidence", "/report"):
        assert_problem(await bed.ask(stranger, "GET", path + end), 404, "unknown")
    assert_problem(await bed.ask(stranger, "DELETE", path), 404, "unknown")
    assert_problem(await bed.ask(stranger, "POST", RUNS, json=body()), 404, "unknown")
    assert_problem(await bed.ask(viewer, "POST", RUNS, json=body()), 403, "forbidden")
    assert_problem(await bed.ask(stranger, "GET", "/runs?organisation=company"), 404, "unknown")


async def test_an_owner_deletes_a_run_and_the_audit_keeps_its_hash(bed, cora):
    run = await handed_over(bed, cora, report=REPORT)
    path = f"/runs/{run['id']}"
    developer = await bed.person("dave", "company", Role.DEVELOPER)
    assert_problem(await bed.ask(developer, "DELETE", path), 403, "forbidden", "may not manage")
    assert (await bed.ask(cora, "DELETE", path)).status_code == 204
    assert_problem(await bed.ask(cora, "GET", path), 404, "unknown")
    (event,) = (await bed.ask(cora, "GET", "/audit?action=manage")).json()["items"][-1:]
    assert run["sha256"] in orjson.dumps(event).decode()


async def test_an_organisation_has_its_share_of_bytes(bed, cora):
    run = await handed_over(bed, cora)
    bed.api.quotas.most = QuotaSettings(run_bytes=100)
    answer = await bed.ask(cora, "POST", RUNS, json=body(record=document(seed=99)))
    assert_problem(answer, 429, "too_many", "bytes of runs")
    assert (await bed.ask(cora, "DELETE", f"/runs/{run['id']}")).status_code == 204
    await handed_over(bed, cora, record=document(seed=99))
