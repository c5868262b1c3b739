"""The configuration of a fleet: what `fleet.toml` may say, as frozen values, validated whole."""

import hashlib
from collections.abc import Sequence
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from topology.limits import Limit, collect_short_forms, day_offset_s
from topology.names import ANY_LANE, slug
from topology.sections import (
    AlertsSection,
    ApiKey,
    BudgetsSection,
    CacheSection,
    FleetSection,
    GatewaySection,
    HedgingSection,
    LearningSection,
    PrioritiesSection,
    RecorderSection,
    Section,
    as_api_keys,
)

Kind = Literal["openai", "anthropic", "gemini"]
Rotation = Literal["round_robin", "least_used", "performance", "intelligent"]

DEFAULT_CONCURRENCY: Final = 8
_LONGEST_NAME: Final = 64


class Limited(Section):
    """A table that can hold limits, in the short form (`requests_per_minute`) or the long one."""

    limits: tuple[Limit, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, values: Any) -> Any:
        return collect_short_forms(values) if isinstance(values, dict) else values


class AccountDefaults(Limited):
    """Limits that each account of a provider has unless it states its own."""

    concurrency: int | None = Field(default=None, gt=0)


class Account(AccountDefaults):
    """Who owns a quota at a provider; its keys share it."""

    name: str = Field(min_length=1, max_length=64)
    api_keys: tuple[ApiKey, ...] = Field(min_length=1)

    @field_validator("api_keys", mode="before")
    @classmethod
    def _origins(cls, values: Any) -> Any:
        return as_api_keys(values)


class Model(Limited):
    """A model that a provider offers; limits on it are counted for each account.

    Attributes:
        id: The name that the provider knows it by.
        tasks: What it is good for: `general`, `code`, `reasoning`, `long_form`, `embedding`.
        capabilities: What it can do: `tools`, `json`, `vision`, `reasoning`, ...
        context_tokens: Prompt and answer together; None: not known.
        input_usd_per_mtok: USD for a million prompt tokens; None: not known, which is never zero.
        output_usd_per_mtok: USD for a million generated tokens.
        fallback_price: These prices count only where genai-prices knows none, as the catalogue's do; False:
            they are what is charged.
    """

    id: str = Field(min_length=1, max_length=256)
    tasks: tuple[str, ...] = ("general",)
    capabilities: tuple[str, ...] = ()
    context_tokens: int | None = Field(default=None, gt=0)
    max_output_tokens: int | None = Field(default=None, gt=0)
    input_usd_per_mtok: float | None = Field(default=None, ge=0)
    output_usd_per_mtok: float | None = Field(default=None, ge=0)
    fallback_price: bool = False
    concurrency: int | None = Field(default=None, gt=0)
    source: str | None = None
    as_of: str | None = None

    @property
    def lane(self) -> str:
        """`any`, or a lane of its own when the model has limits of its own."""
        return slug(self.id) if self.limits or self.concurrency else ANY_LANE

    @property
    def price(self) -> float | None:
        """USD per million tokens at three prompt tokens to one generated; None when not known."""
        if self.input_usd_per_mtok is None or self.output_usd_per_mtok is None:
            return None
        return (3 * self.input_usd_per_mtok + self.output_usd_per_mtok) / 4


class Provider(Limited):
    """An AI provider, as its pool needs it.

    Attributes:
        name: Its key under `[providers]`.
        kind: The wire protocol it speaks.
        base_url: Up to and with the version, such as `https://api.groq.com/openai/v1`.
        api_keys: Each an account of its own; where keys share a quota, use `accounts`.
        keyless: It takes calls without a key (a model server of your own).
        any_model: It takes model names that are not listed (routers, model servers).
        account: Limits that each account has unless it states its own.
        concurrency: Calls in flight over all replicas.
        day_resets_at: When its day ends, as `HH:MM UTC`.
        timeout_s: Seconds after which a call is given up.
        rotation: How an account is chosen.
        retry_budget: So many retries that fail may come, for each call that ends well, of all replicas; 1: as
            many as it takes.
    """

    name: str = Field(pattern=r"^[a-z0-9_-]{1,64}$")
    title: str | None = None
    kind: Kind = "openai"
    base_url: str = Field(pattern=r"^https?://")
    api_keys: tuple[ApiKey, ...] = ()
    accounts: tuple[Account, ...] = ()
    account: AccountDefaults = AccountDefaults()
    keyless: bool = False
    any_model: bool = False
    concurrency: int = Field(default=DEFAULT_CONCURRENCY, gt=0)
    day_resets_at: str = "00:00 UTC"
    timeout_s: float = Field(default=60.0, gt=0)
    rotation: Rotation = "least_used"
    retry_budget: float = Field(default=0.2, gt=0, le=1)
    models: tuple[Model, ...] = ()
    key_env: str | None = None
    docs_url: str | None = None
    source: str | None = None
    as_of: str | None = None
    terms: str | None = None

    @field_validator("api_keys", mode="before")
    @classmethod
    def _origins(cls, values: Any) -> Any:
        return as_api_keys(values)

    @field_validator("kind")
    @classmethod
    def _spoken(cls, value: Kind) -> Kind:
        if value != "openai":
            raise ValueError(f"{value!r} is not spoken yet; use the provider's OpenAI-compatible address")
        return value

    @field_validator("day_resets_at")
    @classmethod
    def _clock(cls, value: str) -> str:
        day_offset_s(value)
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, names in (
            ("accounts", [a.name for a in self.accounts]),
            ("models", [m.id for m in self.models]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise ValueError(f"{what}: {', '.join(sorted(twice))} is listed twice")
        return self

    @property
    def quota_owners(self) -> tuple[Account, ...]:
        """The accounts: those listed, then one for each key of `api_keys`, named after its origin."""
        own = tuple(
            Account(
                name=_account_name(key.origin, [k.origin for k in self.api_keys]),
                api_keys=(key,),
                limits=self.account.limits,
                concurrency=self.account.concurrency,
            )
            for key in self.api_keys
        )
        listed = tuple(
            account.model_copy(
                update={
                    "limits": account.limits or self.account.limits,
                    "concurrency": account.concurrency or self.account.concurrency,
                }
            )
            for account in self.accounts
        )
        return listed + own

    @property
    def lanes(self) -> tuple[str, ...]:
        """The lanes of its pool, `any` first."""
        return (ANY_LANE, *sorted({m.lane for m in self.models} - {ANY_LANE}))

    def model(self, model_id: str) -> Model | None:
        """The model of that id; an unlisted one where the provider takes any."""
        for model in self.models:
            if model.id == model_id:
                return model
        return Model(id=model_id) if self.any_model else None


class Fleet(Section):
    """The whole configuration."""

    fleet: FleetSection = FleetSection()
    cache: CacheSection = CacheSection()
    learning: LearningSection = LearningSection()
    budgets: BudgetsSection = BudgetsSection()
    priorities: PrioritiesSection = PrioritiesSection()
    hedging: HedgingSection = HedgingSection()
    gateway: GatewaySection = GatewaySection()
    recorder: RecorderSection = RecorderSection()
    alerts: AlertsSection = AlertsSection()
    providers: dict[str, Provider] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("providers"), dict):
            return {**values, "providers": {n: _named(n, t) for n, t in values["providers"].items()}}
        return values


def _named(name: str, table: Any) -> Any:
    if not isinstance(table, dict):
        return table
    if table.get("name", name) != name:
        raise ValueError(f"providers.{name}.name: the table's key is the provider's name; leave this out")
    return {**table, "name": name}


def _account_name(origin: str, origins: Sequence[str]) -> str:
    """Readable, and never the same for two origins: keys that share a name would share a quota."""
    name = slug(origin)
    if len(name) <= _LONGEST_NAME and [slug(other) for other in origins].count(name) == 1:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(origin.encode()).hexdigest()[:8]}"
