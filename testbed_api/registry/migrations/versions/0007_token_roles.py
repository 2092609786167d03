"""Which of its person's roles a token holds."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; earlier tokens go on with all of them, which is what nothing in it means."""
    op.add_column("tokens", sa.Column("roles", sa.String(200)))
