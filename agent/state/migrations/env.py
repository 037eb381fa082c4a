"""Where Alembic begins; `agent.state.database` hands it the connection, inside of one transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
