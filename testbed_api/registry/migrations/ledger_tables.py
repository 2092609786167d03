"""The tables of the ledger as the first migration makes them, in a schema of their own."""

import sqlalchemy as sa
from alembic import op

RECORDER = "recorder"
ID = sa.String(40)
STREAM = sa.String(122)
SERIAL = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def make() -> None:
    """Make all of them, with their indexes."""
    _make_ledger()
    _make_gaps()
    _make_dead_letters()
    _make_deletions()
    _make_pairing()


def _serial() -> sa.Column[int]:
    return sa.Column("id", SERIAL, primary_key=True)


def _of_a_stream() -> list[sa.Column[str]]:
    return [sa.Column("space", ID, nullable=False), sa.Column("stream", STREAM, nullable=False)]


def _make_ledger() -> None:
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
        sa.Column("until_ns", sa.BigInteger),
        sa.Column("renewed_ns", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )
    op.create_table(
        "placements",
        _serial(),
        *_of_a_stream(),
        sa.Column("epoch", ID, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("samples", sa.Text, nullable=False),
        schema=RECORDER,
    )
    op.create_index(
        "ix_placements_space_stream_epoch_seq",
        "placements",
        ["space", "stream", "epoch", "seq"],
        schema=RECORDER,
    )


def _make_gaps() -> None:
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


def _make_dead_letters() -> None:
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
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_dead_letters_space_stream_id",
        "dead_letters",
        ["space", "stream", "id"],
        schema=RECORDER,
    )
    op.create_table(
        "set_aside",
        _serial(),
        sa.Column("topic", sa.String(200), nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("received_ns", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )
    op.create_index("ix_set_aside_topic", "set_aside", ["topic"], schema=RECORDER)


def _make_deletions() -> None:
    op.create_table(
        "deletions",
        _serial(),
        *_of_a_stream(),
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


def _make_pairing() -> None:
    op.create_table(
        "first_samples",
        sa.Column("space", ID, primary_key=True),
        sa.Column("stream", STREAM, primary_key=True),
        sa.Column("time_ns", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )
    op.create_table(
        "unsearched",
        sa.Column("space", ID, primary_key=True),
        sa.Column("stream", STREAM, primary_key=True),
        sa.Column("from_ns", sa.BigInteger),
        sa.Column("to_ns", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )
    op.create_table(
        "lineage",
        sa.Column("id", ID, primary_key=True),
        sa.Column("flushes", sa.BigInteger, nullable=False),
        sa.Column("lost_ns", sa.BigInteger),
        schema=RECORDER,
    )
    op.create_table(
        "positions",
        sa.Column("organisation", ID, primary_key=True),
        sa.Column("flush", sa.BigInteger, nullable=False),
        sa.Column("time_ns", sa.BigInteger, nullable=False),
        schema=RECORDER,
    )
