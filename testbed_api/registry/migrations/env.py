"""Alembic's environment: runs the migrations on the connection that `engine.migrate` gives it."""

from alembic import context

from testbed_api.registry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_schemas=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
