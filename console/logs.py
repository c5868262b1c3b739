"""Logs for a terminal: constant text, then the facts as `key=value`."""

import logging
import sys
from typing import Final

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class FactsFormatter(logging.Formatter):
    """Puts a record's extra fields after its text."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and its traceback if it has one."""
        facts = " ".join(f"{key}={value}" for key, value in record.__dict__.items() if key not in _STANDARD)
        text = super().format(record)
        head, newline, rest = text.partition("\n")
        return f"{head} {facts}".rstrip() + newline + rest


def log_to_stderr(*, verbose: bool = False) -> None:
    """Warnings of all, and the house's own words; everything of the house when `verbose`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FactsFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("optimizer").setLevel(logging.DEBUG if verbose else logging.INFO)
    # The connections' supervisor says what matters of these two, once.
    for library in ("aiormq", "aio_pika"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
