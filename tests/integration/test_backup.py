"""Backup and restore, on both stores and through a running server: all of it, or a sentence."""

import asyncio
import contextlib
import json
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from pydantic import SecretStr

from broker import api_client, audit_head, clock
from broker.audit_head import HeadSigner
from broker.batch import BAD, NO_VALUE, NUMPY, EquipmentKind, Gap, Series
from broker.bus import client
from broker.clock import NS_PER_S, WallClock
from broker.deployments.life import DeploymentStage
from broker.errors import Corrupt, Forbidden, Invalid, Refused, Taken, Unavailable, Unknown
from broker.messages import Held
from broker.namespace import StreamAddress
from broker.rights import Entry, GrantState, Listing, Pause, Role, Scope, Span
from broker.streams import Dtype, Signal, StreamSpec
from gateway.spool import spool
from gateway.spool.spool import SpoolSettings
from gateway.uplink.uplink import Uplink
from testbed.server import backup as server_backup
from testbed.server import pki
from testbed_api import persistence
from testbed_api.backup import archive
from testbed_api.backup import rights as backup_rights
from testbed_api.backup.rights import RightName
from testbed_api.domain import audit, organisations, runners, tokens
from testbed_api.domain.audit import AuditOutcome, Event
from testbed_api.domain.deployments import Deployment, PinnedImage, PrintedLine
from testbed_api.domain.equipment import Equipment
from testbed_api.domain.grants import GrantRequest
from testbed_api.domain.organisations import Organisation
from testbed_api.domain.runners import Runner
from testbed_api.domain.runs import HandedRun, RunContent, RunFilter
from testbed_api.recorder.ledger import DeadLetter, FlushEntries, SetAside, StreamEpoch
from testbed_api.recorder.lost_gaps import AFTER_BACKUP
from testbed_api.registry.audit import EventFilter
from testbed_api.retention import fingerprint
from testbed_api.retention.deletions import StoredSpan
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.retention.fingerprint import EARLIEST_NS, LATEST_NS
from testbed_api.settings import ServerSettings
from testbed_api.stores.port import Block
from tests.integration.test_retention_server import command
from tests.integration.test_server import (
    RIG as SERVED,
)
from tests.integration.test_server import (
    SPACE,
    T0,
    announce,
    batch,
    bus,
    credential,
    history,
    machine,
    marked,
    publish,
    serving,
)
from tests.integration.test_server import (
    SPEC as SERVED_SPEC,
)
from tests.owners import founded
from tests.services import postgresql as postgresql_product

CLOCK = WallClock()
RIG = StreamAddress("factory", "pump-rig", "rig")
NOW_NS = clock.ns_of("2026-11-23T12:00:00Z")
SPECS = [
    StreamSpec(RIG, (Signal("old"),), 1),
    StreamSpec(
        RIG,
        (
            Signal("p"),
            Signal("n", Dtype.INT64),
            Signal("on", Dtype.BOOL),
            Signal("s", Dtype.STRING),
        ),
        2,
    ),
]
WATCH = Deployment(
    organisation="firm",
    prototype="watch",
    stage=DeploymentStage.LIVE,
    space="live",
    manifest={"prototype": "watch"},
    inputs={"rig": RIG},
    outputs={},
    cpu=0.25,
    memory_bytes=2**35,
    log_bytes=65_536,
    image_name="watch.tar",
    image=PinnedImage(digest="sha256:a", name="watch.tar", kind="archive", pushed_by="fay"),
    deployed_ns=3,
    deployed_by="fay",
    principal="detector",
)
LIFE = StreamEpoch("live", RIG, "e1")
RUN = HandedRun(
    organisation="firm",
    scenario="valve",
    label="",
    seed=7,
    passed=False,
    began_ns=NOW_NS,
    ended_ns=NOW_NS,
    handed_ns=NOW_NS,
    handed_by="fay",
    scenario_sha256="a" * 64,
    samples_sha256="b" * 64,
    sha256="c" * 64,
)


def series(times, values, dtype, bad=()):
    column = np.empty(len(times), NUMPY[dtype])
    column[:] = values
    quality = np.zeros(len(times), np.uint8)
    for at in bad:
        quality[at], column[at] = BAD, NO_VALUE[dtype]
    return Series(np.array(times, np.int64), column, quality)


def blocks():
    times = NOW_NS + np.arange(20_000) * NS_PER_S // 10
    far = [-(2**61), NOW_NS, 2**61]
    yield Block.of_series(
        "live", SPECS[0], (("old", series(times[:10], times[:10] / 7, Dtype.FLOAT64)),)
    )
    yield Block.of_series(
        "live",
        SPECS[1],
        (
            ("p", series(times, np.sin(times), Dtype.FLOAT64, [0, 7])),
            ("n", series(far, [-(2**63), 2**63 - 1, 2**53 + 1], Dtype.INT64)),
            ("on", series(times[:3], [True, False, True], Dtype.BOOL, [1])),
            ("s", series(times[:2], ['ü\n"', "x" * 5_000], Dtype.STRING)),
        ),
    )
    yield Block.of_series(
        "run-1", SPECS[1], (("p", series([1, 2], [-0.0, 5e-324], Dtype.FLOAT64)),)
    )


async def fill(opened):
    """Write to every table and to the store."""
    rig = Equipment(RIG.owner, "Rig", EquipmentKind.REAL, {"site": "North"})
    await opened.registry.equipment.put(rig)
    for spec in SPECS:
        await opened.registry.streams.add(spec)
        for space in ("live", "run-1"):
            await opened.ledger.keep_specs([(space, spec)], 7)
    scope = Scope(frozenset({Entry("live", RIG)}))
    await opened.registry.principals.add(
        organisations.machine("detector", "factory", scope, Span(3))
    )
    await opened.registry.tokens.add(tokens.issued("detector", Span(3, NOW_NS))[1])
    _, token = tokens.issued("fay", Span(3), label="for the report")
    await opened.registry.tokens.add(replace(token, roles=frozenset({Role.AUDITOR, Role.OWNER})))
    await opened.registry.passwords.set("fay", "hash", 3)
    await opened.registry.organisations.add(Organisation("firm", "The firm"))
    given = GrantRequest("firm", Entry("live", RIG), "to try", 3).granted(Span(3), "fay", 3)
    await opened.registry.grants.add(given)
    await opened.registry.pauses.add(Pause("factory", "firm", None, Span(4)), by="fay")
    await opened.registry.listings.put(Listing(RIG.owner, None, Span(5)), by="fay")
    await _deploy(opened.registry)
    content = RunContent(record=b'{"v":1}', report="<p>\x00")
    await opened.registry.runs.add(RUN, content)
    event = Event(5, "connect", "the broker", AuditOutcome.ALLOWED, "detector", "factory")
    await opened.registry.audit.append([event])
    await opened.registry.audit.sign_head(HeadSigner.from_seed("5" * 64), 6)
    await opened.store.write(list(blocks()))
    await opened.deletions.set_retention(RIG, 10**9)
    await opened.ledger.commit(
        FlushEntries(
            held={LIFE: Held(7, ((9, 12),))},
            gaps=[(LIFE, 3, Gap(("p",), 5, 6, "server-overflow"))],
            dead_letters=[DeadLetter("live", str(RIG), "bad", payload=b"\x00\xff", received_ns=1)],
            set_aside=[SetAside("tb1/live/data/a/b/c", b"\xfe", 2)],
        )
    )
    keeper = RetentionEnforcer(opened.store, opened.deletions, CLOCK)
    await keeper.delete(StoredSpan("run-1", RIG, 2, 3), by="ada", why="a trial")


async def _deploy(registry):
    """A runner with a code that counts, and a deployment there that has printed something."""
    site = Runner(
        id="site-1",
        organisation="factory",
        labels=frozenset({"edge"}),
        opens_to=None,
        made_ns=3,
        made_by="fay",
    )
    await registry.runners.put(site)
    await registry.principals.add(runners.principal_of(site, 3))
    await registry.runners.add_code(runners.issued("site-1", "fay", CLOCK.now_ns())[1])
    await registry.images.add("firm", WATCH.image)
    number = await registry.deployments.add(WATCH)
    await registry.deployments.assign(number, "site-1", "it has it")
    await registry.deployment_logs.add(number, [PrintedLine(1, 5, "\x00 line")], 65_536)


async def content(opened):
    """All rows and fingerprints, except what only a restore writes."""
    tables = {}
    dump = await anext(
        aiter(_whole(server_backup.Dumper(opened.engine, opened.store, opened.deletions, CLOCK)))
    )
    for line in dump.splitlines()[1:-1]:
        document = json.loads(line)
        if document["table"] == "audit":
            document["rows"] = [row for row in document["rows"] if "restore" not in row]
        if document["table"] == "recorder.gaps":
            document["rows"] = [row for row in document["rows"] if AFTER_BACKUP not in row]
        if document["table"] != "recorder.first_samples":
            tables.setdefault(document["table"], []).extend(document["rows"])
    sums = {}
    for space in ("live", "run-1"):
        samples = fingerprint.samples(
            opened.store, SPECS, space, from_ns=EARLIEST_NS, to_ns=LATEST_NS
        )
        sums[space] = (await fingerprint.fingerprint(samples)).sha256
    return tables, sums


async def restore(folder, settings, **options):
    """Restore a backup; its rights hold again."""
    chosen = server_backup.RestoreOptions(**options)
    return await server_backup.restore(folder, settings, CLOCK, chosen, lambda _: None)


async def _whole(dumper):
    yield b"".join([chunk async for chunk in dumper.tables()])


@pytest.fixture(params=["duckdb", "influxdb", "postgresql"])
def settings_for(request, tmp_path):
    """Settings of a server with a folder and a store of its own, by name."""
    if request.param == "duckdb":
        return lambda name: ServerSettings(folder=tmp_path / name)
    if request.param == "postgresql":
        database = request.getfixturevalue("postgresql")
        addresses = {
            name: database.new_database(f"{tmp_path.name}-{name}") for name in ("before", "after")
        }
        return lambda name: ServerSettings(
            folder=tmp_path / name,
            registry=addresses[name],
            registry_password=postgresql_product.PASSWORD,
        )
    server = request.getfixturevalue("influxd")
    place = server.url.removeprefix("http://") + f"/{server.organisation}/{tmp_path.name}"
    return lambda name: ServerSettings(
        folder=tmp_path / name,
        store=f"influxdb://{place}-{name}",
        store_token=SecretStr(server.token),
    )


@pytest.fixture
async def written_backup(tmp_path):
    """A backup of a stopped server with the embedded store, its folder and what was in it."""
    settings = ServerSettings(folder=tmp_path / "before")
    async with persistence.open_exclusive(settings) as opened:
        await fill(opened)
        before = await content(opened)
    manifest = await server_backup.backup(tmp_path / "backup", settings, CLOCK)
    return tmp_path / "backup", manifest, before


async def test_what_comes_back_is_what_was_there(settings_for, tmp_path):
    async with persistence.open_exclusive(settings_for("before")) as opened:
        await fill(opened)
        before = await content(opened)
    manifest = await server_backup.backup(tmp_path / "backup", settings_for("before"), CLOCK)
    restored, _ = await restore(tmp_path / "backup", settings_for("after"), sha256=manifest.sha256)
    assert (restored, restored.samples) == (manifest, 20_019)
    async with persistence.open_exclusive(settings_for("after")) as opened:
        assert await content(opened) == before
        (token,) = await opened.registry.tokens.valid("fay", 4)
        assert token.roles == {Role.AUDITOR, Role.OWNER}
        (run,) = await opened.registry.runs.page(RunFilter(organisation="firm"), None, 2)
        assert run == replace(RUN, id=run.id)
        assert await opened.registry.runs.report(run.id) == "<p>\x00"
        await opened.ledger.commit(FlushEntries(gaps=[(LIFE, 4, Gap((), 8, 9, "gateway-down"))]))


@pytest.mark.parametrize("settings_for", ["influxdb", "postgresql"], indirect=True)
async def test_what_one_product_held_comes_back_in_another(settings_for, written_backup):
    folder, _, before = written_backup
    await restore(folder, settings_for("after"))
    async with persistence.open_exclusive(settings_for("after")) as opened:
        assert await content(opened) == before


async def test_nobody_else_may_read_a_backup(written_backup):
    folder, manifest, _ = written_backup
    assert folder.stat().st_mode & 0o077 == 0
    for part in (manifest.tables, *manifest.streams):
        assert (folder / part.file).stat().st_mode & 0o077 == 0


async def test_any_damage_is_named_and_nothing_is_restored(written_backup, tmp_path):
    folder, manifest, _ = written_backup
    for part in (manifest.tables, *manifest.streams):
        path = folder / part.file
        good = path.read_bytes()
        for bad in (good[:-1], good[:50] + bytes([good[50] ^ 1]) + good[51:], None):
            path.unlink()
            if bad is not None:
                path.write_bytes(bad)
            with pytest.raises(Corrupt, match=f"{path} is damaged"):
                await restore(folder, ServerSettings(folder=tmp_path / "after"))
            path.write_bytes(good)
    assert not (tmp_path / "after").exists()


async def test_a_manifest_that_was_changed_is_noticed_by_its_own_hash(written_backup, tmp_path):
    folder, manifest, _ = written_backup
    path = folder / archive.MANIFEST
    path.write_text(path.read_text().replace('"rows": ', '"rows":  ', 1))
    with pytest.raises(Corrupt, match=f"not {manifest.sha256}"):
        await restore(folder, ServerSettings(folder=tmp_path / "after"), sha256=manifest.sha256)


async def test_the_hash_of_the_manifest_is_looked_at_before_all_else(written_backup, tmp_path):
    folder, manifest, _ = written_backup
    (folder / archive.MANIFEST).write_text("no manifest at all")
    for part in (manifest.tables, *manifest.streams):
        (folder / part.file).unlink()
    after = ServerSettings(folder=tmp_path / "after")
    with pytest.raises(Corrupt, match=f"not {manifest.sha256}"):
        await restore(folder, after, sha256=manifest.sha256)
    with pytest.raises(Invalid, match="'9f86d081' is no SHA-256"):
        await restore(folder, after, sha256="9f86d081")
    assert not (tmp_path / "after").exists()


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"v": 2}, Refused, "version 2, this one reads 1"),
        ({"schema": "9999"}, Refused, "has schema '9999', this version reads '0001'"),
        ({"streams": [{"file": "x"}]}, Corrupt, "lacks sense: an entry of it has other fields"),
        ({"streams": [{"rowz": 1}]}, Corrupt, "other fields than file, sha256, bytes, rows, space"),
        ({"tables": {"file": "../x", "sha256": "", "bytes": 0, "rows": 0}}, Corrupt, "lacks sense"),
    ],
)
async def test_a_manifest_that_cannot_be_meant_is_refused(
    written_backup, tmp_path, change, error, sentence
):
    path = written_backup[0] / archive.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=sentence):
        await restore(written_backup[0], ServerSettings(folder=tmp_path / "after"))
    assert not (tmp_path / "after").exists()


async def test_a_folder_without_a_manifest_is_no_backup(written_backup, tmp_path):
    (written_backup[0] / archive.MANIFEST).unlink()
    with pytest.raises(Unknown, match="there is no backup"):
        await restore(written_backup[0], ServerSettings(folder=tmp_path / "after"))


@pytest.mark.parametrize("settings_for", ["influxdb", "postgresql"], indirect=True)
async def test_a_restore_goes_only_where_nothing_is(written_backup, settings_for, tmp_path):
    folder, _, _ = written_backup
    with pytest.raises(Refused, match="is not empty"):
        await restore(folder, ServerSettings(folder=tmp_path / "before"))
    first = settings_for("after")
    await restore(folder, first)
    again = first.model_copy(update={"folder": tmp_path / "again"})
    sentence = "has samples of factory" if first.influxdb else "data already: \\w+ is not empty"
    with pytest.raises(Taken, match=sentence):
        await restore(folder, again)


async def test_a_restore_that_broke_off_is_not_served(written_backup, tmp_path, monkeypatch):
    folder, _, _ = written_backup
    after = ServerSettings(folder=tmp_path / "after")

    async def broken(*_):
        raise Corrupt("the power went")

    with monkeypatch.context() as away:
        away.setattr(server_backup.backup_restore, "restore", broken)
        with pytest.raises(Corrupt, match="power"):
            await restore(folder, after)
    with pytest.raises(Refused, match="did not come to its end"):
        async with persistence.open_exclusive(after):
            pass
    with pytest.raises(Refused, match="is not empty"):
        await restore(folder, after)


async def test_a_dump_that_broke_off_is_no_backup(tmp_path):
    async def cut():
        yield b'{"spec":1}\n{"t0":'

    with pytest.raises(Unavailable, match="broke off"):
        await archive.write(tmp_path, "samples.jsonl.gz", cut())


async def test_a_dump_of_an_unknown_version_is_refused(tmp_path):
    async def newer():
        yield b'{"v":2,"schema":"0001","taken":"..."}\n{"end":true,"rows":0}\n'

    tables = await archive.write(tmp_path, archive.TABLES, newer())
    with pytest.raises(Refused, match="has version 2, this version reads 1"):
        archive.tables_head(tmp_path, tables)


async def test_a_backup_never_goes_over_another(written_backup, tmp_path):
    with pytest.raises(Taken, match="is not empty"):
        await server_backup.backup(
            written_backup[0], ServerSettings(folder=tmp_path / "before"), CLOCK
        )


@pytest.mark.parametrize("is_there", [False, True])
async def test_a_backup_that_is_refused_leaves_nothing_behind(tmp_path, is_there):
    async with (
        serving(tmp_path / "data") as server,
        founded(f"http://{server.api}", server.administrator) as owners,
    ):
        if is_there:
            (tmp_path / "backup").mkdir()
        words = ("backup", tmp_path / "backup")
        code, _, error = await command(server, *words, secret=owners.secret)
        assert (code, "Traceback" in error) == (2, False)
        assert list(tmp_path.glob("backup*")) == [tmp_path / "backup"] * is_there
        code, _, error = await command(server, *words)
        assert (code, error) == (0, "")


async def test_a_folder_that_a_server_has_is_not_opened(tmp_path):
    async with persistence.open_exclusive(ServerSettings(folder=tmp_path / "before")):
        with pytest.raises(Taken, match="a server is running"):
            await server_backup.backup(
                tmp_path / "backup", ServerSettings(folder=tmp_path / "before"), CLOCK
            )


async def test_a_folder_without_data_is_said_so(tmp_path):
    with pytest.raises(Refused, match="there is no data"):
        await server_backup.backup(
            tmp_path / "backup", ServerSettings(folder=tmp_path / "no"), CLOCK
        )


async def test_what_was_recorded_after_the_backup_is_a_gap_at_once(written_backup, tmp_path):
    folder, _, _ = written_backup
    after = ServerSettings(folder=tmp_path / "after")
    _, restored = await restore(folder, after)
    async with persistence.open_exclusive(after) as opened:
        (lost,) = [loss for loss in restored.losses if loss.space == "run-1"]
        gaps = await opened.ledger.gaps("run-1", RIG, EARLIEST_NS, LATEST_NS)
        assert [gap for gap in gaps if gap.cause == AFTER_BACKUP] == [
            Gap((), lost.from_ns, lost.to_ns, AFTER_BACKUP)
        ]
        assert lost.from_ns == 2  # one sample of it was left
        lineage = await opened.ledger.lineage()
        assert await opened.store.positions(["factory"]) == lineage.positions


@pytest.mark.timeout(60)  # commands are processes of their own
async def test_a_running_server_is_backed_up_and_comes_back(tmp_path):
    async with (
        serving(tmp_path / "data") as server,
        founded(f"http://{server.api}", server.administrator) as door,
        machine(server, door) as out,
    ):
        secret = door.secret
        await announce(out)
        await marked(out, 1, then=lambda: publish(out, batch(1, [1.5, 2.5])))
        code, printed, complained = await command(server, "backup", tmp_path / "backup", "--json")
        assert code == 0, complained
        answer = json.loads(printed)
        await marked(out, 2, then=lambda: publish(out, batch(2, [9.0], start=CLOCK.now_ns())))
    code, printed, complained = await command(
        server,
        *("restore", tmp_path / "backup", "--data", tmp_path / "new", "--sha256", answer["sha256"]),
        "--confirm-rights",
    )
    assert code == 0, complained
    assert "restored: 2 samples of 1 stream" in printed
    assert "lost-after-backup" in printed
    async with serving(tmp_path / "new") as again:
        assert again.administrator is None
        async with api_client.connect(f"http://{again.api}", secret) as door, asyncio.timeout(10):
            stored = await history(door)
            while not stored["gaps"]:
                stored = await history(door)
            assert stored["frames"][0]["value"] == [1.5, 2.5]
            assert [gap["cause"] for gap in stored["gaps"]] == [AFTER_BACKUP]


@contextlib.asynccontextmanager
async def publishing(server, key, gateway_spool):
    """A gateway that publishes from its spool to a server."""
    async with (
        client.open(bus(server, key), CLOCK, client_id="machine") as out,
        asyncio.TaskGroup() as tasks,
    ):
        uplink = Uplink(out, gateway_spool, CLOCK, space=SPACE, specs=[SERVED_SPEC])
        running = tasks.create_task(uplink.run(), name="uplink")
        yield uplink
        running.cancel()


async def send_batches(uplink, seqs):
    """Send one batch per number, a sample a second, and wait for the marks."""
    for seq in seqs:
        message = batch(None, [float(seq)], start=T0 + seq * NS_PER_S, epoch=None)
        await uplink.send([(SERVED, message)])
    assert await uplink.drained(10)


@pytest.mark.timeout(60)
async def test_a_gateway_sends_again_what_the_restored_server_lacks(tmp_path):
    keep = SpoolSettings(most_bytes=2**30, keep_marked_s=900.0)
    async with spool.open(tmp_path / "spool.sqlite", epoch="one", settings=keep) as gateway_spool:
        async with (
            serving(tmp_path / "data") as server,
            founded(f"http://{server.api}", server.administrator) as owners,
        ):
            key = await credential(owners, "machine", writes=[SERVED])
            door = owners.doors["factory"]
            await door.register_equipment(SERVED.owner, name="rig", kind=EquipmentKind.SIMULATED)
            await door.register_spec(SERVED_SPEC)
            async with publishing(server, key, gateway_spool) as uplink:
                await send_batches(uplink, range(1, 4))
                code, *_ = await command(server, "backup", tmp_path / "backup")
                assert code == 0
                await send_batches(uplink, range(4, 7))
        await restore(tmp_path / "backup", ServerSettings(folder=tmp_path / "new"))
        async with (
            serving(tmp_path / "new") as again,
            api_client.connect(f"http://{again.api}", owners.secret) as door,
            publishing(again, key, gateway_spool) as uplink,
            asyncio.timeout(10),
        ):
            await send_batches(uplink, [7])
            values = []
            while len(values) < 7:
                values = [v for frame in (await history(door))["frames"] for v in frame["value"]]
            assert values == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
            assert (await gateway_spool.depth()).unmarked == 0


async def test_only_who_operates_the_testbed_gets_a_backup(tmp_path):
    async with (
        serving(tmp_path / "data") as server,
        founded(f"http://{server.api}", server.administrator) as owners,
    ):
        for path in ("/backup/tables", f"/backup/samples/live/{SERVED}"):
            with pytest.raises(Forbidden, match="may not operate the testbed"):
                await owners.request("GET", path)


async def test_nobody_waits_for_a_slow_reader_of_a_backup(tmp_path):
    settings = ServerSettings(folder=tmp_path / "data")
    async with persistence.open_exclusive(settings) as opened:
        await fill(opened)
        dump = server_backup.Dumper(opened.engine, opened.store, opened.deletions, CLOCK).tables()
        first = await anext(dump)
        await opened.ledger.commit(FlushEntries(held={LIFE: Held(99)}))
        rest = [chunk async for chunk in dump]
        assert (await opened.ledger.held([LIFE]))[LIFE].upto == 99
    assert [row[3:5] for row in listed(b"".join([first, *rest]), "recorder.ranges")] == [
        [1, 7],
        [9, 12],
    ]


@pytest.mark.parametrize("settings_for", ["duckdb", "postgresql"], indirect=True)
async def test_the_tables_of_a_backup_are_of_one_moment(settings_for):
    async with (
        persistence.open_exclusive(settings_for("before")) as opened,
        asyncio.TaskGroup() as tasks,
    ):

        async def record():
            """Gaps, each in one transaction with the number of its batch."""
            for seq in range(1, 10_000):
                gap = Gap((), seq, seq, "gateway-down")
                await opened.ledger.commit(
                    FlushEntries(held={LIFE: Held(seq)}, gaps=[(LIFE, seq, gap)])
                )

        recording = tasks.create_task(record(), name="recorder")
        dumper = server_backup.Dumper(opened.engine, opened.store, opened.deletions, CLOCK)
        moments: set[int] = set()
        while len(moments) < 8:
            text = b"".join([chunk async for chunk in dumper.tables()])
            held = [row[4] for row in listed(text, "recorder.ranges")]
            gaps = listed(text, "recorder.gaps")
            assert held == ([len(gaps)] if gaps else [])
            moments.add(len(gaps))
            await CLOCK.sleep(0.01)
        recording.cancel()


def listed(text, table):
    """The rows of one table in a dump."""
    documents = [json.loads(line) for line in text.splitlines()]
    return [
        row for document in documents if document.get("table") == table for row in document["rows"]
    ]


@pytest.fixture
async def backed_up(tmp_path):
    """A running server that was backed up, and the folder of its data."""
    folder = tmp_path / "data"
    async with (
        serving(folder) as server,
        founded(f"http://{server.api}", server.administrator),
    ):
        code, printed, _ = await command(server, "backup", tmp_path / "backup")
        assert code == 0
        assert "not in it: the key that signs the audit, audit.key in the server's data" in printed
        assert "after `testbed up --tls`, the authority that clients trust, the" in printed
        yield server, folder


async def restored(server, folder, *options):
    """What `testbed restore` of the backup prints, with its exit code."""
    backup = folder.parent / "backup"
    words = ("restore", backup, "--data", folder, "--confirm-rights", *options)
    code, printed, error = await command(server, *words)
    return code, printed + error


async def verdict(folder, secret, *options):
    """What `testbed audit verify` prints of a server on a folder, with its exit code."""
    async with serving(folder) as server:
        code, printed, error = await command(server, "audit", "verify", *options, secret=secret)
        return code, printed + error


def key_in(folder):
    return HeadSigner.from_seed((folder / "audit.key").read_text()).key


@pytest.mark.timeout(120)
async def test_a_restore_with_the_former_key_goes_on_with_it(backed_up, tmp_path):
    server, before = backed_up
    after = tmp_path / "after"
    code, printed = await restored(server, after, "--audit-key", before / "audit.key")
    assert (code, "goes on with the key that signed" in printed) == (0, True)
    assert (after / "audit.key").stat().st_mode & 0o777 == 0o600
    code, printed = await verdict(after, server.administrator)
    assert code == 0
    assert printed.startswith("the chain is whole")
    assert "changed" not in printed


@pytest.mark.timeout(120)
async def test_a_restore_without_the_key_is_named_and_tampering_still_found(backed_up, tmp_path):
    server, before = backed_up
    secret, after = server.administrator, tmp_path / "after"
    code, printed = await restored(server, after)
    assert code == 0
    assert f"Copy the former server's audit.key to {after / 'audit.key'}" in printed
    code, printed = await verdict(after, secret)
    assert code == 0
    former, new = key_in(before), key_in(after)
    assert "the chain is whole" in printed
    assert "the signing key changed at the restore of event" in printed
    assert f"{former} signed the heads up to event" in printed
    assert f"--key {former} --key {new}" in printed
    code, printed = await verdict(after, secret, "--json")
    (change,) = json.loads(printed)["key_changes"]
    assert (code, change["before"], change["after"]) == (0, former, new)
    code, printed = await verdict(after, secret, "--key", former)
    assert code == 1
    assert "not among the keys that you trust: if that restore was right, name both" in printed
    code, _ = await verdict(after, secret, "--key", former, "--key", new)
    assert code == 0
    with contextlib.closing(sqlite3.connect(after / "registry.sqlite")) as tables:
        tables.execute("DROP TRIGGER audit_no_update")
        tables.execute("UPDATE audit SET principal = 'eve' WHERE number = 1")
        tables.commit()
    code, printed = await verdict(after, secret)
    assert code == 1
    assert "the chain is NOT whole: event 1 does not follow" in printed


@pytest.mark.timeout(60)
async def test_the_authority_that_clients_trust_is_said_to_be_missing(backed_up, tmp_path):
    server, before = backed_up
    after = tmp_path / "after"
    code, printed = await restored(server, after, "--audit-key", before / "audit.key")
    assert (code, str(after / "pki") in printed.replace("\n", " ")) == (0, True)
    backup, authority = ("backup", tmp_path / "next", "--data", after), "authority that clients"
    code, printed, _ = await command(server, *backup)
    assert (code, authority in printed) == (0, False)
    pki.init(after / "pki", [], CLOCK.now_ns())
    code, printed, _ = await command(server, "backup", tmp_path / "third", "--data", after)
    assert (code, authority in printed, str(after / "pki") in printed) == (0, True, True)


@pytest.mark.timeout(60)
async def test_a_key_of_another_server_is_refused_before_anything_is_restored(backed_up, tmp_path):
    server, _ = backed_up
    key, after = tmp_path / "other.key", tmp_path / "after"
    wrong = {"08" * 32: "is not the key of this backup", "x": "the audit's key is not one"}
    for text, words in wrong.items():
        key.write_text(text)
        code, printed = await restored(server, after, "--audit-key", key)
        assert (code, words in printed) == (2, True)
        assert not after.exists()


def rights_of(folder, manifest):
    return {
        str(right.name): right.what
        for right in backup_rights.rights_in(folder, manifest, CLOCK.now_ns())
    }


async def test_every_right_that_a_backup_gives_again_is_listed(written_backup):
    folder, manifest, _ = written_backup
    rights = rights_of(folder, manifest)
    assert rights["machine:detector"] == "reads 1, of factory"
    assert rights["token:2"] == "for the report, auditor, owner, of fay"  # the first has ended
    assert rights["listing:1"] == "factory/pump-rig is seen by everybody"
    assert rights["grant:1"] == f"firm reads {RIG} in live"
    assert rights["runner:site-1"] == "runs deployments, of factory"
    assert rights["runner-code:1"] == "enrols runner site-1"
    assert len(rights) == 6


async def test_nothing_is_restored_before_its_rights_are_approved(written_backup, tmp_path):
    folder, _, _ = written_backup
    after = ServerSettings(folder=tmp_path / "after")
    seen = []

    def refuse(rights):
        seen.extend(rights)
        raise Refused("no")

    ended = {RightName.parse("token:2")}
    options = server_backup.RestoreOptions(ended=ended)
    with pytest.raises(Refused, match="no"):
        await server_backup.restore(folder, after, CLOCK, options, refuse)
    assert not after.folder.exists()
    assert [str(right.name) for right in seen] == [
        *("machine:detector", "runner:site-1", "runner-code:1", "listing:1", "grant:1"),
    ]
    with pytest.raises(Unknown, match="the backup gives no right grant:7"):
        await restore(folder, after, ended={RightName.parse("grant:7")})
    assert not after.folder.exists()


async def test_a_right_that_is_ended_at_a_restore_never_holds(written_backup, tmp_path):
    folder, _, _ = written_backup
    after = ServerSettings(folder=tmp_path / "after")
    names = ("machine:detector", "token:2", "listing:1", "grant:1", "runner:site-1")
    await restore(folder, after, ended={RightName.parse(name) for name in names})
    async with persistence.open_exclusive(after) as opened:
        now_ns = CLOCK.now_ns()
        assert await opened.registry.principals.find("detector", now_ns) is None
        assert await opened.registry.tokens.valid("fay", now_ns) == []
        assert await opened.registry.principals.find("site-1", now_ns) is None
        assert await opened.registry.runners.all() == []
        assert await opened.registry.listings.find(RIG.owner, now_ns) is None
        grant = await opened.registry.grants.get(1)
        assert (grant.state, grant.grant.span.covers(now_ns)) == (GrantState.REVOKED, False)
        *_, last = await opened.registry.audit.events(EventFilter(), 0, 100)
        assert json.loads(last.event.details)["ended"] == sorted(names)


@pytest.fixture
async def former(written_backup, tmp_path):  # noqa: ARG001 - it is made first
    """The server that was backed up, after which rights and samples were taken away."""
    settings = ServerSettings(folder=tmp_path / "before")
    async with persistence.open_exclusive(settings) as opened:
        now_ns = CLOCK.now_ns()
        await opened.registry.tokens.revoke("fay", 2, by="ada", now_ns=now_ns)
        detector = await opened.registry.principals.find("detector", now_ns)
        await opened.registry.principals.end(detector, by="ada", now_ns=now_ns)
        await opened.registry.passwords.set("fay", "another", now_ns)
        await opened.registry.pauses.add(Pause("factory", None, None, Span(now_ns)), by="ada")
        event = Event(now_ns, "manage", "fay", AuditOutcome.ALLOWED, "ada", "testbed")
        await opened.registry.audit.append([event])
        await opened.registry.audit.sign_head(HeadSigner.from_seed("5" * 64), now_ns)
        keeper = RetentionEnforcer(opened.store, opened.deletions, CLOCK)
        await keeper.delete(StoredSpan("run-1", RIG, 1, 2), by="ada", why="it was asked for")
    return settings.folder


@pytest.mark.parametrize("settings_for", ["duckdb", "postgresql"], indirect=True)
async def test_the_registry_of_a_former_server_outlives_the_restore(
    written_backup, former, settings_for
):
    folder, _, _ = written_backup
    after = settings_for("after")
    _, restored = await restore(folder, after, former=former)
    assert restored.events_after == 1
    async with persistence.open_exclusive(after) as opened:
        now_ns = CLOCK.now_ns()
        assert await opened.registry.tokens.valid("fay", now_ns) == []
        assert await opened.registry.principals.find("detector", now_ns) is None
        assert await opened.registry.passwords.find("fay") == "another"
        assert len(await opened.registry.pauses.of_owners(["factory"], now_ns)) == 2
        links = await opened.registry.audit.events(EventFilter(), 0, 100)
        heads = [head for _, head in await opened.registry.audit.heads(0, 100)]
        key = HeadSigner.from_seed("5" * 64).key
        assert audit.verify(links, heads, [key]) is None
        assert [link.event.action for link in links] == ["connect", "manage", "restore"]
        (again,) = await opened.deletions.unfinished()
        assert (again.span.from_ns, again.why) == (1, "it was asked for")
        keeper = RetentionEnforcer(opened.store, opened.deletions, CLOCK)
        await keeper.resume()
        assert await opened.deletions.unfinished() == []
        assert await opened.store.extent("run-1", RIG) is None


async def test_a_registry_that_is_no_later_one_is_refused(written_backup, tmp_path):
    folder, _, _ = written_backup
    after = ServerSettings(folder=tmp_path / "after")
    other = ServerSettings(folder=tmp_path / "other")
    async with persistence.open_exclusive(other):
        with pytest.raises(Taken, match="a server is running"):
            await restore(folder, after, former=other.folder)
    with pytest.raises(Refused, match="is no later state of the backup's"):
        await restore(folder, after, former=other.folder)
    (other.folder / "registry.sqlite").write_bytes(b"no database, but long enough to be looked at")
    with pytest.raises(Refused, match="cannot be read"):
        await restore(folder, after, former=other.folder)
    with pytest.raises(Unknown, match="there is no registry"):
        await restore(folder, after, former=tmp_path)
    assert not after.folder.exists()


@pytest.mark.timeout(60)
async def test_a_restore_without_a_word_about_rights_restores_nothing(backed_up, tmp_path):
    server, _ = backed_up
    after, backup = tmp_path / "after", tmp_path / "backup"
    code, printed, error = await command(server, "restore", backup, "--data", after)
    assert (code, printed, after.exists()) == (2, "", False)
    assert "person:factory-owner  owner, of factory" in error
    assert "not confirmed: do these rights hold again?" in error
    words = ("--end", "person:factory-owner", "--confirm-rights")
    code, _, error = await command(server, "restore", backup, "--data", after, *words)
    assert (code, "person:factory-owner" in error) == (0, False)


@pytest.mark.timeout(120)
async def test_a_restore_is_told_from_tampering(backed_up, tmp_path):
    server, before = backed_up
    secret, after, anchors = server.administrator, tmp_path / "after", tmp_path / "anchors.jsonl"
    async with founded(f"http://{server.api}", secret, ["later"]):
        with contextlib.closing(sqlite3.connect(before / "registry.sqlite")) as tables:
            newest = "SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1"
            number, hash_ = tables.execute(newest).fetchone()
    signer = HeadSigner.from_seed((before / "audit.key").read_text())
    anchors.write_bytes(audit_head.encode(signer.sign(number, hash_, CLOCK.now_ns())))
    code, printed = await restored(server, after, "--audit-key", before / "audit.key")
    assert code == 0
    code, printed = await verdict(after, secret, "--anchor", anchors)
    assert code == 1
    assert "is the restore of backup" in printed
    assert "if nobody restored then, the chain was cut" in printed
    sha256 = printed.partition("--restore ")[2].partition(";")[0]
    code, printed = await verdict(after, secret, "--anchor", anchors, "--restore", sha256)
    assert (code, "are gone with it, as a signed head shows" in printed) == (0, True)
