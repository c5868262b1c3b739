"""The tables of `fleet.toml` that are about no provider: frozen values, and an unknown key is an error."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from topology.alerts import AlertName
from topology.limits import day_offset_s
from topology.messages import CacheMode, Request
from topology.names import Priority, is_agent_name

_DATABASES: Final = ("sqlite:///", "postgresql://", "postgresql+psycopg://", "postgres://", "env:", "file:")


class Section(BaseModel):
    """A table of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FleetSection(Section):
    """What holds for all agents together.

    Attributes:
        requests_per_minute: Provider calls across all agents; None: no limit. Hits and joins are free.
        agent_requests_per_minute: The same for each agent; over it, a request waits its turn.
        concurrency: Provider calls in flight across all agents; None: no limit.
        timeout_s: The deadline, in seconds, of a request that names none.
        max_deadline_s: The farthest deadline that is accepted, in seconds from arrival.
        max_spends: How often a flight may be bought when a crash or a time-out leaves a doubt.
    """

    requests_per_minute: float | None = Field(default=None, gt=0)
    agent_requests_per_minute: float | None = Field(default=None, gt=0)
    concurrency: int | None = Field(default=None, gt=0)
    timeout_s: float = Field(default=600.0, gt=0)
    max_deadline_s: float = Field(default=7 * 86400.0, gt=0)
    max_spends: int = Field(default=2, ge=1)


class CacheSection(Section):
    """How long answers are shared.

    Attributes:
        ttl_s: Seconds for which an answer is reused.
        dedupe_window_s: Seconds for which a finished flight still takes requests with `cache="join"`.
        error_ttl_s: Seconds for which an error that speaks of the request itself is shared.
    """

    ttl_s: float = Field(default=600.0, ge=0)
    dedupe_window_s: float = Field(default=5.0, ge=0)
    error_ttl_s: float = Field(default=5.0, ge=0)

    def freshness(self, request: Request) -> tuple[float, float]:
        """How old an answer may be for this request, and how long its own is fresh for others, in seconds."""
        ttl_s = self.ttl_s if request.cache_ttl_s is None else request.cache_ttl_s
        return {
            CacheMode.USE: (ttl_s, ttl_s),
            CacheMode.REFRESH: (0.0, ttl_s),
            CacheMode.JOIN: (self.dedupe_window_s, self.dedupe_window_s),
            CacheMode.OFF: (0.0, 0.0),
        }[request.cache]


class LearningSection(Section):
    """What is remembered of what went wrong.

    Attributes:
        error_ttl_s: Seconds for which a model is not asked again for a feature that it said it lacks; then a
            request tries it. 0: nothing is remembered.
    """

    error_ttl_s: float = Field(default=86400.0, ge=0)


class Budget(Section):
    """Money that may be spent.

    Attributes:
        usd_per_day: In a day; None: no limit.
        usd_per_month: In a calendar month, in UTC; None: no limit.
    """

    usd_per_day: float | None = Field(default=None, gt=0)
    usd_per_month: float | None = Field(default=None, gt=0)


class BudgetsSection(Budget):
    """What may be spent by all agents together, and by each.

    A call takes its expected cost before it starts, and its price when it has ended. What is spent holds up
    calls that cost something; a model whose price is unknown is held up by nothing, and the reports name it.

    Attributes:
        agent_usd_per_day: Of each agent that has no budget of its own, in a day; None: no limit.
        agent_usd_per_month: Of each such agent in a calendar month; None: no limit.
        agents: Budgets of agents by name; they replace both of these.
        day_resets_at: When a day ends, as `HH:MM UTC`.
    """

    agent_usd_per_day: float | None = Field(default=None, gt=0)
    agent_usd_per_month: float | None = Field(default=None, gt=0)
    agents: dict[str, Budget] = Field(default_factory=dict)
    day_resets_at: str = "00:00 UTC"

    @field_validator("agents")
    @classmethod
    def _named(cls, value: dict[str, Budget]) -> dict[str, Budget]:
        for agent in value:
            if not is_agent_name(agent):
                raise ValueError(f"agents: {agent!r} is no agent's name, which matches [a-z0-9_-]{{1,64}}")
        return value

    @field_validator("day_resets_at")
    @classmethod
    def _clock(cls, value: str) -> str:
        day_offset_s(value)
        return value

    def of(self, agent: str) -> Budget:
        """The budget of an agent."""
        each = Budget(usd_per_day=self.agent_usd_per_day, usd_per_month=self.agent_usd_per_month)
        return self.agents.get(agent, each)


class PrioritiesSection(Section):
    """Shares of the permits when requests of all priorities wait; none starves.

    Attributes:
        reserve_for_high: Share of a quota of an hour, a day or a month that the others leave to `high`, where
            that has used it in this window or the one before; less as the window passes, nothing at its end.
        pace_batch: Whether `batch` uses a quota of an hour, a day or a month as that passes, at most a tenth
            ahead of the time, so that the peak finds some left.
    """

    high: float = Field(default=8, gt=0)
    normal: float = Field(default=3, gt=0)
    batch: float = Field(default=1, gt=0)
    reserve_for_high: float = Field(default=0.1, ge=0, lt=1)
    pace_batch: bool = True

    @property
    def shares(self) -> dict[Priority, float]:
        """The share of each class, the most urgent first."""
        return {Priority.HIGH: self.high, Priority.NORMAL: self.normal, Priority.BATCH: self.batch}


class HedgingSection(Section):
    """Asking a second provider while a call takes long. It pays twice on purpose.

    Attributes:
        share: The part of the calls of priority `high` that may be made at another provider besides, once
            they last longer than 95 of 100 did of late. 0: none.
    """

    share: float = Field(default=0.0, ge=0, le=0.2)


class ApiKey(Section):
    """A key of an account.

    Attributes:
        origin: Where it is kept, `env:NAME` or `file:PATH`; safe to print.
        secret: The key itself; masked wherever it is printed. None until secrets are resolved.
    """

    origin: str
    secret: SecretStr | None = None


class GatewaySection(Section):
    """The HTTP gateway.

    Attributes:
        host: The address it listens at.
        port: The TCP port; 0: a free one.
        tokens: The bearer tokens of each agent, as `env:NAME` or `file:PATH`; one, or several while they are
            exchanged. Empty: it takes an agent at its word.
        open: Whether it may listen elsewhere than on loopback without tokens.
        default_agent: Who asks, where there are no tokens and no `X-Agent` says it.
        drain_s: Seconds for which a gateway that is told to stop waits for the answers under way.
        whole_streams: Whether a client that asks for a stream gets the whole answer as a stream of one piece.
            There are no others yet.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65535)
    tokens: dict[str, tuple[ApiKey, ...]] = Field(default_factory=dict)
    open: bool = False
    default_agent: str = Field(default="anonymous", pattern=r"^[a-z0-9_-]{1,64}$")
    drain_s: float = Field(default=30.0, ge=0)
    whole_streams: bool = False

    @field_validator("tokens", mode="before")
    @classmethod
    def _origins(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        for agent in values:
            if not is_agent_name(agent):
                raise ValueError(f"{agent!r} names no agent: 1 to 64 of a-z, 0-9, '_' and '-'")
        return {a: as_api_keys([v] if isinstance(v, str) else v) for a, v in values.items()}


class RecorderSection(Section):
    """Where the recorder writes what happened.

    Attributes:
        url: The database, `sqlite:///PATH` or `postgresql://...`; or where that is kept, `env:NAME` or
            `file:PATH`. Masked wherever it is printed, since it can hold a password.
        keep_days: Days for which calls, requests and events are kept.
    """

    url: SecretStr = SecretStr("sqlite:///.optimizer/optimizer.db")
    keep_days: float = Field(default=90.0, gt=0)

    @field_validator("url")
    @classmethod
    def _meant(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(_DATABASES):
            raise ValueError(
                "write sqlite:///PATH, postgresql://USER:PASSWORD@HOST/NAME, env:NAME or file:PATH"
            )
        return value


class Webhook(Section):
    """Who is told of alerts, by a POST.

    Attributes:
        url: `https://...`, or where that is kept, `env:NAME` or `file:PATH`. Masked wherever it is printed:
            who knows it can post there.
        format: `json`: the event as it is published. `slack`: what Slack, Mattermost and others show as text.
        signing_key: Where the secret is kept that deliveries are signed with, as Standard Webhooks has it
            (https://www.standardwebhooks.com). None: they are not.
    """

    url: SecretStr
    format: Literal["json", "slack"] = "json"
    signing_key: ApiKey | None = None

    @field_validator("url")
    @classmethod
    def _meant(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("https://", "http://", "env:", "file:")):
            raise ValueError("write https://..., env:NAME or file:PATH")
        return value

    @field_validator("signing_key", mode="before")
    @classmethod
    def _origin(cls, value: Any) -> Any:
        return as_api_keys([value])[0]


class AlertsSection(Section):
    """When somebody should look, and who is told.

    Attributes:
        webhooks: Who is told, beside the events `optimizer.alert.*`.
        silence: Alerts that nobody is told of.
        quota_low: The share of a quota (a limit of an hour or more) or a budget that is little, 0 to 1.
        error_rate: The share of a model's calls that may fail, 0 to 1.
        latency_factor: How many times as long as in the hour before a model's answers may take, by their 95th
            percentile; below one second nothing is slow.
        latency_s: How many seconds that percentile may be, whatever is normal; None: no bound.
        window_s: The seconds over which calls are looked at, in whole minutes.
        calls_at_least: With fewer calls in it, a window says nothing.
        resolve_after_s: Seconds for which all must be well before an alert is called resolved.
        repeat_after_s: Seconds after which one that still fires is told again; 0: never.
    """

    webhooks: tuple[Webhook, ...] = ()
    silence: tuple[AlertName, ...] = ()
    quota_low: float = Field(default=0.1, ge=0, lt=1)
    error_rate: float = Field(default=0.2, ge=0, le=1)
    latency_factor: float = Field(default=3.0, gt=1)
    latency_s: float | None = Field(default=None, gt=0)
    window_s: float = Field(default=300.0, ge=60, le=3600)
    calls_at_least: int = Field(default=20, ge=1)
    resolve_after_s: float = Field(default=120.0, ge=0)
    repeat_after_s: float = Field(default=4 * 3600.0, ge=0)


def as_api_keys(values: Any) -> Any:
    """Origins in place of their keys, in what was read."""
    if not isinstance(values, (list, tuple)):
        return values
    keys: list[Any] = []
    for value in values:
        if isinstance(value, str):
            if not value.startswith(("env:", "file:")):
                # The text must not repeat the value: it is most likely the key itself.
                raise ValueError("a key is written as 'env:NAME' or 'file:PATH', never in this file")
            keys.append(ApiKey(origin=value))
        else:
            keys.append(value)
    return keys
