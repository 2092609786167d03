"""Organisations with kinds, people, machines, tokens, listings, grants and pauses over time."""

import sqlalchemy as sa
from alembic import op

from testbed_api.registry.migrations import carrying

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ID = sa.String(40)


def _serial() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)


def _spanned() -> list[sa.Column[object]]:
    return [
        sa.Column("from_ns", sa.BigInteger, nullable=False),
        sa.Column("until_ns", sa.BigInteger),
        sa.Column("made_by", ID),
        sa.Column("ended_ns", sa.BigInteger),
        sa.Column("ended_by", ID),
    ]


def upgrade() -> None:
    """Make the tables, and carry the credentials over into them."""
    sql = op.get_bind()
    rows = sql.execute(sa.text("SELECT * FROM principals")).mappings()
    former = [dict(row) for row in rows]
    op.drop_table("principals")
    kind = sa.Column("kind", sa.String(20), nullable=False, server_default="partner")
    op.add_column("organisations", kind)
    _make_principals()
    _make_tokens()
    _make_sharing()
    carrying.carry_over(sql, former)


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
    )
    op.create_index("ix_tokens_principal", "tokens", ["principal"])
    op.create_table(
        "passwords",
        sa.Column("person", ID, primary_key=True),
        sa.Column("hash", sa.String(200), nullable=False),
        sa.Column("set_ns", sa.BigInteger, nullable=False),
    )


def _make_sharing() -> None:
    op.create_table(
        "listings",
        _serial(),
        sa.Column("organisation", ID, nullable=False),
        sa.Column("equipment", ID, nullable=False),
        sa.Column("organisations", sa.Text),
        *_spanned(),
    )
    op.create_index("ix_listings_organisation_equipment", "listings", ["organisation", "equipment"])
    op.create_table(
        "grants",
        _serial(),
        sa.Column("company", ID, sa.ForeignKey("organisations.id"), nullable=False),
        *(
            sa.Column(name, ID, nullable=False)
            for name in ("space", "owner", "equipment", "stream")
        ),
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
    )
    op.create_index("ix_grants_company", "grants", ["company"])
    op.create_index("ix_grants_owner_equipment", "grants", ["owner", "equipment"])
    op.create_table(
        "pauses",
        _serial(),
        sa.Column("owner", ID, nullable=False),
        sa.Column("company", ID),
        sa.Column("equipment", ID),
        *_spanned(),
    )
    op.create_index("ix_pauses_owner", "pauses", ["owner"])
