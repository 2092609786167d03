"""All tables of registry and ledger, their indexes, and what closes the audit chain."""

import sqlalchemy as sa
from alembic import op

from testbed_api.registry.migrations import ledger_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.String(40)
STREAM = sa.String(122)
DIGEST = sa.String(100)
SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")
CHAINED = ("audit", "anchors")
REFUSAL = "the audit is only ever added to"
RIGHTS = {
    **dict.fromkeys(("principals", "grants", "pauses", "listings", "stream_specs"), ""),
    "tokens": " OF secret_hash, verifier, roles, from_ns, until_ns, ended_ns",  # not the last use
}
"""Tables of the rights, each with the columns of its updates that count; empty for all."""
NEXT_VERSION = (
    "INSERT INTO rights_version (id, number) VALUES (1, 1)"
    " ON CONFLICT (id) DO UPDATE SET number = rights_version.number + 1"
)


def upgrade() -> None:
    """Make the tables of the schema that is migrated: the registry's, or the ledger's."""
    if op.get_context().version_table_schema == ledger_tables.RECORDER:
        ledger_tables.make()
    else:
        _make_equipment()
        _make_principals()
        _make_tokens()
        _make_listings()
        _make_grants()
        _make_enrolments()
        _make_notices()
        _make_sessions()
        _make_audit()
        _make_request_keys()
        _make_retention()
        _make_runs()
        _make_recordings()
        _make_run_images()
        _make_runners()
        _make_images()
        _make_secrets()
        _make_deployments()
        _make_rights_version()


def _serial() -> sa.Column[int]:
    return sa.Column("id", SERIAL, primary_key=True)


def _ids(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, ID, nullable=False) for name in names]


def _spanned() -> list[sa.Column[object]]:
    return [
        sa.Column("from_ns", sa.BigInteger, nullable=False),
        sa.Column("until_ns", sa.BigInteger),
        sa.Column("made_by", ID),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("ended_by", ID),
    ]


def _make_equipment() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False, server_default="partner"),
    )
    op.create_table(
        "equipment",
        sa.Column("organisation", ID, sa.ForeignKey("organisations.id"), primary_key=True),
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("description", sa.String(400), nullable=False),
    )
    op.create_table(
        "stream_specs",
        sa.Column("organisation", ID, primary_key=True),
        sa.Column("equipment", ID, primary_key=True),
        sa.Column("stream", ID, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation", "equipment"], ["equipment.organisation", "equipment.id"]
        ),
    )


def _make_principals() -> None:
    op.create_table(
        "principals",
        _serial(),
        sa.Column("principal", ID, nullable=False),
        sa.Column("organisation", ID, sa.ForeignKey("organisations.id"), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("roles", sa.String(200), nullable=False),
        sa.Column("entries", sa.Text, nullable=False),
        sa.Column("equipment", ID),
        *_spanned(),
    )
    op.create_index("ix_principals_principal", "principals", ["principal"])
    op.create_index("ix_principals_organisation", "principals", ["organisation"])


def _make_tokens() -> None:
    op.create_table(
        "tokens",
        _serial(),
        sa.Column("principal", ID, nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("last_used_ns", sa.BigInteger),
        *_spanned(),
        sa.Column("verifier", sa.String(200), nullable=False, server_default=""),
        sa.Column("roles", sa.String(200)),
    )
    op.create_index("ix_tokens_principal", "tokens", ["principal"])
    op.create_table(
        "passwords",
        sa.Column("person", ID, primary_key=True),
        sa.Column("hash", sa.String(200), nullable=False),
        sa.Column("set_ns", sa.BigInteger, nullable=False),
    )


def _make_notices() -> None:
    op.create_table(
        "emails",
        sa.Column("person", ID, primary_key=True),
        sa.Column("email", sa.String(254), nullable=False),
    )
    op.create_table(
        "notices",
        _serial(),
        sa.Column("channel", sa.String(20), nullable=False),
        *_ids("organisation", "person"),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("queued_ns", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_ns", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(300), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notices_next_ns", "notices", ["next_ns"])


def _make_listings() -> None:
    op.create_table(
        "listings",
        _serial(),
        *_ids("organisation", "equipment"),
        sa.Column("organisations", sa.Text),
        *_spanned(),
        sa.Column("terms", sa.Text, nullable=False, server_default=""),
        sa.Column("sample", sa.Text),
    )
    op.create_index("ix_listings_organisation_equipment", "listings", ["organisation", "equipment"])
    op.create_table(
        "pauses",
        _serial(),
        *_ids("owner"),
        sa.Column("company", ID),
        sa.Column("equipment", ID),
        *_spanned(),
    )
    op.create_index("ix_pauses_owner", "pauses", ["owner"])


def _make_grants() -> None:
    op.create_table(
        "grants",
        _serial(),
        sa.Column("company", ID, sa.ForeignKey("organisations.id"), nullable=False),
        *_ids("space", "owner", "equipment", "stream"),
        sa.Column("purpose", sa.String(400), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("asked_ns", sa.BigInteger, nullable=False),
        sa.Column("asked_by", ID),
        sa.Column("from_ns", sa.BigInteger),
        sa.Column("until_ns", sa.BigInteger),
        sa.Column("decided_ns", sa.BigInteger),
        sa.Column("decided_by", ID),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("ended_by", ID),
        sa.Column("wanted_from_ns", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("wanted_until_ns", sa.BigInteger),
        sa.Column("reason", sa.String(400), nullable=False, server_default=""),
    )
    op.create_index("ix_grants_company", "grants", ["company"])
    op.create_index("ix_grants_owner_equipment", "grants", ["owner", "equipment"])


def _make_enrolments() -> None:
    op.create_table(
        "enrolments",
        _serial(),
        *_ids("organisation", "equipment"),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("public_key", sa.LargeBinary),
        sa.Column("principal", ID),
        sa.Column("used_ns", sa.BigInteger),
        *_spanned(),
    )
    op.create_index("ix_enrolments_code_hash", "enrolments", ["code_hash"])


def _make_sessions() -> None:
    op.create_table(
        "sessions",
        _serial(),
        sa.Column("principal", ID, nullable=False),
        sa.Column("connection", sa.String(100), nullable=False),
        sa.Column("client_id", sa.String(100), nullable=False),
        sa.Column("from_ns", sa.BigInteger, nullable=False),
        sa.Column("until_ns", sa.BigInteger),
        sa.Column("ended_how", sa.String(100)),
    )
    op.create_index("ix_sessions_connection", "sessions", ["connection"])
    op.create_index("ix_sessions_until_ns", "sessions", ["until_ns"])
    op.create_table(
        "session_streams",
        sa.Column("session", SERIAL, sa.ForeignKey("sessions.id"), primary_key=True),
        sa.Column("space", ID, primary_key=True),
        sa.Column("stream", STREAM, primary_key=True),
        sa.Column("batches_before", sa.BigInteger, nullable=False),
        sa.Column("batches_after", sa.BigInteger),
    )
    op.create_index("ix_session_streams_stream", "session_streams", ["stream"])
    op.create_table(
        "reads",
        sa.Column("stream", STREAM, primary_key=True),
        sa.Column("space", ID, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True),
        sa.Column("principal", ID, primary_key=True),
        sa.Column("way", sa.String(20), primary_key=True),
        sa.Column("times", sa.BigInteger, nullable=False),
        sa.Column("last_ns", sa.BigInteger, nullable=False),
    )


def _make_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time_ns", sa.BigInteger, nullable=False),
        sa.Column("principal", sa.String(60)),
        sa.Column("organisation", ID),
        sa.Column("owner", sa.String(60)),
        sa.Column("action", sa.String(60), nullable=False),
        sa.Column("target", sa.String(300), nullable=False),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("reason", sa.String(300), nullable=False),
        sa.Column("request", sa.String(300), nullable=False),
        sa.Column("source", sa.String(60), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    for name in ("time_ns", "principal", "organisation", "owner"):
        op.create_index(f"ix_audit_{name}", "audit", [name])
    op.create_table(
        "anchors",
        _serial(),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("time_ns", sa.BigInteger, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(128), nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        _close_sqlite()
    else:
        _close_postgresql()


def _make_request_keys() -> None:
    op.create_table(
        "request_keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("request", sa.String(40), nullable=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("sealed", sa.LargeBinary),
    )
    op.create_index("ix_request_keys_at_ns", "request_keys", ["at_ns"])


def _close_sqlite() -> None:
    for table in CHAINED:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
            )


def _close_postgresql() -> None:
    op.execute(
        "CREATE OR REPLACE FUNCTION only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for table in CHAINED:
        op.execute(
            f"CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION only_added_to()"
        )


def _make_retention() -> None:
    op.create_table(
        "retentions",
        sa.Column("stream", STREAM, primary_key=True),
        sa.Column("keep_s", sa.BigInteger, nullable=False),
    )


def _make_recordings() -> None:
    op.create_table(
        "recordings",
        _serial(),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("note", sa.String(400), nullable=False),
        *_ids("organisation", "made_by", "maker", "space"),
        sa.Column("from_ns", sa.BigInteger, nullable=False),
        sa.Column("to_ns", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(400), nullable=False),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
        sa.Column("done_ns", sa.BigInteger),
        sa.Column("sha256", sa.String(64)),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("deleted_ns", sa.BigInteger),
        sa.Column("deleted_by", ID),
    )
    op.create_index("ix_recordings_organisation", "recordings", ["organisation"])
    op.create_index("ix_recordings_state", "recordings", ["state"])
    op.create_table(
        "recording_streams",
        sa.Column("recording", SERIAL, sa.ForeignKey("recordings.id"), primary_key=True),
        sa.Column("stream", STREAM, primary_key=True),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("grants", sa.Text, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("samples", sa.BigInteger, nullable=False),
        sa.Column("first_ns", sa.BigInteger),
        sa.Column("last_ns", sa.BigInteger),
    )
    op.create_index("ix_recording_streams_stream", "recording_streams", ["stream"])


def _make_runs() -> None:
    op.create_table(
        "runs",
        _serial(),
        sa.Column("organisation", ID, sa.ForeignKey("organisations.id"), nullable=False),
        sa.Column("scenario", sa.String(400), nullable=False),
        sa.Column("label", sa.String(400), nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("began_ns", sa.BigInteger, nullable=False),
        sa.Column("ended_ns", sa.BigInteger, nullable=False),
        sa.Column("handed_ns", sa.BigInteger, nullable=False),
        sa.Column("handed_by", ID, nullable=False),
        sa.Column("scenario_sha256", sa.String(64), nullable=False),
        sa.Column("samples_sha256", sa.String(64), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("report_sha256", sa.String(64)),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("report", sa.LargeBinary),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_runs_organisation_sha256", "runs", ["organisation", "sha256"])


def _make_run_images() -> None:
    op.create_table(
        "run_images",
        sa.Column("run", SERIAL, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("digest", DIGEST, primary_key=True),
    )
    op.create_index("ix_run_images_digest", "run_images", ["digest"])


def _make_runners() -> None:
    op.create_table(
        "runners",
        sa.Column("id", ID, primary_key=True),
        sa.Column("organisation", ID, sa.ForeignKey("organisations.id"), nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("opens_to", sa.Text),
        sa.Column("made_ns", sa.BigInteger, nullable=False),
        *_ids("made_by"),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("ended_by", ID),
        sa.Column("seen_ns", sa.BigInteger),
        sa.Column("product", sa.String(20)),
        sa.Column("version", sa.String(100), nullable=False, server_default=""),
        sa.Column("architecture", sa.String(40)),
        sa.Column("takes_work", sa.Boolean, nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("cpu", sa.Double),
        sa.Column("memory_bytes", sa.BigInteger),
        sa.Column("images", sa.Text, nullable=False, server_default="[]"),
    )
    op.create_table(
        "runner_codes",
        _serial(),
        sa.Column("runner", ID, sa.ForeignKey("runners.id"), nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("public_key", sa.LargeBinary),
        sa.Column("used_ns", sa.BigInteger),
        *_spanned(),
    )
    op.create_index("ix_runner_codes_runner", "runner_codes", ["runner"])
    op.create_index("ix_runner_codes_code_hash", "runner_codes", ["code_hash"])


def _make_images() -> None:
    op.create_table(
        "images",
        sa.Column("organisation", ID, sa.ForeignKey("organisations.id"), primary_key=True),
        sa.Column("digest", DIGEST, primary_key=True),
        sa.Column("name", sa.String(400), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("reference", sa.String(500), nullable=False),
        sa.Column("architecture", sa.String(40), nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("pushed_ns", sa.BigInteger, nullable=False),
        *_ids("pushed_by"),
        sa.Column("used_ns", sa.BigInteger),
    )


def _make_secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("organisation", ID, sa.ForeignKey("organisations.id"), primary_key=True),
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("set_ns", sa.BigInteger, nullable=False),
        *_ids("set_by"),
    )


def _make_deployments() -> None:
    op.create_table(
        "deployments",
        _serial(),
        sa.Column("organisation", ID, sa.ForeignKey("organisations.id"), nullable=False),
        *_ids("prototype"),
        sa.Column("stage", sa.String(20), nullable=False),
        *_ids("space"),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("outputs", sa.Text, nullable=False),
        sa.Column("cpu", sa.Double, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("log_bytes", sa.BigInteger, nullable=False),
        sa.Column("image", sa.String(500), nullable=False),
        sa.Column("image_kind", sa.String(20), nullable=False),
        sa.Column("digest", DIGEST, nullable=False),
        sa.Column("reference", sa.String(500), nullable=False),
        sa.Column("architecture", sa.String(40), nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        *_ids("principal"),
        sa.Column("source_principal", ID),
        sa.Column("runner", ID, sa.ForeignKey("runners.id")),
        sa.Column("wanted", sa.String(20), nullable=False),
        sa.Column("cause", sa.String(20)),
        sa.Column("wanted_reason", sa.String(1000), nullable=False),
        *_states_of_a_deployment(),
        sa.Column("deployed_ns", sa.BigInteger, nullable=False),
        *_ids("deployed_by"),
        sa.Column("promoted_from", sa.BigInteger),
        sa.Column("replaces", sa.BigInteger),
        sa.Column("ended_ns", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    for columns in (["organisation", "prototype", "stage"], ["digest"], ["runner"], ["state"]):
        op.create_index(f"ix_deployments_{'_'.join(columns)}", "deployments", columns)
    _make_deployment_events()


def _states_of_a_deployment() -> list[sa.Column[object]]:
    """The columns of what its runner said of it last."""
    return [
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("since_ns", sa.BigInteger, nullable=False),
        sa.Column("restarts", sa.Integer, nullable=False),
        sa.Column("last_end", sa.Text),
        sa.Column("metrics", sa.Text),
        sa.Column("last_event", sa.BigInteger, nullable=False),
        sa.Column("last_line", sa.BigInteger, nullable=False),
    ]


def _make_deployment_events() -> None:
    op.create_table(
        "deployment_events",
        sa.Column("deployment", SERIAL, sa.ForeignKey("deployments.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("end", sa.Text),
    )
    op.create_table(
        "log_chunks",
        sa.Column("deployment", SERIAL, sa.ForeignKey("deployments.id"), primary_key=True),
        sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("lines", sa.LargeBinary, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )


def _make_rights_version() -> None:
    """Make the number that each change of rights raises, whoever makes it."""
    op.create_table(
        "rights_version",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    if op.get_bind().dialect.name == "sqlite":
        _count_on_sqlite()
    else:
        _count_on_postgresql()


def _count_on_sqlite() -> None:
    for table, columns in RIGHTS.items():
        for verb in ("INSERT", f"UPDATE{columns}", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_{verb.split()[0].lower()}_counts AFTER {verb} ON {table}"
                f" BEGIN {NEXT_VERSION}; END"
            )


def _count_on_postgresql() -> None:
    op.execute(
        "CREATE OR REPLACE FUNCTION count_rights() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" {NEXT_VERSION}; RETURN NULL; END $$"
    )
    for table, columns in RIGHTS.items():
        op.execute(
            f"CREATE TRIGGER {table}_count AFTER INSERT OR UPDATE{columns} OR DELETE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION count_rights()"
        )
