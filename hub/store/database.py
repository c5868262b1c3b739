"""The one door to the database: SQLite or PostgreSQL, its transactions, its migrations, its errors."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, SQLAlchemyError

from topology.loading import ConfigurationError

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_BUSY_S: Final = 10.0
_CONNECT_S: Final = 10
_STATEMENT_S: Final = 60
_LOCK: Final = 0x6F7074
"""PostgreSQL's advisory lock of whoever writes."""
_SUPPORTED: Final = "sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"

_migrating = threading.Lock()  # what alembic is working at is a global of its own


class StoreError(Exception):
    """The database cannot be used as it is; the text says why, without its password."""


class StoreAway(StoreError):
    """Not now: it is away, locked, full, or of another release. Nothing was written; it may work later."""


class NothingYet(StoreAway):
    """It was never written to, or its tables are gone."""


class Unstorable(StoreError):
    """The database refuses these very rows. Nothing was written."""


class Database:
    """A database of ours. One writes at a time, whoever it is: rows are read, merged and written back.

    Blocking; for threads. Constructing it connects to nothing.

    Args:
        url: `sqlite:///PATH` or `postgresql://...`.

    Raises:
        ConfigurationError: It is neither.
    """

    def __init__(self, url: str) -> None:
        self._url = _parsed(url)
        self._engine = _engine(self._url)
        self._scripts = ScriptDirectory(str(_MIGRATIONS))

    def __str__(self) -> str:
        return self._url.render_as_string(hide_password=True)

    def migrate(self) -> None:
        """Makes the tables, or brings them up to date; where they are, changes nothing.

        Raises:
            StoreAway: It cannot be done now, or a newer release has been here.
        """
        with _translated():
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with _migrating, self._writing() as connection:
                found = self._revision(connection)
                if found == self._scripts.get_current_head():
                    return
                if found is not None and found not in self._known():
                    raise self._of_another_release(found)
                config = Config(attributes={"connection": connection})
                config.set_main_option("script_location", str(_MIGRATIONS))
                command.upgrade(config, "head")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that no other writer is beside; committed at the end.

        Raises:
            StoreAway: It cannot be had or committed now, or the tables are not of this release.
            Unstorable: The rows themselves are refused.
        """
        with _translated(), self._writing() as connection:
            self._check(connection)
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction to read in.

        Raises:
            NothingYet: Nobody ever wrote.
            StoreAway: It cannot be had now, or the tables are not of this release.
        """
        if self._file is not None and not self._file.is_file():
            raise NothingYet(f"nothing has been recorded in {self}")
        with _translated(), self._engine.begin() as connection:
            self._check(connection)
            yield connection

    def close(self) -> None:
        """Closes its connections; harmless when it is done already."""
        self._engine.dispose()

    @property
    def _file(self) -> Path | None:
        return Path(self._url.database or "") if self._url.get_backend_name() == "sqlite" else None

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(writing=True) as connection, connection.begin():
            if self._file is None:
                connection.execute(text(f"SET LOCAL statement_timeout = '{_STATEMENT_S}s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            yield connection

    def _check(self, connection: Connection) -> None:
        found = self._revision(connection)
        if found is None:
            raise NothingYet(f"nothing has been recorded in {self}")
        if found != self._scripts.get_current_head():
            raise self._of_another_release(found)

    def _revision(self, connection: Connection) -> str | None:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
        return None if found is None else str(found)

    def _known(self) -> set[str]:
        return {script.revision for script in self._scripts.walk_revisions()}

    def _of_another_release(self, found: str) -> StoreAway:
        if found in self._known():
            return StoreAway(f"{self} has the tables of an older release ({found}); start its recorder")
        return StoreAway(f"{self} has the tables of a newer release ({found}); update this one")


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError(f"recorder.url: this is no database's URL; write {_SUPPORTED}") from None
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite" and parsed.database not in {None, "", ":memory:"}:
        return parsed
    raise ConfigurationError(f"recorder.url: {parsed.drivername}: is not supported; write {_SUPPORTED}")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        # Opened for each transaction: a file that was replaced or deleted meanwhile is never written to.
        engine = create_engine(
            url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": _BUSY_S}
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=2,
        connect_args={"connect_timeout": _CONNECT_S, "tcp_user_timeout": 1000 * _STATEMENT_S},
    )


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin below, so that tables are made within them too
    connection.execute("PRAGMA journal_mode = WAL").close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def _translated() -> Iterator[None]:
    """The errors of SQLAlchemy and its drivers end here; their texts can hold what was to be written."""
    try:
        yield
    except (DataError, IntegrityError) as error:
        raise Unstorable(_words_of(error)) from error
    except (SQLAlchemyError, OSError) as error:
        raise StoreAway(_words_of(error)) from error


def _words_of(error: BaseException) -> str:
    """The driver's first line; the rest can quote values."""
    cause: BaseException = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return f"{type(cause).__name__}: {(str(cause).splitlines() or [''])[0]}"
