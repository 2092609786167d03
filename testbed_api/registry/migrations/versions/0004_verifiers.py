"""What a broker that asks nobody holds a token against."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; the secrets of earlier tokens are not known, so those have none."""
    column = sa.Column("verifier", sa.String(200), nullable=False, server_default="")
    op.add_column("tokens", column)
