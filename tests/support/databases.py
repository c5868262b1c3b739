"""Databases for the store's tests: SQLite always, and PostgreSQL where `TEST_DATABASE_URL` names one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, make_url, text

KINDS = ("sqlite", "postgresql") if os.environ.get("TEST_DATABASE_URL") else ("sqlite",)


@contextmanager
def database_url(kind: str, folder: Path) -> Iterator[str]:
    """A database of the test's own."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'kept' / 'optimizer.db'}"
        return
    server = make_url(os.environ["TEST_DATABASE_URL"]).set(drivername="postgresql+psycopg")
    name = f"test_{secrets.token_hex(6)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()
