"""How long streams are kept, what was deleted of them, and what a restore could not bring back."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

RECORDER = "recorder"
ID = sa.String(40)
STREAM = sa.String(122)


def _serial() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "retentions",
        sa.Column("stream", STREAM, primary_key=True),
        sa.Column("keep_s", sa.BigInteger, nullable=False),
    )
    _make_deletions()
    op.create_table(
        "restores",
        _serial(),
        sa.Column("space", ID, nullable=False),
        sa.Column("stream", STREAM, nullable=False),
        sa.Column("from_ns", sa.BigInteger, nullable=False),
        sa.Column("to_ns", sa.BigInteger, nullable=False),
        sa.Column("taken_ns", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )


def _make_deletions() -> None:
    op.create_table(
        "deletions",
        _serial(),
        sa.Column("space", ID, nullable=False),
        sa.Column("stream", STREAM, nullable=False),
        sa.Column("from_ns", sa.BigInteger, nullable=False),
        sa.Column("to_ns", sa.BigInteger, nullable=False),
        sa.Column("reason", ID, nullable=False),
        sa.Column("principal", ID),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("samples", sa.BigInteger, nullable=False),
        sa.Column("signals", sa.Text, nullable=False),
        sa.Column("first_ns", sa.BigInteger),
        sa.Column("last_ns", sa.BigInteger),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("asked_ns", sa.BigInteger, nullable=False),
        sa.Column("gaps", sa.Integer),
        sa.Column("dead_letters", sa.Integer),
        sa.Column("done_ns", sa.BigInteger),
        schema=RECORDER,
    )
    op.create_index(
        "ix_deletions_space_stream_id", "deletions", ["space", "stream", "id"], schema=RECORDER
    )
