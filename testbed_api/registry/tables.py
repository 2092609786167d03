"""All tables: the registry's, and those of the recorder in a schema of their own."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

RECORDER = "recorder"

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)
_ID = String(40)
_STREAM = String(122)
_DIGEST = String(100)
_SERIAL = BigInteger().with_variant(Integer, "sqlite")


def _spanned() -> list[Column[Any]]:
    """The columns of a span: its planned begin and end, and when and by whom it was ended early."""
    return [
        Column("from_ns", BigInteger, nullable=False),
        Column("until_ns", BigInteger),
        Column("made_by", _ID),
        Column("ended_ns", BigInteger),
        Column("ended_by", _ID),
    ]


organisations = Table(
    "organisations",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("kind", String(20), nullable=False, server_default="partner"),
)
equipment = Table(
    "equipment",
    metadata,
    Column("organisation", _ID, ForeignKey("organisations.id"), primary_key=True),
    Column("id", _ID, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("kind", String(10), nullable=False),
    Column("site", Text, nullable=False),
    Column("description", String(400), nullable=False),
)
stream_specs = Table(
    "stream_specs",
    metadata,
    Column("organisation", _ID, primary_key=True),
    Column("equipment", _ID, primary_key=True),
    Column("stream", _ID, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("document", Text, nullable=False),
    ForeignKeyConstraint(["organisation", "equipment"], ["equipment.organisation", "equipment.id"]),
)
principals = Table(
    "principals",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("principal", _ID, nullable=False, index=True),
    Column("organisation", _ID, ForeignKey("organisations.id"), nullable=False, index=True),
    Column("kind", String(20), nullable=False),
    Column("roles", String(200), nullable=False),
    Column("entries", Text, nullable=False),
    Column("equipment", _ID),
    *_spanned(),
)
tokens = Table(
    "tokens",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("principal", _ID, nullable=False, index=True),
    Column("secret_hash", String(64), nullable=False),
    Column("verifier", String(200), nullable=False),
    Column("label", String(200), nullable=False),
    Column("last_used_ns", BigInteger),
    *_spanned(),
    Column("roles", String(200)),
)
passwords = Table(
    "passwords",
    metadata,
    Column("person", _ID, primary_key=True),
    Column("hash", String(200), nullable=False),
    Column("set_ns", BigInteger, nullable=False),
)
emails = Table(
    "emails",
    metadata,
    Column("person", _ID, primary_key=True),
    Column("email", String(254), nullable=False),
)
notices = Table(
    "notices",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("channel", String(20), nullable=False),
    Column("organisation", _ID, nullable=False),
    Column("person", _ID, nullable=False),
    Column("content", Text, nullable=False),
    Column("queued_ns", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_ns", BigInteger, nullable=False, index=True),
    Column("reason", String(300), nullable=False),
    sqlite_autoincrement=True,  # listeners know a notice by its id, after its row is gone
)
listings = Table(
    "listings",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("organisation", _ID, nullable=False),
    Column("equipment", _ID, nullable=False),
    Column("organisations", Text),
    Column("terms", Text, nullable=False, server_default=""),
    Column("sample", Text),
    *_spanned(),
    Index(None, "organisation", "equipment"),
)
grants = Table(
    "grants",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("company", _ID, ForeignKey("organisations.id"), nullable=False, index=True),
    Column("space", _ID, nullable=False),
    Column("owner", _ID, nullable=False),
    Column("equipment", _ID, nullable=False),
    Column("stream", _ID, nullable=False),
    Column("purpose", String(400), nullable=False),
    Column("state", String(20), nullable=False),
    Column("asked_ns", BigInteger, nullable=False),
    Column("asked_by", _ID),
    Column("from_ns", BigInteger),
    Column("until_ns", BigInteger),
    Column("decided_ns", BigInteger),
    Column("decided_by", _ID),
    Column("ended_ns", BigInteger),
    Column("ended_by", _ID),
    Column("wanted_from_ns", BigInteger, nullable=False, server_default="0"),
    Column("wanted_until_ns", BigInteger),
    Column("reason", String(400), nullable=False, server_default=""),
    Index(None, "owner", "equipment"),
)
pauses = Table(
    "pauses",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("owner", _ID, nullable=False, index=True),
    Column("company", _ID),
    Column("equipment", _ID),
    *_spanned(),
)
enrolments = Table(
    "enrolments",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("organisation", _ID, nullable=False),
    Column("equipment", _ID, nullable=False),
    Column("code_hash", String(64), nullable=False, index=True),
    Column("public_key", LargeBinary),
    Column("principal", _ID),
    Column("used_ns", BigInteger),
    *_spanned(),
)
audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("time_ns", BigInteger, nullable=False, index=True),
    Column("principal", String(60), index=True),
    Column("organisation", _ID, index=True),
    Column("owner", String(60), index=True),
    Column("action", String(60), nullable=False),
    Column("target", String(300), nullable=False),
    Column("outcome", String(10), nullable=False),
    Column("reason", String(300), nullable=False),
    Column("request", String(300), nullable=False),
    Column("source", String(60), nullable=False),
    Column("details", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)
anchors = Table(
    "anchors",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("events", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    Column("key", String(64), nullable=False),
    Column("signature", String(128), nullable=False),
)
request_keys = Table(
    "request_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("content", String(64), nullable=False),
    Column("request", String(40), nullable=False),
    Column("at_ns", BigInteger, nullable=False, index=True),
    Column("sealed", LargeBinary),
)
sessions = Table(
    "sessions",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("principal", _ID, nullable=False),
    Column("connection", String(100), nullable=False, index=True),
    Column("client_id", String(100), nullable=False),
    Column("from_ns", BigInteger, nullable=False),
    Column("until_ns", BigInteger, index=True),
    Column("ended_how", String(100)),
)
session_streams = Table(
    "session_streams",
    metadata,
    Column("session", _SERIAL, ForeignKey("sessions.id"), primary_key=True),
    Column("space", _ID, primary_key=True),
    Column("stream", _STREAM, primary_key=True, index=True),
    Column("batches_before", BigInteger, nullable=False),
    Column("batches_after", BigInteger),
)
reads = Table(
    "reads",
    metadata,
    Column("stream", _STREAM, primary_key=True),
    Column("space", _ID, primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("principal", _ID, primary_key=True),
    Column("way", String(20), primary_key=True),
    Column("times", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
)
retentions = Table(
    "retentions",
    metadata,
    Column("stream", _STREAM, primary_key=True),
    Column("keep_s", BigInteger, nullable=False),
)
runs = Table(
    "runs",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("organisation", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("scenario", String(400), nullable=False),
    Column("label", String(400), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("passed", Boolean, nullable=False),
    Column("began_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger, nullable=False),
    Column("handed_ns", BigInteger, nullable=False),
    Column("handed_by", _ID, nullable=False),
    Column("scenario_sha256", String(64), nullable=False),
    Column("samples_sha256", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("report_sha256", String(64)),
    Column("record", LargeBinary, nullable=False),
    Column("report", LargeBinary),
    Column("bytes", BigInteger, nullable=False),
    Index(None, "organisation", "sha256"),
    sqlite_autoincrement=True,  # a number that was named stands for no other run
)
recordings = Table(
    "recordings",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("note", String(400), nullable=False),
    Column("organisation", _ID, nullable=False, index=True),
    Column("made_by", _ID, nullable=False),
    Column("maker", _ID, nullable=False),
    Column("space", _ID, nullable=False),
    Column("from_ns", BigInteger, nullable=False),
    Column("to_ns", BigInteger, nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("reason", String(400), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("done_ns", BigInteger),
    Column("sha256", String(64)),
    Column("size_bytes", BigInteger, nullable=False),
    Column("deleted_ns", BigInteger),
    Column("deleted_by", _ID),
)
run_images = Table(
    "run_images",
    metadata,
    Column("run", _SERIAL, ForeignKey("runs.id"), primary_key=True),
    Column("digest", _DIGEST, primary_key=True, index=True),
)
recording_streams = Table(
    "recording_streams",
    metadata,
    Column("recording", _SERIAL, ForeignKey("recordings.id"), primary_key=True),
    Column("stream", _STREAM, primary_key=True, index=True),
    Column("place", Integer, nullable=False),
    Column("grants", Text, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("samples", BigInteger, nullable=False),
    Column("first_ns", BigInteger),
    Column("last_ns", BigInteger),
)
runners = Table(
    "runners",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("organisation", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("labels", Text, nullable=False),
    Column("opens_to", Text),
    Column("made_ns", BigInteger, nullable=False),
    Column("made_by", _ID, nullable=False),
    Column("ended_ns", BigInteger),
    Column("ended_by", _ID),
    Column("seen_ns", BigInteger),
    Column("product", String(20)),
    Column("version", String(100), nullable=False, server_default=""),
    Column("architecture", String(40)),
    Column("takes_work", Boolean, nullable=False),
    Column("reason", String(1000), nullable=False),
    Column("cpu", Double),
    Column("memory_bytes", BigInteger),
    Column("images", Text, nullable=False, server_default="[]"),
)
runner_codes = Table(
    "runner_codes",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("runner", _ID, ForeignKey("runners.id"), nullable=False, index=True),
    Column("code_hash", String(64), nullable=False, index=True),
    Column("public_key", LargeBinary),
    Column("used_ns", BigInteger),
    *_spanned(),
)
images = Table(
    "images",
    metadata,
    Column("organisation", _ID, ForeignKey("organisations.id"), primary_key=True),
    Column("digest", _DIGEST, primary_key=True),
    Column("name", String(400), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("reference", String(500), nullable=False),
    Column("architecture", String(40), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("pushed_ns", BigInteger, nullable=False),
    Column("pushed_by", _ID, nullable=False),
    Column("used_ns", BigInteger),
)
secrets = Table(
    "secrets",
    metadata,
    Column("organisation", _ID, ForeignKey("organisations.id"), primary_key=True),
    Column("name", String(100), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("set_ns", BigInteger, nullable=False),
    Column("set_by", _ID, nullable=False),
)
deployments = Table(
    "deployments",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("organisation", _ID, ForeignKey("organisations.id"), nullable=False),
    Column("prototype", _ID, nullable=False),
    Column("stage", String(20), nullable=False),
    Column("space", _ID, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("outputs", Text, nullable=False),
    Column("cpu", Double, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("log_bytes", BigInteger, nullable=False),
    Column("image", String(500), nullable=False),
    Column("image_kind", String(20), nullable=False),
    Column("digest", _DIGEST, nullable=False, index=True),
    Column("reference", String(500), nullable=False),
    Column("architecture", String(40), nullable=False),
    Column("labels", Text, nullable=False),
    Column("source", Text),
    Column("principal", _ID, nullable=False),
    Column("source_principal", _ID),
    Column("runner", _ID, ForeignKey("runners.id"), index=True),
    Column("wanted", String(20), nullable=False),
    Column("cause", String(20)),
    Column("wanted_reason", String(1000), nullable=False),
    Column("state", String(20), nullable=False, index=True),
    Column("reason", String(1000), nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    Column("restarts", Integer, nullable=False),
    Column("last_end", Text),
    Column("metrics", Text),
    Column("last_event", BigInteger, nullable=False),
    Column("last_line", BigInteger, nullable=False),
    Column("deployed_ns", BigInteger, nullable=False),
    Column("deployed_by", _ID, nullable=False),
    Column("promoted_from", BigInteger),
    Column("replaces", BigInteger),
    Column("ended_ns", BigInteger),
    Index(None, "organisation", "prototype", "stage"),
    sqlite_autoincrement=True,  # names of machines, spaces and containers rest on the number
)
deployment_events = Table(
    "deployment_events",
    metadata,
    Column("deployment", _SERIAL, ForeignKey("deployments.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", String(1000), nullable=False),
    Column("end", Text),
)
log_chunks = Table(
    "log_chunks",
    metadata,
    Column("deployment", _SERIAL, ForeignKey("deployments.id"), primary_key=True),
    Column("first", BigInteger, primary_key=True, autoincrement=False),
    Column("last", BigInteger, nullable=False),
    Column("lines", LargeBinary, nullable=False),
    Column("bytes", BigInteger, nullable=False),
)
rights_version = Table(
    "rights_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)

specs = Table(
    "specs",
    metadata,
    Column("space", _ID, primary_key=True),
    Column("stream", _STREAM, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("document", Text, nullable=False),
    Column("received_ns", BigInteger, nullable=False),
    schema=RECORDER,
)
ranges = Table(
    "ranges",
    metadata,
    Column("space", _ID, primary_key=True),
    Column("stream", _STREAM, primary_key=True),
    Column("epoch", _ID, primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("until_ns", BigInteger),
    Column("renewed_ns", BigInteger, nullable=False),
    schema=RECORDER,
)
gaps = Table(
    "gaps",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("space", _ID, nullable=False),
    Column("stream", _STREAM, nullable=False),
    Column("signals", Text, nullable=False),
    Column("from_ns", BigInteger, nullable=False),
    Column("to_ns", BigInteger, nullable=False),
    Column("cause", _ID, nullable=False),
    Column("epoch", _ID),
    Column("seq", BigInteger),
    Index(None, "space", "stream", "from_ns"),
    schema=RECORDER,
)
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("space", _ID, nullable=False),
    Column("stream", _STREAM, nullable=False),
    Column("epoch", _ID),
    Column("seq", BigInteger),
    Column("signal", String(80)),
    Column("time_ns", BigInteger),
    Column("value", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary),
    Column("received_ns", BigInteger, nullable=False),
    Index(None, "space", "stream", "id"),
    schema=RECORDER,
    sqlite_autoincrement=True,  # readers go on after the id that they had last
)
set_aside = Table(
    "set_aside",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("topic", String(200), nullable=False, index=True),
    Column("payload", LargeBinary, nullable=False),
    Column("received_ns", BigInteger, nullable=False),
    schema=RECORDER,
)
placements = Table(
    "placements",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("space", _ID, nullable=False),
    Column("stream", _STREAM, nullable=False),
    Column("epoch", _ID, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("samples", Text, nullable=False),
    Index(None, "space", "stream", "epoch", "seq"),
    schema=RECORDER,
)
deletions = Table(
    "deletions",
    metadata,
    Column("id", _SERIAL, primary_key=True),
    Column("space", _ID, nullable=False),
    Column("stream", _STREAM, nullable=False),
    Column("from_ns", BigInteger, nullable=False),
    Column("to_ns", BigInteger, nullable=False),
    Column("reason", _ID, nullable=False),
    Column("principal", _ID),
    Column("why", Text, nullable=False),
    Column("samples", BigInteger, nullable=False),
    Column("signals", Text, nullable=False),
    Column("first_ns", BigInteger),
    Column("last_ns", BigInteger),
    Column("sha256", String(64), nullable=False),
    Column("asked_ns", BigInteger, nullable=False),
    Column("gaps", Integer),
    Column("dead_letters", Integer),
    Column("done_ns", BigInteger),
    Index(None, "space", "stream", "id"),
    schema=RECORDER,
)
first_samples = Table(
    "first_samples",
    metadata,
    Column("space", _ID, primary_key=True),
    Column("stream", _STREAM, primary_key=True),
    Column("time_ns", BigInteger, nullable=False),
    schema=RECORDER,
)
unsearched = Table(
    "unsearched",
    metadata,
    Column("space", _ID, primary_key=True),
    Column("stream", _STREAM, primary_key=True),
    Column("from_ns", BigInteger),
    Column("to_ns", BigInteger, nullable=False),
    schema=RECORDER,
)
lineage = Table(
    "lineage",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("flushes", BigInteger, nullable=False),
    Column("lost_ns", BigInteger),
    schema=RECORDER,
)
positions = Table(
    "positions",
    metadata,
    Column("organisation", _ID, primary_key=True),
    Column("flush", BigInteger, nullable=False),
    Column("time_ns", BigInteger, nullable=False),
    schema=RECORDER,
)


def backed_up() -> Sequence[Table]:
    """All tables of a backup, parents first.

    It lacks the version of the rights, which is this database's own, and what tells which store a
    ledger belongs to: it fits any store.
    """
    own = (rights_version, lineage, positions)
    return [table for table in metadata.sorted_tables if table not in own]
