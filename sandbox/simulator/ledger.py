"""The ledger: one entry for every call that reached the provider, whatever became of it."""

from collections import Counter
from pathlib import Path
from typing import Literal, TextIO

from pydantic import BaseModel, ConfigDict

Outcome = Literal[
    "running",
    "ok",
    "rate_limited",
    "server_error",
    "unavailable",
    "timeout",
    "error_in_200",
    "no_finish_reason",
    "cut",
    "malformed",
    "invalid",
    "unauthorized",
    "client_gone",
]
_REFUSED = frozenset({"rate_limited", "invalid", "unauthorized"})


class Entry(BaseModel):
    """What became of one HTTP call. Holds no prompt and no key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seq: int
    """Number of the call in order of arrival, from 1; not reused after a reset."""
    arrived_at: float
    """When its body had been read and it was judged, epoch seconds."""
    finished_at: float | None = None
    """When it ended, epoch seconds; `None` while it is in progress."""
    request_id: str | None
    """The caller's `x-client-request-id` header."""
    call_id: str | None = None
    """The caller's `idempotency-key` header: its name for this call, where a request is called for twice."""
    account: str | None
    """Whose key it bore; `None` if the key is unknown."""
    model: str | None
    """The model it asked for; `None` if its body could not be read."""
    prompt_sha256: str | None
    """Of the body as canonical JSON without `stream`, `stream_options`, `user`, `metadata`."""
    prompt_tokens: int = 0
    """A quarter of the characters of its text, at least 1."""
    completion_tokens: int = 0
    """Tokens generated; 0 if none were billed."""
    charged_tokens: int = 0
    """Charged to token limits on arrival: prompt tokens plus `max_tokens`; 0 if refused."""
    cost_usd: float = 0.0
    """What it is billed, US dollars."""
    status: int | None = None
    """The HTTP status sent, `None` if none was."""
    outcome: Outcome = "running"
    """What became of it."""
    billed: bool = False
    """Whether its generation ran, also when the caller left or the connection was cut."""
    in_flight: int
    """Calls in progress at its arrival, itself included."""


class LimitUsage(BaseModel):
    """The most that was used of one limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Place and owner of the limit, and what it counts."""
    kind: Literal["requests", "tokens"]
    """What it counts."""
    counting: Literal["sliding", "fixed", "bucket"]
    """How it counts."""
    amount: int
    """How many in a window."""
    window_s: float
    """Length of the window in seconds."""
    capacity: int
    """How many at once: the amount, or a bucket's burst."""
    max_used: float
    """The most in one window, or drawn from the bucket, so far."""


class Summary(BaseModel):
    """The ledger in figures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int
    """Entries, those in progress included."""
    outcomes: dict[Outcome, int]
    """How many entries of each outcome."""
    billed: int
    """How many were billed."""
    distinct_prompts: int
    """Different prompts among all entries."""
    distinct_billed_prompts: int
    """Different prompts among the billed; `billed` less this was paid more than once."""
    cost_usd: float
    """Sum of the bills, US dollars."""
    prompt_tokens: int
    """Prompt tokens billed."""
    completion_tokens: int
    """Completion tokens billed."""
    max_in_flight: int
    """Most admitted calls in progress at once."""
    limits: list[LimitUsage]
    """The most that was used of each limit."""


class Ledger:
    """Entries in memory and, once finished, as JSON lines in a file.

    Args:
        path: File to append to. `None`: memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._entries: dict[int, Entry] = {}
        self._last_seq = 0

    def __len__(self) -> int:
        return len(self._entries)

    def open(self) -> None:
        """Open the file, if there is to be one."""
        if self._path is not None:
            self._file = self._path.open("a", encoding="utf-8", buffering=1)

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def next_seq(self) -> int:
        """A number for the call that has just arrived."""
        self._last_seq += 1
        return self._last_seq

    def add(self, entry: Entry) -> None:
        """Keep a new entry; a finished one is written too."""
        self._entries[entry.seq] = entry
        if entry.finished_at is not None:
            self._write(entry)

    def finish(self, entry: Entry, outcome: Outcome, status: int | None, now: float) -> None:
        """Say how a call in progress ended. Entries from before a reset are written, not kept."""
        finished = entry.model_copy(update={"outcome": outcome, "status": status, "finished_at": now})
        if entry.seq in self._entries:
            self._entries[entry.seq] = finished
        self._write(finished)

    def clear(self) -> None:
        """Forget the entries in memory; the file is left alone."""
        self._entries.clear()

    def since(self, seq: int) -> list[Entry]:
        """Entries numbered above `seq`, in order of arrival."""
        return [entry for entry in self._entries.values() if entry.seq > seq]

    def summary(self, limits: list[LimitUsage]) -> Summary:
        """The entries in memory in figures."""
        entries = list(self._entries.values())
        billed = [entry for entry in entries if entry.billed]
        admitted = [entry.in_flight for entry in entries if entry.outcome not in _REFUSED]
        return Summary(
            calls=len(entries),
            outcomes=dict(Counter(entry.outcome for entry in entries)),
            billed=len(billed),
            distinct_prompts=len({e.prompt_sha256 for e in entries if e.prompt_sha256}),
            distinct_billed_prompts=len({entry.prompt_sha256 for entry in billed}),
            cost_usd=sum(entry.cost_usd for entry in billed),
            prompt_tokens=sum(entry.prompt_tokens for entry in billed),
            completion_tokens=sum(entry.completion_tokens for entry in billed),
            max_in_flight=max(admitted, default=0),
            limits=limits,
        )

    def _write(self, entry: Entry) -> None:
        if self._file is not None:
            self._file.write(entry.model_dump_json() + "\n")
