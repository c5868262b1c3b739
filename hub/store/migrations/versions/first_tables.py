"""The tables of the first release that has any."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes them."""
    op.create_table(
        "agents",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("agent_type", sa.Text),
        sa.Column("typed_at", sa.Double),
        sa.Column("first_seen", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("agents_at", "agents", ["at"])
    op.create_table(
        "calls",
        sa.Column("call", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("duplicate", sa.Boolean, nullable=False),
        sa.Column("flight", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("agent", sa.Text),
        sa.Column("agent_type", sa.Text),
        sa.Column("provider", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("account", sa.Text),
        sa.Column("task", sa.Text),
        sa.Column("priority", sa.Text),
        sa.Column("attempt", sa.BigInteger),
        sa.Column("worker", sa.Text),
        sa.Column("started_at", sa.Double),
        sa.Column("until", sa.Double),
        sa.Column("ended_at", sa.Double),
        sa.Column("latency_s", sa.Double),
        sa.Column("status", sa.BigInteger),
        sa.Column("error", sa.Text),
        sa.Column("kind", sa.Text),
        sa.Column("code", sa.Text),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("cost_usd", sa.Double),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("calls_at", "calls", ["at"])
    op.create_index("calls_flight", "calls", ["flight"])
    op.create_index("calls_state_until", "calls", ["state", "until"])
    op.create_table(
        "events",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("agent", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.Column("facts", sa.JSON, nullable=False),
    )
    op.create_index("events_at", "events", ["at"])
    op.create_index("events_type_at", "events", ["type", "at"])
    op.create_table(
        "requests",
        sa.Column("agent", sa.Text, primary_key=True),
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("entered_at", sa.Double),
        sa.Column("agent_type", sa.Text),
        sa.Column("task", sa.Text),
        sa.Column("asked_for", sa.Text),
        sa.Column("flight", sa.Text),
        sa.Column("answered_at", sa.Double),
        sa.Column("priority", sa.Text),
        sa.Column("status", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("provider", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("cost_usd", sa.Double),
        sa.Column("total_s", sa.Double),
        sa.Column("failed_at", sa.Double),
        sa.Column("error", sa.Text),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("requests_at", "requests", ["at"])
    op.create_table(
        "workers",
        sa.Column("worker", sa.Text, primary_key=True),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("host", sa.Text),
        sa.Column("pid", sa.BigInteger),
        sa.Column("first_seen", sa.Double, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
    )
    op.create_index("workers_at", "workers", ["at"])
