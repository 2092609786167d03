"""Terms and samples of listings, what was asked for, enrolments, and who read what."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.String(40)
STREAM = sa.String(122)
SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the columns and make the tables."""
    terms = sa.Column("terms", sa.Text, nullable=False, server_default="")
    op.add_column("listings", terms)
    op.add_column("listings", sa.Column("sample", sa.Text))
    wanted = sa.Column("wanted_from_ns", sa.BigInteger, nullable=False, server_default="0")
    op.add_column("grants", wanted)
    op.add_column("grants", sa.Column("wanted_until_ns", sa.BigInteger))
    reason = sa.Column("reason", sa.String(400), nullable=False, server_default="")
    op.add_column("grants", reason)
    _make_enrolments()
    _make_sessions()
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


def _make_enrolments() -> None:
    op.create_table(
        "enrolments",
        sa.Column("id", SERIAL, primary_key=True),
        sa.Column("organisation", ID, nullable=False),
        sa.Column("equipment", ID, nullable=False),
        sa.Column("code_hash", sa.String(64), nullable=False),
        sa.Column("public_key", sa.LargeBinary),
        sa.Column("principal", ID),
        sa.Column("used_ns", sa.BigInteger),
        sa.Column("from_ns", sa.BigInteger, nullable=False),
        sa.Column("until_ns", sa.BigInteger),
        sa.Column("made_by", ID),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("ended_by", ID),
    )
    op.create_index("ix_enrolments_code_hash", "enrolments", ["code_hash"])


def _make_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", SERIAL, primary_key=True),
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
