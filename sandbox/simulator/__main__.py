"""`python -m sandbox.simulator`: serve the simulated provider."""

import argparse
import json
import os
import signal
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sandbox.simulator.server import run
from sandbox.simulator.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; prints one JSON line with the base URL when ready.

    Args:
        arguments: Without the program's name. Default: the process's own.

    Returns:
        The exit status: 0 after a signal, 2 for settings that are not valid.
    """
    options = _parser().parse_args(arguments)
    try:
        settings = Settings().changed(_read(options.settings)).changed(_flags(options))
    except (OSError, ValueError) as exc:
        print(f"settings: {_shown(exc)}", file=sys.stderr)  # noqa: T201 - a command's output
        return 2
    if options.with_parent:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    run(settings, options.host, options.port, options.ledger, _print_ready)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.simulator",
        description="Serve a simulated, OpenAI-compatible AI provider.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=0, help="TCP port, 0 for a free one")
    parser.add_argument("--settings", metavar="FILE", help="TOML or JSON file; - reads JSON")
    parser.add_argument("--ledger", metavar="FILE", type=Path, help="append calls as JSON lines")
    parser.add_argument("--latency", metavar="SECONDS", type=float, help="of every answer")
    parser.add_argument("--seed", type=int, help="of answers, latencies and faults")
    parser.add_argument("--requests-per-minute", metavar="N", type=int, help="of all callers")
    parser.add_argument("--tokens-per-minute", metavar="N", type=int, help="of all callers")
    parser.add_argument("--concurrency", metavar="N", type=int, help="most calls in progress")
    parser.add_argument("--key", action="append", help="accepted key, may be repeated")
    parser.add_argument(
        "--with-parent", action="store_true", help="end when the process that started this has ended"
    )
    return parser


def _end_with_parent(parent: int) -> None:
    """A parent that is killed says nothing; an orphan would serve for ever."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def _read(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    found = tomllib.loads(text) if path.endswith(".toml") else json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("settings must be a table")
    return found


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that flags give; limits given by flags replace those of the file."""
    limits = []
    if options.requests_per_minute is not None:
        limits.append({"requests": options.requests_per_minute})
    if options.tokens_per_minute is not None:
        limits.append({"tokens": options.tokens_per_minute})
    given = {
        "seed": options.seed,
        "concurrency": options.concurrency,
        "limits": limits or None,
        "latency": None if options.latency is None else _constant(options.latency),
        "accounts": [{"name": "default", "keys": options.key}] if options.key else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _constant(seconds: float) -> dict[str, Any]:
    return {"kind": "constant", "median_s": seconds, "low_s": 0.0, "high_s": None}


def _shown(exc: Exception) -> str:
    # Pydantic's own text quotes the input, where keys may stand.
    if not isinstance(exc, ValidationError):
        return str(exc)
    faults = exc.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(
        f"{'.'.join(str(part) for part in fault['loc']) or 'settings'}: {fault['msg']}" for fault in faults
    )


def _print_ready(base_url: str) -> None:
    print(json.dumps({"base_url": base_url}), flush=True)  # noqa: T201 - the ready line


if __name__ == "__main__":
    sys.exit(main())
