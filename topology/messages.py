"""The wire messages: what agents, fronts and backends say to each other."""

import secrets
import time
from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from topology.errors import ErrorType
from topology.fields import FARTHEST, JsonObject, Short
from topology.names import AGENT_PATTERN, Priority
from topology.wire import MAX_BODY_BYTES, WireMessage


class CacheMode(StrEnum):
    """What a request may share with others; section 7 of the design."""

    USE = "use"
    REFRESH = "refresh"
    JOIN = "join"
    OFF = "off"


class CacheScope(StrEnum):
    """Among whom answers are shared."""

    FLEET = "fleet"
    AGENT = "agent"


class Source(StrEnum):
    """Where a reply came from; only `provider` was paid for by this request."""

    PROVIDER = "provider"
    CACHE = "cache"
    DEDUPE = "dedupe"
    DIRECT = "direct"


class Constraints(BaseModel):
    """What a caller demands of the model that answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    required_capabilities: tuple[str, ...] = ()
    excluded_providers: tuple[str, ...] = ()
    max_cost_usd: float | None = Field(default=None, gt=0)
    max_latency_s: float | None = Field(default=None, gt=0)
    min_quality: float | None = Field(default=None, ge=0, le=1)


class Request(WireMessage):
    """What an agent asks for. Priority and callback queue travel as AMQP properties.

    Attributes:
        id: The request's stable id; a retransmission carries the same.
        agent: Who asks; must agree with the routing key.
        model: `provider/model`, a bare model, or `auto`.
        params: The OpenAI body: messages, temperature, tools and so on.
        deadline: Epoch seconds; without one, the fleet's `timeout_s` from arrival.
        cache_ttl_s: How old an answer may be, in seconds; without one, the fleet's `ttl_s`.
        tell_waits: Whether the caller wants a `Waiting` when the request has to wait.
    """

    kind: ClassVar[str] = "request"
    max_bytes: ClassVar[int] = MAX_BODY_BYTES
    max_values: ClassVar[int | None] = 1_000_000

    id: str = Field(min_length=1, max_length=128)
    agent: str = Field(pattern=f"^{AGENT_PATTERN.pattern}$")
    agent_type: str | None = Field(default=None, max_length=128)
    operation: Literal["chat", "embeddings"] = "chat"
    model: str = Field(default="auto", min_length=1, max_length=256)
    params: JsonObject
    task: str | None = Field(default=None, max_length=64)
    deadline: float | None = Field(default=None, gt=0)
    cache: CacheMode = CacheMode.USE
    cache_ttl_s: float | None = Field(default=None, ge=0, le=FARTHEST)
    cache_scope: CacheScope = CacheScope.FLEET
    constraints: Constraints = Constraints()
    stream: bool = False
    durable: bool = False
    tell_waits: bool = False


class Waiter(WireMessage):
    """A request that gets its answer from a flight, as Redis and a job remember it.

    Attributes:
        deadline: Epoch seconds, always set.
        queued_at: Epoch seconds at which a front first saw it.
    """

    kind: ClassVar[str] = "waiter"

    agent: str = Field(pattern=f"^{AGENT_PATTERN.pattern}$")
    id: Short = Field(min_length=1)
    reply_to: Short | None
    priority: Priority
    deadline: float = Field(gt=0, le=FARTHEST)
    queued_at: float
    stream: bool = False
    durable: bool = False
    tell_waits: bool = False

    @property
    def key(self) -> str:
        """The waiter's name within its flight."""
        return f"{self.agent}/{self.id}"


class Envelope(WireMessage):
    """A request on its way round inside the house, with the agent that a front has verified."""

    kind: ClassVar[str] = "envelope"

    request: Request
    waiter: Waiter


class Candidate(BaseModel):
    """One place where a request can be answered."""

    model_config = ConfigDict(frozen=True)

    provider: str = Field(pattern=r"^[a-z0-9_-]{1,64}$")
    model: str = Field(min_length=1, max_length=256)


class Job(WireMessage):
    """The durable message that carries a flight to a provider's pool.

    Attributes:
        fingerprint: The flight.
        request: What to ask the provider.
        waiter: The request that was told to lead.
        route: The candidates, best first; never empty.
        position: Which of them this job is for.
        not_before: The instant (epoch seconds) before which it is not to be tried. Retry tiers have fixed
            times, and give it back earlier.
        hedges: The token of a claim whose call takes long: this one asks another provider besides, at once or
            not at all. None: it is the flight's own job.
    """

    kind: ClassVar[str] = "job"

    fingerprint: str = Field(pattern=r"^[0-9a-zA-Z_-]{1,128}$")
    request: Request
    waiter: Waiter
    route: tuple[Candidate, ...] = Field(min_length=1)
    position: int = Field(default=0, ge=0)
    not_before: float = Field(default=0.0, ge=0, le=FARTHEST)
    hedges: Short | None = None

    @property
    def candidate(self) -> Candidate:
        """The candidate this job is for."""
        return self.route[self.position % len(self.route)]

    def at_next_candidate(self) -> "Job":
        """The same flight for the route's next candidate, the first again after the last."""
        return self.model_copy(update={"position": (self.position + 1) % len(self.route)})


class Usage(BaseModel):
    """Tokens as the provider counted them; `None` where it did not say."""

    model_config = ConfigDict(frozen=True)

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class Timings(BaseModel):
    """Where the time went, in seconds."""

    model_config = ConfigDict(frozen=True)

    queued_s: float = 0.0
    provider_s: float = 0.0
    total_s: float = 0.0


class ErrorReport(BaseModel):
    """Why a request was not answered.

    Attributes:
        retry_after_s: Seconds after which the same request would pass, where that is known.
    """

    model_config = ConfigDict(frozen=True)

    type: ErrorType
    message: str
    retryable: bool = False
    provider_status: int | None = None
    retry_after_s: float | None = None


class Outcome(WireMessage):
    """What a flight came to: the part of a reply that all its waiters share."""

    kind: ClassVar[str] = "outcome"

    status: Literal["ok", "error"]
    body: dict[str, Any] | None = None
    provider: str | None = None
    model: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    provider_s: float = 0.0
    attempts: int = 0
    error: ErrorReport | None = None


class Reply(WireMessage):
    """The answer to one request.

    Attributes:
        status: `ok`, with a `body`, or `error`, with an `error`.
        source: Where it came from; none for errors that no provider was asked about.
        body: The OpenAI response, as the provider sent it.
        cost_usd: What this request cost: 0 when it was shared; `None` when the price is not known.
        attempts: How often a provider was called for the flight.
    """

    kind: ClassVar[str] = "reply"

    id: str
    status: Literal["ok", "error"]
    source: Source | None = None
    body: dict[str, Any] | None = None
    provider: str | None = None
    model: str | None = None
    usage: Usage = Usage()
    cost_usd: float | None = None
    timings: Timings = Timings()
    attempts: int = 0
    error: ErrorReport | None = None

    @property
    def text(self) -> str:
        """The first choice's text; empty where the answer has none (tool calls, errors)."""
        content = self._message.get("content")
        return content if isinstance(content, str) else ""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tools that the first choice wants called, as in OpenAI's body; empty where there are none."""
        calls = self._message.get("tool_calls")
        return calls if isinstance(calls, list) else []

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended (`stop`, `length`, `tool_calls`, ...); None where nobody said."""
        reason = self._choice.get("finish_reason")
        return reason if isinstance(reason, str) else None

    @property
    def _choice(self) -> dict[str, Any]:
        choices = (self.body or {}).get("choices") or [{}]
        first: dict[str, Any] = choices[0]
        return first

    @property
    def _message(self) -> dict[str, Any]:
        return self._choice.get("message") or {}


class Waiting(WireMessage):
    """Why a request waits; sent to callers who asked to be told, and lost without harm.

    Attributes:
        id: The request's.
        waits_for: What it waits for, such as the name of a limit.
        until: Epoch seconds at which it is looked at again, as far as known.
        position: How many of the same pool, lane and priority start before it, as far as known.
        starts_at: Epoch seconds at which its call is expected to start, as far as known.
    """

    kind: ClassVar[str] = "waiting"

    id: str
    waits_for: str
    until: float | None = None
    position: int | None = Field(default=None, ge=0)
    starts_at: float | None = None


class Cancel(WireMessage):
    """The caller wants no answer any more. Published like the request, so that it arrives behind it."""

    kind: ClassVar[str] = "cancel"

    id: str = Field(min_length=1, max_length=128)


class Event(WireMessage):
    """Something that happened, published on `optimizer.events` with its type as routing key."""

    kind: ClassVar[str] = "event"
    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    id: str
    type: str
    at: float
    agent: str | None = None
    request_id: str | None = None


def new_id() -> str:
    """A request id: random after a time-ordered head, 32 hex digits."""
    return f"{int(time.time() * 1000):012x}{secrets.token_hex(10)}"


class Control(WireMessage):
    """What a worker is told. What counts stands in Redis; this makes it look at once, and may be lost.

    Attributes:
        id: New for each; a worker's health report names the last reload that it has followed.
        action: `pause`, `drain` and `resume` are about a provider, `reload` about the configuration, `open`
            about what was closed: an operator tells all workers. `renew` is about a call: its worker is told
            to renew its claim now.
        provider: Whose calls it is about.
        flight: Whose call it is about.
    """

    kind: ClassVar[str] = "control"

    id: str = Field(min_length=1, max_length=128)
    action: Literal["pause", "drain", "resume", "reload", "renew", "open"]
    provider: str | None = None
    flight: str | None = None
