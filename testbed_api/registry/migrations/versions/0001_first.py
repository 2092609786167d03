"""The registry and the recorder's tables, as they began."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

RECORDER = "recorder"
ID = sa.String(40)
STREAM = sa.String(122)


def _serial() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


def _of_a_stream() -> list[sa.Column[str]]:
    return [
        sa.Column("space", ID, nullable=False),
        sa.Column("stream", STREAM, nullable=False),
    ]


def upgrade() -> None:
    """Make all tables."""
    _make_registry()
    _make_what_is_held()
    _make_what_is_missing()
    _make_what_waits()


def _make_registry() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
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
    op.create_table(
        "principals",
        sa.Column("id", ID, primary_key=True),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("entries", sa.Text, nullable=False),
        sa.Column("expires_ns", sa.BigInteger),
        sa.Column("created_ns", sa.BigInteger, nullable=False),
    )


def _make_what_is_held() -> None:
    op.create_table(
        "specs",
        sa.Column("space", ID, primary_key=True),
        sa.Column("stream", STREAM, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("received_ns", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )
    op.create_table(
        "ranges",
        sa.Column("space", ID, primary_key=True),
        sa.Column("stream", STREAM, primary_key=True),
        sa.Column("epoch", ID, primary_key=True),
        sa.Column("first", sa.BigInteger, primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )


def _make_what_is_missing() -> None:
    op.create_table(
        "gaps",
        _serial(),
        *_of_a_stream(),
        sa.Column("signals", sa.Text, nullable=False),
        sa.Column("from_ns", sa.BigInteger, nullable=False),
        sa.Column("to_ns", sa.BigInteger, nullable=False),
        sa.Column("cause", ID, nullable=False),
        sa.Column("epoch", ID),
        sa.Column("seq", sa.BigInteger),
        schema=RECORDER,
    )
    op.create_index(
        "ix_gaps_space_stream_from_ns", "gaps", ["space", "stream", "from_ns"], schema=RECORDER
    )
    op.create_table(
        "dead_letters",
        _serial(),
        *_of_a_stream(),
        sa.Column("epoch", ID),
        sa.Column("seq", sa.BigInteger),
        sa.Column("signal", sa.String(80)),
        sa.Column("time_ns", sa.BigInteger),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("received_ns", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )
    op.create_index(
        "ix_dead_letters_space_stream_id",
        "dead_letters",
        ["space", "stream", "id"],
        schema=RECORDER,
    )


def _make_what_waits() -> None:
    op.create_table(
        "set_aside",
        _serial(),
        sa.Column("topic", sa.String(200), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("received_ns", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )
    op.create_index("ix_set_aside_topic", "set_aside", ["topic"], schema=RECORDER)
