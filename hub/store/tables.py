"""The tables. A change here needs a migration in `migrations/versions`; a test compares the two.

Instants are epoch seconds on Redis's clock, as in the events; money is USD, and null where it is unknown.
`at` is the latest event that a row rests on: retention goes by it.
"""

from typing import Final

from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Index, MetaData, Table, Text

metadata: Final = MetaData()

calls: Final = Table(
    "calls",
    metadata,
    Column("call", Text, primary_key=True),
    Column("state", Text, nullable=False),  # running, settled or doubtful
    Column(
        "outcome", Text
    ),  # of its end: answer, error, unknown (it may have been billed); null: no word of it
    Column("duplicate", Boolean, nullable=False),  # the flight had an answer already
    Column("flight", Text),
    Column("request_id", Text),
    Column("agent", Text),
    Column("agent_type", Text),
    Column("provider", Text),
    Column("model", Text),
    Column("account", Text),
    Column("task", Text),
    Column("priority", Text),
    Column("attempt", BigInteger),
    Column("worker", Text),
    Column("started_at", Double),
    Column("until", Double),  # after which nobody can still be at it
    Column("ended_at", Double),
    Column("latency_s", Double),
    Column("status", BigInteger),  # HTTP
    Column("error", Text),
    Column("kind", Text),
    Column("code", Text),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("cost_usd", Double),  # by our prices
    Column("billed_usd", Double),  # what the provider's invoice says: where it is there, that was paid
    Column("invoice", Text),  # the name of that invoice
    Column("at", Double, nullable=False),
    Index("calls_at", "at"),
    Index("calls_flight", "flight"),
    Index("calls_state_until", "state", "until"),
)

requests: Final = Table(
    "requests",
    metadata,
    Column("agent", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("entered_at", Double),
    Column("agent_type", Text),
    Column("task", Text),
    Column("asked_for", Text),  # the model, as the agent named it
    Column("flight", Text),
    Column("answered_at", Double),  # the first answer, if there were several
    Column("priority", Text),
    Column("status", Text),
    Column("source", Text),  # provider, cache or dedupe
    Column("provider", Text),
    Column("model", Text),
    Column("cost_usd", Double),
    Column("total_s", Double),
    Column("failed_at", Double),
    Column("error", Text),
    Column("at", Double, nullable=False),
    Index("requests_at", "at"),
)

agents: Final = Table(
    "agents",
    metadata,
    Column("agent", Text, primary_key=True),
    Column("agent_type", Text),
    Column("typed_at", Double),
    Column("first_seen", Double, nullable=False),
    Column("at", Double, nullable=False),  # last seen
    Index("agents_at", "at"),
)

workers: Final = Table(
    "workers",
    metadata,
    Column("worker", Text, primary_key=True),
    Column("roles", Text, nullable=False),  # with blanks in between
    Column("host", Text),
    Column("pid", BigInteger),
    Column("first_seen", Double, nullable=False),
    Column("at", Double, nullable=False),  # last seen
    Index("workers_at", "at"),
)

events: Final = Table(
    "events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("agent", Text),
    Column("request_id", Text),
    Column("facts", JSON, nullable=False),  # the type's own fields
    Index("events_at", "at"),
    Index("events_type_at", "type", "at"),
)
