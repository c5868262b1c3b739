"""What a simulated provider is told: models, accounts, limits, latency and faults."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

NonNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Fault = Literal[
    "ok",
    "server_error",
    "unavailable",
    "rate_limited",
    "timeout",
    "error_in_200",
    "no_finish_reason",
    "cut",
    "malformed",
    "slow",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Model(_Frozen):
    """A model on offer and its price."""

    id: str
    """The name callers send."""
    input_usd_per_mtok: NonNegative = 0.15
    """US dollars for a million prompt tokens. Default 0.15."""
    output_usd_per_mtok: NonNegative = 0.60
    """US dollars for a million completion tokens. Default 0.60."""
    lacks: tuple[str, ...] = ()
    """Parameters such as `tools` that it does not take: a call with one gets status 400. Default: none."""


class Limit(_Frozen):
    """One rate limit: so many requests, or so many tokens, in a window.

    A call is charged on arrival: one request; its estimated prompt tokens plus its `max_tokens`. A
    refused call is charged nothing, and nothing is given back when the answer turns out shorter.
    """

    requests: PositiveInt | None = None
    """Requests in a window. Exactly one of `requests` and `tokens` is set."""
    tokens: PositiveInt | None = None
    """Tokens in a window."""
    window_s: PositiveFloat = 60.0
    """Length of the window in seconds. Default 60."""
    counting: Literal["sliding", "fixed", "bucket"] = "sliding"
    """`sliding` looks back one window from each call, `fixed` counts from the last multiple of
    `window_s` since the epoch, `bucket` refills evenly, one amount in a window. Default `sliding`.
    """
    scope: Literal["provider", "account", "model"] = "provider"
    """Who shares the limit: all calls, those of one account, or those for one model. A limit that
    stands in an account is always of that account, `model` dividing it further. Default `provider`.
    """
    burst: PositiveInt | None = None
    """What a full bucket holds, for `bucket` only. Default `None`: one window's amount."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.requests is None) == (self.tokens is None):
            raise ValueError("a limit needs exactly one of requests and tokens")
        if self.burst is not None and self.counting != "bucket":
            raise ValueError('burst belongs to counting = "bucket"')
        return self

    @property
    def kind(self) -> Literal["requests", "tokens"]:
        """What is counted."""
        return "tokens" if self.requests is None else "requests"

    @property
    def amount(self) -> int:
        """How many of them in a window."""
        return self.requests or self.tokens or 0


class Account(_Frozen):
    """A customer of the provider: its keys share its limits."""

    name: str
    """The name the ledger shows."""
    keys: tuple[str, ...] = Field(min_length=1, repr=False)
    """Bearer keys of this account."""
    limits: tuple[Limit, ...] = ()
    """Limits of this account alone. Default: none."""


class Latency(_Frozen):
    """How long an answer takes: a first wait, then some time for each completion token."""

    kind: Literal["constant", "uniform", "lognormal", "exponential"] = "constant"
    """Distribution of the first wait. Default `constant`."""
    median_s: NonNegative = 0.05
    """Median in seconds, for all kinds but `uniform`. Default 0.05."""
    low_s: NonNegative = 0.0
    """Shortest first wait in seconds. Default 0."""
    high_s: NonNegative | None = None
    """Longest first wait in seconds. Default `None`: unbounded (`uniform` requires it)."""
    sigma: NonNegative = 0.5
    """Standard deviation of the logarithm, for `lognormal`. Default 0.5."""
    per_output_token_s: NonNegative = 0.0
    """Seconds for each completion token; the gap between the chunks of a stream. Default 0."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.kind == "uniform" and self.high_s is None:
            raise ValueError("uniform latency needs high_s")
        if self.high_s is not None and self.high_s < self.low_s:
            raise ValueError("high_s is below low_s")
        return self


class Faults(_Frozen):
    """How often a call goes wrong, each fault as a probability; all default to 0."""

    server_error: Probability = 0.0
    """Status 500; nothing is billed."""
    unavailable: Probability = 0.0
    """Status 503; nothing is billed."""
    rate_limited: Probability = 0.0
    """Status 429 with Retry-After although the limits allow the call; nothing is charged."""
    timeout: Probability = 0.0
    """Generated and billed, yet no answer comes for `hang_s`."""
    error_in_200: Probability = 0.0
    """An error body under status 200; nothing is billed."""
    no_finish_reason: Probability = 0.0
    """A billed answer whose `finish_reason` is null."""
    cut: Probability = 0.0
    """A billed answer whose connection closes in mid body."""
    malformed: Probability = 0.0
    """A billed answer whose body is not JSON."""
    slow: Probability = 0.0
    """A good answer that takes `slow_s` longer."""
    hang_s: NonNegative = 600.0
    """Seconds a `timeout` lasts before status 504. Default 600."""
    slow_s: NonNegative = 5.0
    """Seconds added by `slow`. Default 5."""
    retry_after_s: NonNegative = 1.0
    """Seconds to wait that a `rate_limited` fault asks for. Default 1."""

    @property
    def probabilities(self) -> dict[Fault, float]:
        """Each fault's probability, in the order they are drawn."""
        return {
            "server_error": self.server_error,
            "unavailable": self.unavailable,
            "rate_limited": self.rate_limited,
            "timeout": self.timeout,
            "error_in_200": self.error_in_200,
            "no_finish_reason": self.no_finish_reason,
            "cut": self.cut,
            "malformed": self.malformed,
            "slow": self.slow,
        }

    @model_validator(mode="after")
    def _sum_to_one_at_most(self) -> Self:
        if sum(self.probabilities.values()) > 1.0 + 1e-9:
            raise ValueError("the probabilities of the faults sum to more than 1")
        return self


class Settings(_Frozen):
    """Everything a simulated provider is told."""

    seed: int = 0
    """Answers, latencies and random faults follow from it. Default 0."""
    models: tuple[Model, ...] = (
        Model(id="sim-small"),
        Model(id="sim-large", input_usd_per_mtok=2.50, output_usd_per_mtok=10.0),
        Model(id="sim-embed", input_usd_per_mtok=0.02, output_usd_per_mtok=0.0),
    )
    """Models on offer. Default: sim-small, sim-large, sim-embed; each answers either endpoint."""
    accounts: tuple[Account, ...] = ()
    """Who may call. Default: empty, any bearer key is the account "default"."""
    limits: tuple[Limit, ...] = ()
    """Rate limits. Default: none."""
    concurrency: PositiveInt | None = None
    """Most calls in progress, others are refused with 429. Default `None`: any number."""
    latency: Latency = Latency()
    """How long answers take. Default: 0.05 s."""
    faults: Faults = Faults()
    """How often calls go wrong. Default: never."""
    script: tuple[Fault, ...] = ()
    """Faults of the next admitted calls in order of arrival, before random ones. A call refused by
    a limit takes none. Default: empty."""
    low_answer_tokens: PositiveInt = 10
    """Least completion tokens of an answer that `max_tokens` does not cut. Default 10."""
    high_answer_tokens: PositiveInt = 60
    """Most completion tokens; charged as `max_tokens` where a call names none. Default 60."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.high_answer_tokens < self.low_answer_tokens:
            raise ValueError("high_answer_tokens is below low_answer_tokens")
        keys = [key for account in self.accounts for key in account.keys]
        if len(keys) != len(set(keys)):
            raise ValueError("a key stands in the accounts twice")
        return self

    def changed(self, changes: dict[str, Any]) -> "Settings":
        """These settings with `changes` merged in: tables by field, lists replaced whole.

        Raises:
            pydantic.ValidationError: The result is no valid settings.
        """
        return Settings.model_validate(_merged(self.model_dump(), changes))


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in new.items():
        before = old.get(name)
        both_tables = isinstance(before, dict) and isinstance(value, dict)
        merged[name] = _merged(before, value) if both_tables else value  # type: ignore[arg-type]
    return merged
