"""Gates, promotion and rollback over HTTP: from a simulated machine to the live one, and back."""

from dataclasses import replace

import pytest

from broker.responses.run_document import RunDocument
from broker.rights import Role
from broker.runs import checks
from testbed_api.domain.deployments import PinnedImage
from testbed_api.limits.quotas import QuotaSettings
from tests.integration.api_bed import RIG, assert_problem
from tests.integration.deployment_bed import DIGEST, MANIFEST

SOURCE = {"kind": "simulated", "inputs": {"rig": {"simulator": "pump-rig"}}}
GATES = "/organisations/company/deployments/gates"
METRICS = {"cpu_s": 1.0, "memory_bytes": 7, "pids": 1, "restarts": 0, "at_ns": 1} | dict.fromkeys(
    ("messages_in", "messages_out", "bytes_in", "bytes_out"), 3
)


@pytest.fixture
async def untried(bed, deploying):
    """The image as it is before any run of it."""
    await bed.registry.runs.delete(await bed.registry.runs.get(1))
    return deploying


async def gates(deploying, stage, who=None, **more):
    body = {"manifest": MANIFEST | more.pop("manifest", {}), "stage": stage, "digest": DIGEST}
    return await deploying.bed.ask(who or deploying.cora, "POST", GATES, json=body | more)


async def closed(deploying, stage, **more):
    answer = (await gates(deploying, stage, **more)).json()
    shut = {each["gate"]: each for each in answer["gates"] if not each["open"]}
    assert answer["open"] is (not shut)
    assert all(each["todo"] for each in shut.values())
    return {name: each["sentence"] for name, each in shut.items()}


async def post(deploying, number, act, who=None, **body):
    path = f"/deployments/{number}/{act}"
    return await deploying.bed.ask(who or deploying.cora, "POST", path, json=body)


async def ran(bed, site, number, seconds):
    """A deployment runs and publishes for so long."""
    await site.events(number, "pulling", "starting", "connecting", "running")
    await bed.clock.advance(seconds)
    await site.report({"id": number, "metrics": METRICS})


async def test_each_stage_says_what_it_asks_for(bed, untried, owner):
    assert await closed(untried, "simulated", source=SOURCE) == {}
    assert set(await closed(untried, "recorded", source=RECORDING)) == {"trial", "source"}
    assert set(await closed(untried, "live")) == {"trial"}
    assert (await bed.ask(owner, "DELETE", f"/grants/{untried.grant.id}")).is_success
    assert set(await closed(untried, "live", digest=f"sha256:{'b' * 64}")) == {
        *("image", "trial", "grants"),
    }
    bed.api.quotas.most = QuotaSettings(deployments=0)
    assert "more than 0 deployments" in (await closed(untried, "live"))["quota"]
    (site,) = [
        each for each in (await gates(untried, "live")).json()["gates"] if each["gate"] == "site"
    ]
    assert (site["open"], site["sentence"]) == (True, "it will wait: no site opens to company")


RECORDING = {"kind": "recorded", "recording": 3, "streams": {"rig": str(RIG)}}


async def test_a_deployment_is_refused_with_the_conditions_that_are_not_met(bed, untried, site):
    answer = await untried.deploy("live")
    assert_problem(answer, 409, "refused", "does not run in the live stage yet: trial: no run of")
    assert "--stage recorded" in answer.json()["hint"]
    assert await site.items() == {}
    assert (await bed.ask(untried.cora, "GET", "/deployments")).json()["items"] == []


async def test_a_run_that_was_handed_over_opens_the_gate(bed, untried):
    example = RunDocument.model_validate(RunDocument.example())
    code = example.code[0].model_copy(
        update={"kind": "project", "sha256": DIGEST.removeprefix("sha256:")}
    )
    for passed, expected in ((False, {"trial"}), (True, set())):
        document = example.model_copy(update={"code": [code], "label": f"{passed}"})
        document = judged(document, passed=passed)
        body = {"record": document.model_dump(mode="json"), "sha256": checks.sha256(document)}
        answer = await bed.ask(untried.cora, "POST", "/organisations/company/runs", json=body)
        assert answer.status_code == 201, answer.text
        assert set(await closed(untried, "live")) == expected


def judged(document, *, passed):
    change = {"passed": passed, "robustness": 0.1 if passed else -0.1}
    results = [each.model_copy(update=change) for each in document.expectations]
    return document.model_copy(update={"passed": passed, "expectations": results})


async def test_it_is_promoted_after_a_minute_with_the_same_digest(bed, untried, site):
    first = await untried.deployed("simulated", source=SOURCE, labels=[])
    await ran(bed, site, first["id"], 59)
    refused = await post(untried, first["id"], "promote", source=RECORDING)
    assert_problem(refused, 409, "refused", "it ran 59 s, and 60 s are needed")
    assert "source: there is no recording 3" in refused.json()["detail"]
    await bed.clock.advance(2)
    gate = (await gates(untried, "recorded", source=RECORDING)).json()["gates"]
    (trial,) = [each for each in gate if each["gate"] == "trial"]
    assert trial["sentence"] == (
        f"deployment {first['id']} of this image did well in the simulated stage"
    )
    plain = {"manifest": {"inputs": {}}}
    alone = await untried.deployed("simulated", **plain)
    assert alone["replaces"] == first["id"]
    second = await post(untried, alone["id"], "promote")
    assert second.status_code == 201, second.text
    second = second.json()
    assert (second["stage"], second["digest"]) == ("recorded", DIGEST)
    assert second["promoted_from"] == alone["id"]
    await ran(bed, site, second["id"], 61)
    third = (await post(untried, second["id"], "promote", labels=["edge"])).json()
    assert (third["stage"], third["labels"]) == ("live", ["edge"])
    last = await post(untried, third["id"], "promote")
    assert_problem(last, 409, "refused", "which is the last stage")


async def test_a_trial_that_failed_does_not_count(bed, untried, site):
    number = (await untried.deployed("simulated", source=SOURCE))["id"]
    await ran(bed, site, number, 100)
    end = {"cause": "memory", "phase": "running", "reason": "it used more than 256 MiB"}
    await site.events(number, {"state": "ended", "reason": "killed", "end": end}, first=5)
    sentence = (await closed(untried, "recorded", source=RECORDING))["trial"]
    assert f"deployment {number} of this image" in sentence
    assert "it used more than 256 MiB" in sentence


async def test_a_rollback_brings_back_what_was_there_before(bed, deploying, site):
    first = await deploying.deployed()
    nothing = await post(deploying, first["id"], "rollback")
    assert_problem(nothing, 409, "refused", "no other image or manifest in the live stage before")
    other = f"sha256:{'b' * 64}"
    newer = PinnedImage(digest=other, name="newer.tar", kind="archive", pushed_by="cora")
    await bed.registry.images.add("company", newer)
    refused = await deploying.deploy(digest=other)
    assert_problem(refused, 409, "refused", "no run of this image passed")
    second = await deploying.deployed(manifest={"environment": {"RATE": "2"}})
    await deploying.deployed(manifest={"environment": {"RATE": "2"}})
    old = await post(deploying, second["id"], "rollback")
    assert_problem(old, 409, "refused", "took the place of deployment")
    await bed.registry.runs.delete(await bed.registry.runs.get(1))
    back = await post(deploying, second["id"] + 1, "rollback")
    assert back.status_code == 201, back.text
    back = back.json()
    assert (back["digest"], back["replaces"]) == (DIGEST, second["id"] + 1)
    stored = await bed.registry.deployments.get(back["id"])
    assert stored.manifest == (await bed.registry.deployments.get(first["id"])).manifest
    await bed.registry.images.remove("company", DIGEST)
    gone = await post(deploying, back["id"], "rollback")
    assert_problem(gone, 409, "refused", "image: the testbed does not hold")
    assert len(await site.items()) == 1


async def test_secrets_are_set_before_it_is_deployed_and_reach_its_runner(bed, deploying, site):
    needs = {"manifest": {"secrets": ["CLOUD_KEY"]}}
    assert (await closed(deploying, "live", **needs)) == {"secrets": "not set: CLOUD_KEY"}
    path = "/organisations/company/secrets/CLOUD_KEY"
    assert (await bed.ask(deploying.cora, "PUT", path, json={"value": "abc"})).is_success
    number = (await deploying.deployed(**needs))["id"]
    assert (await site.material(number)).json()["secrets"] == {"CLOUD_KEY": "abc"}
    assert (await bed.ask(deploying.cora, "DELETE", path)).is_success
    refused = await site.material(number)
    assert_problem(refused, 409, "refused", "company has no secret CLOUD_KEY")


async def test_others_ask_promote_and_roll_back_nothing(bed, deploying, site, owner, admin):
    number = (await deploying.deployed())["id"]
    operator = await bed.person("olaf", "company", Role.OPERATOR)
    assert (await gates(deploying, "live", who=owner)).status_code == 404
    assert (await gates(deploying, "live", who=operator)).status_code == 403
    for act in ("promote", "rollback"):
        statuses = [
            (await post(deploying, number, act, who=who)).status_code
            for who in (owner, operator, admin)
        ]
        assert statuses == [404, 403, 403]
    assert len(await site.items()) == 1


async def test_a_runner_gets_the_archives_of_its_deployments_alone(bed, deploying, site, admin):
    shelf = bed.api.prototype_material.images.shelf
    path = f"/runner/images/{DIGEST}"
    assert_problem(await bed.ask(site.credential, "GET", path), 404, "unknown", "no image")
    await deploying.deployed()
    answer = await bed.ask(site.credential, "GET", path)
    assert_problem(answer, 503, "unavailable", "not on this server")
    shelf.root.mkdir()
    shelf.path(DIGEST).write_bytes(b"archive" * 300_000)
    answer = await bed.ask(site.credential, "GET", path)
    assert (answer.status_code, answer.content) == (200, b"archive" * 300_000)
    assert answer.headers["content-length"] == "2100000"
    other = await deploying.site(admin, "site-2")
    assert (await bed.ask(other.credential, "GET", path)).status_code == 404
    assert (await bed.ask(deploying.cora, "GET", path)).status_code == 403


async def test_a_digest_of_a_run_goes_with_the_run(bed, deploying):
    assert await bed.registry.runs.newest_passed("company", DIGEST) is not None
    assert await bed.registry.runs.newest_passed("factory", DIGEST) is None
    run = await bed.registry.runs.get(1)
    await bed.registry.runs.delete(replace(run, id=1))
    assert await bed.registry.runs.newest_passed("company", DIGEST) is None
    assert set(await closed(deploying, "live")) == {"trial"}
