"""Images are pushed, checked, listed, pinned, deleted and pruned, by their organisation alone."""

import io
import os
from dataclasses import replace

import pytest

from broker.clock import DAY_NS, DAY_S, NS_PER_S
from broker.deployments.life import DeploymentStage, DeploymentState
from broker.errors import Taken
from broker.process import file_lock
from broker.prototypes import bundle
from broker.rights import Role
from testbed_api.domain.deployments import Deployment, PinnedImage
from testbed_api.images.shelf import ImageLimits, ImageShelf
from testbed_api.limits.quotas import QuotaSettings
from testbed_api.registry.audit import EventFilter
from tests.integration.api_bed import START_NS, assert_problem
from tests.services import disk, docker_registry
from tests.services import image_archives as archives
from tests.services.image_archives import BLOBS, manifest
from tests.services.prototype_material import MOST

IMAGES = "/organisations/company/images"
ARCHIVE = archives.docker()
DIGEST = archives.digest(archives.config())


@pytest.fixture
async def cora(bed):
    """A developer of a company."""
    return await bed.person("cora", "company", Role.DEVELOPER)


@pytest.fixture
async def olaf(bed):
    """An operator of the same company, who deploys nothing."""
    return await bed.person("olaf", "company", Role.OPERATOR)


async def pushed(bed, who, content=ARCHIVE, organisation="company", **query):
    path = f"/organisations/{organisation}/images"
    return await bed.ask(who, "POST", path, content=content, params={"name": "watch:1"} | query)


def files_of(bed):
    """The names of the files on the shelf."""
    root = bed.api.prototype_material.images.shelf.root
    return sorted(path.name for path in root.iterdir()) if root.exists() else []


def deployment(**changes):
    facts = {
        "organisation": "company",
        "prototype": "watch",
        "stage": DeploymentStage.SIMULATED,
        "space": "run-1",
        "manifest": {},
        "inputs": {},
        "outputs": {},
        "cpu": 0.5,
        "memory_bytes": 1,
        "log_bytes": 1,
        "image_name": "watch.tar",
        "image": PinnedImage(digest=DIGEST, name="watch:1", kind="archive"),
        "deployed_ns": START_NS,
        "deployed_by": "cora",
    }
    return Deployment(**facts | changes)


async def test_an_image_is_kept_by_its_digest_and_told_to_its_organisation(bed, cora, olaf, owner):
    answer = await pushed(bed, cora)
    assert answer.status_code == 201, answer.text
    image = answer.json()
    assert image["digest"] == DIGEST
    assert (image["name"], image["kind"], image["architecture"]) == ("watch:1", "archive", "amd64")
    assert (image["size_bytes"], image["by"]) == (len(ARCHIVE), "cora")
    assert (image["used"], image["deployments"]) == (None, [])
    assert files_of(bed) == [f"{DIGEST.replace(':', '-')}.tar"]
    assert bed.api.prototype_material.images.shelf.path(DIGEST).read_bytes() == ARCHIVE
    for member in (cora, olaf):
        assert (await bed.ask(member, "GET", IMAGES)).json() == {"items": [image]}
    assert_problem(await bed.ask(owner, "GET", IMAGES), 404, "unknown", "no organisation")
    again = (await pushed(bed, cora, name="watch:2")).json()
    assert (again["digest"], again["name"]) == (DIGEST, "watch:2")
    assert len((await bed.ask(cora, "GET", IMAGES)).json()["items"]) == 1


async def test_a_project_is_kept_by_the_digest_of_its_bytes(bed, cora, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "prototype.py").write_text("print('reading')\n")
    target = io.BytesIO()
    packed = bundle.pack(tmp_path / "project", target)
    image = (await pushed(bed, cora, target.getvalue(), kind="project", name="watch")).json()
    assert image["digest"] == packed.digest
    assert (image["kind"], image["architecture"]) == ("project", "")
    answer = await pushed(bed, cora, ARCHIVE[:-9_000], kind="project")
    assert_problem(answer, 422, "invalid", "no whole tar archive")


async def test_who_may_not_deploy_pushes_and_deletes_nothing(bed, cora, olaf, owner):
    await pushed(bed, cora)
    for who, status in ((olaf, 403), (owner, 404)):
        assert (await pushed(bed, who)).status_code == status
        assert (await bed.ask(who, "DELETE", f"{IMAGES}/{DIGEST}")).status_code == status
        form = {"reference": "127.0.0.1:9/watch:1"}
        answer = await bed.ask(who, "POST", f"{IMAGES}/registry", json=form)
        assert answer.status_code == status
    assert len(files_of(bed)) == 1


@pytest.mark.parametrize(
    ("content", "query", "sentence"),
    [
        (b"", {}, "'watch:1' is not taken: it is no whole tar archive"),
        (ARCHIVE[:-9_000], {}, "no whole tar archive"),
        (archives.docker(content=archives.config(os="windows")), {}, "it is for windows"),
        (os.urandom(MOST + 1), {}, "more than 400,000 bytes"),
        (ARCHIVE, {"kind": "picture"}, "kind"),
        (ARCHIVE, {"name": ""}, "name"),
        (ARCHIVE, {"name": "a\nb"}, "name"),
    ],
)
async def test_what_is_wrong_is_a_sentence_and_leaves_nothing(bed, cora, content, query, sentence):
    assert_problem(await pushed(bed, cora, content, **query), 422, "invalid", sentence)
    assert files_of(bed) == []
    assert (await bed.ask(cora, "GET", IMAGES)).json() == {"items": []}


async def test_an_archive_without_a_stated_length_is_bounded_as_it_comes(bed, cora):
    async def endless():
        sent = 0
        while True:
            sent += 100_000
            assert sent < 3 * MOST, "it goes on reading"
            yield os.urandom(100_000)

    answer = await pushed(bed, cora, endless())
    assert_problem(answer, 422, "invalid", "more than 400,000 bytes")
    assert files_of(bed) == []


async def test_an_image_of_a_deployment_stays(bed, cora):
    await pushed(bed, cora)
    number = await bed.registry.deployments.add(deployment())
    (listed,) = (await bed.ask(cora, "GET", IMAGES)).json()["items"]
    assert listed["deployments"] == [number]
    answer = await bed.ask(cora, "DELETE", f"{IMAGES}/{DIGEST}")
    assert_problem(answer, 409, "taken", f"deployment {number} has the image")
    await bed.registry.deployments.report(
        replace(deployment(), id=number, state=DeploymentState.ENDED, ended_ns=START_NS), []
    )
    assert (await bed.ask(cora, "DELETE", f"{IMAGES}/{DIGEST}")).status_code == 204
    assert files_of(bed) == []
    answer = await bed.ask(cora, "DELETE", f"{IMAGES}/{DIGEST}")
    assert_problem(answer, 404, "unknown", "has no image")


async def test_an_archive_goes_with_the_last_organisation_that_holds_it(bed, cora, owner):
    for who, organisation in ((cora, "company"), (owner, "factory")):
        assert (await pushed(bed, who, organisation=organisation)).status_code == 201
    assert (await bed.ask(cora, "DELETE", f"{IMAGES}/{DIGEST}")).status_code == 204
    assert len(files_of(bed)) == 1
    path = f"/organisations/factory/images/{DIGEST}"
    assert (await bed.ask(owner, "DELETE", path)).status_code == 204
    assert files_of(bed) == []


async def test_a_full_quota_and_a_full_disk_are_told_before_anything_is_written(
    bed, cora, tmp_path
):
    with disk.small(tmp_path / "disk", 2 * 1024**2) as small:
        shelf = bed.api.prototype_material.images.shelf
        shelf.root = small / "images"
        disk.fill(small / "others", leave=8_000)
        answer = await pushed(bed, cora)
        assert_problem(answer, 503, "unavailable", "the disk of the server's images is full")
        shelf.limits = replace(shelf.limits, free_bytes=-(10**9))  # so that the disk itself says it
        answer = await pushed(bed, cora)
        assert_problem(answer, 503, "unavailable", "its disk is full")
        assert files_of(bed) == []
        (small / "others").unlink()
        assert (await pushed(bed, cora)).status_code == 201
    bed.api.quotas.most = QuotaSettings(image_bytes=len(ARCHIVE))
    answer = await pushed(bed, cora, name="watch:3")
    assert_problem(answer, 429, "too_many", "bytes of images of company")


async def test_an_image_that_nothing_needed_for_long_goes(bed, cora, owner):
    await pushed(bed, cora)
    await pushed(bed, owner, organisation="factory")
    number = await bed.registry.deployments.add(deployment())
    pruning = bed.api.prototype_material.images
    await bed.clock.advance(31 * DAY_S)
    await pruning.prune()
    assert (await bed.ask(owner, "GET", "/organisations/factory/images")).json()["items"] == []
    assert len(files_of(bed)) == 1  # the company's deployment has it
    ended_ns = bed.clock.now_ns()
    await bed.registry.deployments.report(
        replace(deployment(), id=number, state=DeploymentState.ENDED, ended_ns=ended_ns), []
    )
    await bed.clock.advance(29 * DAY_S)
    await pruning.prune()
    assert len(files_of(bed)) == 1
    await bed.clock.advance(2 * DAY_S)
    await pruning.prune()
    assert files_of(bed) == []
    events = await bed.registry.audit.events(EventFilter(action="remove-image"), 0, 10)
    assert [link.event.organisation for link in events] == ["factory", "company"]


async def test_files_of_no_image_and_halves_of_dead_processes_go(bed, cora, tmp_path):
    await pushed(bed, cora)
    shelf = bed.api.prototype_material.images.shelf
    orphan = shelf.path("sha256:" + "1" * 64)
    orphan.write_bytes(b"x")
    await bed.api.prototype_material.images.prune()
    assert len(files_of(bed)) == 2  # it may be that of a push that is not over
    old = (bed.clock.now_ns() - 2 * DAY_NS) / NS_PER_S
    for path in (orphan, shelf.path(DIGEST)):
        os.utime(path, (old, old))
    (shelf.root / ".dead.part").touch()
    living = shelf.root / ".living.part"
    with file_lock.locked(living, Taken("it is held")):
        shelf.sweep()
        await bed.api.prototype_material.images.prune()
        assert files_of(bed) == [".living.part", shelf.path(DIGEST).name]
    elsewhere = ImageShelf(tmp_path / "nowhere", ImageLimits(archive_bytes=1, unpacked_bytes=1))
    elsewhere.sweep()
    assert elsewhere.digests_before(2**62) == frozenset()


async def test_a_tag_is_pinned_where_the_operator_allows_its_registry(bed, cora, tmp_path):
    with docker_registry.serve(tmp_path) as host:  # skips where there is none
        digest = docker_registry.put(host, "acme/watch", "1", BLOBS, manifest())
        form = {"reference": f"{host}/acme/watch:1"}
        answer = await bed.ask(cora, "POST", f"{IMAGES}/registry", json=form)
        assert_problem(answer, 422, "invalid", f"images are not taken from {host}")
        allowed = replace(bed.api.prototype_material, registries=frozenset({host}))
        bed.http._transport.app.state.dependencies = replace(bed.api, prototype_material=allowed)
        answer = await bed.ask(cora, "POST", f"{IMAGES}/registry", json=form)
        assert answer.status_code == 201, answer.text
        image = answer.json()
        assert (image["digest"], image["kind"]) == (digest, "registry")
        assert image["name"] == form["reference"]
        stored = await bed.registry.images.find("company", digest)
        assert stored.reference == f"{host}/acme/watch@{digest}"
    assert await bed.registry.images.used_bytes("company") == 0


async def test_a_push_with_a_key_is_carried_out_once_and_holds_no_body(bed, cora):
    headers = cora | {"Idempotency-Key": "a"}
    answers = [
        await bed.http.post(IMAGES, params={"name": "watch:1"}, content=ARCHIVE, headers=headers)
        for _ in range(2)
    ]
    assert [each.status_code for each in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["Idempotency-Replayed"] == "true"


async def test_the_audit_has_who_pushed_which_digest(bed, cora):
    await pushed(bed, cora)
    await bed.ask(cora, "DELETE", f"{IMAGES}/{DIGEST}")
    events = [
        link.event for link in await bed.registry.audit.events(EventFilter(action="deploy"), 0, 10)
    ]
    assert [each.principal for each in events] == ["cora", "cora"]
    assert all(DIGEST in each.details for each in events)
