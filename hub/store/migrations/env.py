"""What alembic runs for each command: on the connection, and in the transaction, that it was handed."""

from alembic import context

from hub.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
