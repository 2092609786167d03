"""The schema's versions, applied at every start by Alembic."""
