"""Alembic's environment: runs the migrations on the connection that `engine.migrate` gives it."""

from alembic import context

from testbed_api.registry.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_schemas=True,
    version_table_schema=context.config.attributes["schema"],
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
