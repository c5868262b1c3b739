"""Which limits a claim must pass, in the form that `claim.lua` takes."""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from broker.budgets import Budgets
from broker.controls import paused_key
from broker.terms import ClaimTerms, Place
from topology import names
from topology.estimates import AnswerLengths, answer_bound, estimated_cost_usd, estimated_tokens
from topology.fleet import Account, Fleet, Model, Provider
from topology.limits import Limit, day_offset_s
from topology.messages import Job, Usage
from topology.names import Priority
from topology.pauses import jittered
from topology.providers.outcomes import Said, Scope

KEYLESS: Final = "keyless"
"""The account of a provider that takes calls without a key."""

CONCURRENCY: Final = "concurrency"
"""So end the names of limits on the calls in flight."""

_AT_ONCE: Final = 0.1
"""Of what is paced, this share may be used at once, and the rest as the window passes."""
_LEVEL_OF: Final = {Scope.MODEL: 0, Scope.KEY: 1, Scope.ACCOUNT: 1, Scope.PROVIDER: -1, Scope.ADDRESS: -1}
"""Where to begin to look, among the levels from the narrowest to the widest."""
_SPARED_S: Final = 5.0
"""Before a used-up retry budget is looked at again, on average."""
_NO_COSTS: Final = {"requests": 0.0, "tokens": 0.0, "usd": 0.0}
Limits = tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Permits:
    """Builds the terms of claims for one provider.

    Args:
        fleet: The configuration.
        provider: Whose calls these are.
        prefix: What all keys begin with, as `Flights.prefix`.
        worker: The worker's id, new for each process.
        answers: What the provider's answers hold; learned from what is `billed`.
    """

    fleet: Fleet
    provider: Provider
    prefix: str
    worker: str
    answers: AnswerLengths = field(default_factory=AnswerLengths, compare=False)

    def terms(self, job: Job, model: Model, *, more: bool = False, place: Place | None = None) -> ClaimTerms:
        """The terms under which this job may be claimed; `more` wait for the same permits here."""
        costs, priority = self._costs(job, model), job.waiter.priority
        name = self.provider.name
        token, now = secrets.token_hex(12), time.time()
        return ClaimTerms(
            worker=self.worker,
            token=token,
            max_spends=self.fleet.fleet.max_spends,
            call={
                "call": call_id(job.fingerprint, token),
                "provider": name,
                "model": model.id,
                "request_id": job.waiter.id,
                "agent": job.waiter.agent,
                "worker": self.worker,
            },
            limits=self._shared(costs, priority),
            closed=(self.closed_key(),),
            paused=(paused_key(self.prefix), name),
            accounts=self._accounts(model, costs, priority),
            used_key=self.used_key(),
            rotation=self.provider.rotation,
            notes_key=f"{self.prefix}accounts:{name}",
            rank=priority.rank,
            shares=tuple(self.fleet.priorities.shares.values()),
            seat=f"{self.worker}:{model.lane}",
            more=more,
            lines=tuple(order_key(self.prefix, names.jobs_queue(name, model.lane, one)) for one in Priority),
            place=place,
            budgets=self._budgets.of_fleet(costs["usd"], now),
            own_budgets=self._budgets.of_agent(job.waiter.agent, costs["usd"], now),
            retries=self._retries(job.waiter.deadline - now),
        )

    def limits_of_lane(self, lane: str, priority: Priority) -> tuple[Limits, dict[str, Limits]]:
        """What every call of this class in this lane must pass: the shared limits, and those of each account.

        What a call costs is left open.
        """
        models = (model for model in self.provider.models if model.lane == lane)
        model = next(models, Model(id="any"))
        accounts = self._accounts(model, _NO_COSTS, priority)
        return self._shared(_NO_COSTS, priority), {a["name"]: tuple(a["limits"]) for a in accounts}

    def _shared(self, costs: Mapping[str, float], priority: Priority) -> Limits:
        name = self.provider.name
        return (
            *self.limits_of_fleet(),
            *self._leases_of_provider(),
            *(self._rate(name, limit, costs, priority) for limit in self.provider.limits),
        )

    def _accounts(self, model: Model, costs: Mapping[str, float], priority: Priority) -> Limits:
        owners: Iterable[Account | None] = self.provider.quota_owners or (None,)
        return tuple(self._account(owner, model, costs, priority) for owner in owners)

    def _retries(self, left_s: float) -> dict[str, Any] | None:
        """The retry budget; None where every failed call may be followed by another."""
        name, share = self.provider.name, self.provider.retry_budget
        if share == 1:
            return None
        key = retries_key(self.prefix, name)
        return {"provider": name, "key": key, "share": share, "park_s": jittered(_SPARED_S, left_s)}

    @property
    def _budgets(self) -> Budgets:
        return Budgets(self.fleet.budgets, self.prefix)

    def used_key(self) -> str:
        """Where the calls of each account in this UTC day are counted."""
        return f"{self.prefix}used:{self.provider.name}:{datetime.now(UTC):%Y-%m-%d}"

    def limits_of_fleet(self) -> tuple[dict[str, Any], ...]:
        """What holds for the calls of all providers together."""
        return self._leases("fleet", self.fleet.fleet.concurrency)

    def limits_of_provider(self) -> list[dict[str, Any]]:
        """What holds for all accounts together; here and below at no cost, to look at."""
        return [
            *self._leases_of_provider(),
            *self._rates_at_no_cost(self.provider.name, self.provider.limits),
        ]

    def limits_of_account(self, account: Account) -> list[dict[str, Any]]:
        """An account's own limits, whichever model is called."""
        scope = f"{self.provider.name}:{account.name}"
        return [*self._leases(scope, account.concurrency), *self._rates_at_no_cost(scope, account.limits)]

    def limits_of_model(self, account: str, model: Model) -> list[dict[str, Any]]:
        """A model's own limits, as they are counted for this account."""
        scope = f"{self.provider.name}:{account}:{model.id}"
        return [*self._leases(scope, model.concurrency), *self._rates_at_no_cost(scope, model.limits)]

    def limit_of(self, limit: Limit, *scope: str) -> dict[str, Any]:
        """A limit of the provider, or of an account, or of an account's model, to ask what is left of it."""
        return self._rate(":".join((self.provider.name, *scope)), limit, _NO_COSTS, Priority.HIGH)

    def closed_key(self, *scope: str) -> str:
        """What closes the provider, or a part of it: an account, a key's origin, a model of an account."""
        return closed_key(self.prefix, self.provider.name, *scope)

    def parts_of(self, account: str, model: Model) -> tuple[str, ...]:
        """What would close parts of the provider that a call with this account has used."""
        return self.closed_key(), self.closed_key(account), self.closed_key(account, model.id)

    def left_of(self, account: str, model: Model, said: Iterable[Said]) -> dict[str, float]:
        """What a provider's answer says is left of the limits that a claim took permits of, by their keys.

        A limit is known by its unit and window, at the level of which the answer speaks, or at the nearest
        above. One whose window is not told is meant only where there is no other of its unit.
        """
        left: dict[str, float] = {}
        levels = list(self._levels(account, model))
        for one in said:
            for scope, limits in levels[_LEVEL_OF.get(one.scope, len(levels)) :]:
                alike = [limit for limit in limits if limit.unit == one.unit]
                meant = [limit for limit in alike if limit.window_s == one.window_s]
                if one.window_s is None and len(alike) == 1:
                    meant = alike
                if meant and one.remaining is not None:
                    key = self._rate_key(scope, meant[0])
                    left[key] = min(one.remaining, left.get(key, one.remaining))
                if meant:
                    break
        return left

    def _levels(self, account: str, model: Model) -> Iterator[tuple[str, tuple[Limit, ...]]]:
        """Where limits stand that hold for a call, from the narrowest to the widest, each with its scope."""
        provider = self.provider.name
        yield f"{provider}:{account}:{model.id}", model.limits
        for owner in self.provider.quota_owners:
            if owner.name == account:
                yield f"{provider}:{account}", owner.limits
        yield provider, self.provider.limits

    def _rate_key(self, scope: str, limit: Limit) -> str:
        return f"{self.prefix}rate:{scope}:{limit.name}"

    def leases_of(self, account: str, terms: ClaimTerms) -> tuple[str, ...]:
        """The concurrency leases that a claim holds, to be renewed with it."""
        return tuple(limit["key"] for limit in terms.limits_of(account) if limit["kind"] == "lease")

    def _account(
        self, account: Account | None, model: Model, costs: Mapping[str, float], priority: Priority
    ) -> dict[str, Any]:
        name = account.name if account else KEYLESS
        scope = f"{self.provider.name}:{name}"
        origins = [key.origin for key in account.api_keys] if account else ["none"]
        return {
            "name": name,
            "closed": [self.closed_key(name), self.closed_key(name, model.id)],
            "keys": [{"closed": [self.closed_key(name, origin)]} for origin in origins],
            "limits": [
                *self._leases(scope, account.concurrency if account else None),
                *self._leases(f"{scope}:{model.id}", model.concurrency),
                *(self._rate(scope, limit, costs, priority) for limit in (account.limits if account else ())),
                *(self._rate(f"{scope}:{model.id}", limit, costs, priority) for limit in model.limits),
            ],
        }

    def _leases(self, scope: str, amount: int | None) -> tuple[dict[str, Any], ...]:
        if amount is None:
            return ()
        key = f"{self.prefix}lease:{scope}"
        return ({"kind": "lease", "key": key, "amount": amount, "name": f"{scope} {CONCURRENCY}"},)

    def _leases_of_provider(self) -> tuple[dict[str, Any], ...]:
        name = self.provider.name
        adapts = f"{self.prefix}adapted:{name}"
        return tuple({**lease, "adapts": adapts} for lease in self._leases(name, self.provider.concurrency))

    def _rates_at_no_cost(self, scope: str, limits: Iterable[Limit]) -> list[dict[str, Any]]:
        return [self._rate(scope, limit, _NO_COSTS, Priority.HIGH) for limit in limits]

    def _rate(
        self, scope: str, limit: Limit, costs: Mapping[str, float], priority: Priority
    ) -> dict[str, Any]:
        return {
            "kind": limit.counting,
            "key": self._rate_key(scope, limit),
            "amount": limit.amount,
            "window_s": limit.window_s,
            "slack_s": limit.slack_s,
            "unit": "reserved_tokens" if (limit.unit, limit.charge) == ("tokens", "reserved") else limit.unit,
            "cost": costs[limit.unit],
            "name": f"{scope} {limit.name}",
            **({"offset_s": day_offset_s(self.provider.day_resets_at)} if limit.counting == "fixed" else {}),
            **(self._pace(priority) if limit.is_long else {}),
            **({"burst": limit.burst or limit.amount} if limit.counting == "bucket" else {}),
        }

    def _pace(self, priority: Priority) -> dict[str, Any]:
        """What of a quota each class may use when."""
        shares = self.fleet.priorities
        pace: dict[str, Any] = {}
        if priority is Priority.BATCH and shares.pace_batch:
            pace["at_once"] = _AT_ONCE
        if shares.reserve_for_high:
            pace |= {"keeps": True} if priority is Priority.HIGH else {"kept": shares.reserve_for_high}
        return pace

    def _costs(self, job: Job, model: Model) -> dict[str, float]:
        unbounded = self.answers.expected(model.id)
        return {
            "requests": 1.0,
            "tokens": float(sum(estimated_tokens(job.request, unbounded))),
            # A price that is not known cannot be held against a budget; the reports say so.
            "usd": estimated_cost_usd(model, job.request, unbounded) or 0.0,
        }

    def billed(self, job: Job, usage: Usage, price_usd: float | None) -> dict[str, float]:
        """What a call that ended well takes of its limits, by unit; a missing unit stays as it was reserved.

        Providers that count from a request's arrival count the prompt and the bound on the answer, whatever
        is generated; where the request states no bound, what was generated is the best that is known, and
        what the next one will be expected to hold is learned from it.
        """
        bill = {"requests": 1.0}
        if usage.prompt_tokens is not None and usage.completion_tokens is not None:
            bill["tokens"] = float(usage.prompt_tokens + usage.completion_tokens)
            answer = answer_bound(job.request)
            if answer is None:
                answer = usage.completion_tokens
                self.answers.learn(job.candidate.model, answer)
            bill["reserved_tokens"] = float(usage.prompt_tokens + answer)
        if price_usd is not None:
            bill["usd"] = price_usd
        return bill


def closed_key(prefix: str, provider: str, *scope: str) -> str:
    """What closes a provider, or a part of it."""
    return ":".join((f"{prefix}closed", provider, *scope))


def order_key(prefix: str, queue: str) -> str:
    """Whose turn it is in a line: that of this queue and those beside it."""
    return f"{prefix}line:{queue}|*"


def retries_key(prefix: str, provider: str) -> str:
    """What holds the instant from which the provider may be asked once more for what it has failed."""
    return f"{prefix}retries:{provider}"


def call_id(fingerprint: str, token: str) -> str:
    """The name of one call: its flight, and the claim that it was made under."""
    return f"{fingerprint}-{token}"
