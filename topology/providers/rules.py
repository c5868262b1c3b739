"""What the errors of providers mean: rules on statuses, codes and known phrases, as data.

The first rule that holds decides: those of the provider, then those of all, then the status alone.
A rule that punishes a key or an account for a 400 looks only at how the message begins, since the
rest may quote the request.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from topology.errors import ErrorType
from topology.providers.bodies import MODERATED, UPSTREAM, ErrorBody
from topology.providers.outcomes import FailureKind, Scope


@dataclass(frozen=True)
class Verdict:
    """What an error means; the fields are those of `Failure`.

    Attributes:
        scope: None is whoever owns this provider's limits.
    """

    kind: FailureKind
    error_type: ErrorType
    scope: Scope | None
    needs_operator: bool = False


THROTTLED: Final = Verdict(FailureKind.THROTTLED, ErrorType.RATE_LIMITED, None)
THROTTLED_ACCOUNT: Final = Verdict(FailureKind.THROTTLED, ErrorType.RATE_LIMITED, Scope.ACCOUNT)
THROTTLED_MODEL: Final = Verdict(FailureKind.THROTTLED, ErrorType.RATE_LIMITED, Scope.MODEL)
THROTTLED_ADDRESS: Final = Verdict(FailureKind.THROTTLED, ErrorType.RATE_LIMITED, Scope.ADDRESS)
PERIOD_SPENT: Final = Verdict(FailureKind.QUOTA_GONE, ErrorType.RATE_LIMITED, None)
BUDGET_SPENT: Final = Verdict(FailureKind.QUOTA_GONE, ErrorType.BUDGET_EXHAUSTED, Scope.ACCOUNT)
KEY_BUDGET_SPENT: Final = Verdict(FailureKind.QUOTA_GONE, ErrorType.BUDGET_EXHAUSTED, Scope.KEY)
KEY_BUDGET_GONE: Final = Verdict(FailureKind.QUOTA_GONE, ErrorType.BUDGET_EXHAUSTED, Scope.KEY, True)
NO_MONEY: Final = Verdict(FailureKind.QUOTA_GONE, ErrorType.BUDGET_EXHAUSTED, Scope.ACCOUNT, True)
NO_QUOTA: Final = Verdict(FailureKind.QUOTA_GONE, ErrorType.BUDGET_EXHAUSTED, Scope.MODEL, True)
KEY_REFUSED: Final = Verdict(FailureKind.KEY_REFUSED, ErrorType.AUTHENTICATION, Scope.KEY, True)
ACCOUNT_REFUSED: Final = Verdict(FailureKind.KEY_REFUSED, ErrorType.AUTHENTICATION, Scope.ACCOUNT, True)
ADDRESS_REFUSED: Final = Verdict(FailureKind.KEY_REFUSED, ErrorType.AUTHENTICATION, Scope.ADDRESS, True)
MODEL_BUSY: Final = Verdict(FailureKind.CAPACITY, ErrorType.PROVIDER_ERROR, Scope.MODEL)
PROVIDER_BUSY: Final = Verdict(FailureKind.CAPACITY, ErrorType.PROVIDER_ERROR, Scope.PROVIDER)
NO_MODEL: Final = Verdict(FailureKind.REQUEST_AT_FAULT, ErrorType.NO_MODEL_AVAILABLE, Scope.MODEL)
TOO_LONG: Final = Verdict(FailureKind.REQUEST_AT_FAULT, ErrorType.CONTEXT_TOO_LONG, Scope.REQUEST)
FILTERED: Final = Verdict(FailureKind.REQUEST_AT_FAULT, ErrorType.CONTENT_FILTERED, Scope.REQUEST)
INVALID: Final = Verdict(FailureKind.REQUEST_AT_FAULT, ErrorType.INVALID_REQUEST, Scope.REQUEST)


@dataclass(frozen=True)
class Rule:
    """Holds when everything that it names does.

    Attributes:
        verdict: What the error then means.
        statuses: One of these; empty is any.
        words: One of these among the error's codes, types and reasons; empty is any.
        opening: How the message begins.
        phrase: What is said somewhere in the text.
    """

    verdict: Verdict
    statuses: frozenset[int] = frozenset()
    words: frozenset[str] = frozenset()
    opening: re.Pattern[str] | None = None
    phrase: re.Pattern[str] | None = None

    def holds(self, status: int, body: ErrorBody) -> bool:
        """Whether it is this rule's error."""
        return (
            (not self.statuses or status in self.statuses)
            and (not self.words or bool(self.words & body.words))
            and (self.opening is None or self.opening.match(body.message) is not None)
            and (self.phrase is None or self.phrase.search(body.text) is not None)
        )


def _rule(
    verdict: Verdict, statuses: str = "", words: str = "", *, opening: str = "", phrase: str = ""
) -> Rule:
    return Rule(
        verdict,
        frozenset(int(status) for status in statuses.split()),
        frozenset(words.split()),
        re.compile(opening, re.IGNORECASE) if opening else None,
        re.compile(phrase, re.IGNORECASE | re.DOTALL) if phrase else None,
    )


_BUSY: Final = r"overloaded|high (?:traffic|demand|load)|capacity|not ready yet"
_MODEL_BUSY: Final = r"\bmodel\b.{0,60}(?:overloaded|busy|high demand|not ready)|capacity.{0,40}\bmodel\b"
_MODEL_MISSING: Final = (
    r"\bmodels?\b.{0,160}(?:not exist|not found|decommissioned|deprecated"
    r"|no longer (?:supported|available)|not (?:available|supported))"
)
_INVALID_MODEL: Final = r"(?:the |requested )*" + _MODEL_MISSING + r"|(?:invalid|unknown) model\b"
_TOO_LONG: Final = (
    r"maximum context length|context (?:length|window|size)|prompt is too long|input token count"
    r"|maximum number of tokens|`inputs` tokens|maximum prompt length|too large for model"
)
_NO_MONEY: Final = r"insufficient (?:account )?(?:balance|credits?|funds)|out of credits"
_ACCOUNT_CLOSED: Final = (
    r"(?:this|your) (?:account|organization|project|team)\b.{0,80}"
    r"(?:disabled|deactivated|suspended|restricted|banned|terminated)"
)
_ADDRESS_BLOCKED: Final = (
    r"(?:country|region|territory|location)\b.{0,40}\bnot (?:supported|available|allowed)"
    r"|check your network settings|you have been blocked|attention required! \| cloudflare"
    r"|error code: 10(?:06|07|08|09|20)"
)
_FLAGGED: Final = r"flagged|moderation|content polic|considered high risk"
_PERIOD: Final = r"\bper[-_ ]?(?:day|week|month)|\b[rt]pd\b|\b(?:daily|weekly|monthly)\b"

PROVIDER_RULES: Final[Mapping[str, tuple[Rule, ...]]] = {
    # platform.claude.com/docs/en/api/errors; an empty balance and a spend limit come as a 400.
    "anthropic": (
        _rule(NO_MONEY, "400 402 403", opening=r"your credit balance is too low"),
        _rule(BUDGET_SPENT, "400 403 429", opening=r"you have reached your specified .{0,40}usage limits"),
        _rule(ACCOUNT_REFUSED, "400 401 403", opening=r"this organization has been disabled"),
    ),
    "cerebras": (_rule(PROVIDER_BUSY, "429", "queue_exceeded"),),
    # It answers a prompt that is too long with a 500.
    "deepinfra": (_rule(TOO_LONG, "400 413 422 500", opening=r"requested input length \d+ exceeds"),),
    "deepseek": (
        _rule(NO_MODEL, "400", opening=r"model not exist"),
        _rule(FILTERED, "400", opening=r"content exists risk"),
    ),
    # ai.google.dev/gemini-api/docs/troubleshooting; google.rpc.ErrorInfo for the key.
    "gemini": (
        _rule(NO_QUOTA, "429", phrase=r"\blimit: 0\b|doesn't have a free quota tier"),
        _rule(KEY_REFUSED, "400 401 403", "api_key_invalid"),
        _rule(KEY_REFUSED, "400 403", opening=r"(?:your )?api key (?:not|expired|was reported)"),
        _rule(ADDRESS_REFUSED, "400 403", opening=r"user location is not supported"),
        _rule(ADDRESS_REFUSED, "400", opening=r"gemini api free tier is not available"),
        _rule(ACCOUNT_REFUSED, "403", "service_disabled consumer_suspended"),
        _rule(ACCOUNT_REFUSED, "403", opening=r"your project has been denied access"),
    ),
    "groq": (_rule(ACCOUNT_REFUSED, "400 401 403", "organization_restricted"),),
    # platform.kimi.ai/docs/api/errors
    "moonshot": (
        _rule(NO_MONEY, "", "exceeded_current_quota_error"),
        _rule(PROVIDER_BUSY, "", "engine_overloaded_error"),
        _rule(TOO_LONG, "400", opening=r"(?:input token length too long|your request exceeded model token)"),
    ),
    # Its cloud: a session lasts hours, a week a week.
    "ollama": (
        _rule(NO_MODEL, "403", opening=r"this model requires a subscription"),
        _rule(PERIOD_SPENT, "429", phrase=r"(?:session|hourly|weekly|monthly) usage limit"),
    ),
    # openrouter.ai/docs/api/reference/errors-and-debugging: a 403 is moderation, a 402 with
    # `openrouter_in_flight_budget` passes by itself, budgets tell when they reset.
    "openrouter": (
        _rule(FILTERED, "400 403", MODERATED),
        _rule(KEY_BUDGET_SPENT, "402 403", "openrouter_key_limit"),
        _rule(KEY_BUDGET_SPENT, "402 403", opening=r"key limit exceeded \((?:daily|weekly|monthly)"),
        _rule(KEY_BUDGET_GONE, "402 403", opening=r"key limit exceeded"),
        _rule(BUDGET_SPENT, "402 403", "openrouter_guardrail_budget openrouter_workspace_budget"),
        _rule(THROTTLED_ACCOUNT, "402", "openrouter_in_flight_budget"),
        _rule(PERIOD_SPENT, "429", "openrouter_free_tier_daily"),
        _rule(THROTTLED_MODEL, "429", UPSTREAM),
        _rule(MODEL_BUSY, "401 402 403", UPSTREAM),
    ),
    # docs.together.ai/docs/rate-limits: a 503 is the platform's, a 429 ours.
    "together": (
        _rule(THROTTLED_MODEL, "429", "dynamic_request_limited dynamic_token_limited"),
        _rule(THROTTLED_ACCOUNT, "429", "credit_limit"),
        _rule(NO_MODEL, "400 403 404", "model_not_available dedicated_endpoint_not_running"),
        _rule(NO_MODEL, "400 403 404", opening=r"unable to access model"),
    ),
    "xai": (
        _rule(KEY_REFUSED, "400", opening=r"incorrect api key provided"),
        _rule(NO_MONEY, "403 429", phrase=r"credits|spending limit"),
    ),
}

COMMON_RULES: Final = (
    _rule(NO_MONEY, "", "insufficient_quota insufficient_balance"),
    _rule(NO_MONEY, "", "billing_hard_limit_reached billing_not_active"),
    _rule(ACCOUNT_REFUSED, "", "account_deactivated organization_deactivated"),
    _rule(ADDRESS_REFUSED, "", "unsupported_country_region_territory ip_not_authorized"),
    _rule(TOO_LONG, "", "context_length_exceeded string_above_max_length"),
    _rule(FILTERED, "", "content_filter content_policy_violation moderation_blocked invalid_prompt"),
    _rule(NO_MODEL, "400 403 404", "model_not_found model_decommissioned invalid_model"),
    # OpenAI and Groq: more tokens than fit into a minute's limit never pass, under 429 and 413 alike.
    _rule(TOO_LONG, "413 429", phrase=r"request too large for|tokens must be reduced"),
    _rule(NO_MONEY, "402 403 429", phrase=_NO_MONEY),
    _rule(ACCOUNT_REFUSED, "401 403", opening=_ACCOUNT_CLOSED),
    _rule(ADDRESS_REFUSED, "403 451", phrase=_ADDRESS_BLOCKED),
    _rule(ADDRESS_REFUSED, "451"),
    _rule(THROTTLED_ADDRESS, "429", phrase=r"error(?: code:)? 1015"),  # Cloudflare
    _rule(FILTERED, "400 403 422", phrase=_FLAGGED),
    _rule(NO_MODEL, "403 404", phrase=_MODEL_MISSING + r"|access to (?:this )?model"),
    _rule(NO_MODEL, "400 422", opening=_INVALID_MODEL),
    _rule(TOO_LONG, "400 413 422", phrase=_TOO_LONG),
    _rule(MODEL_BUSY, "429", phrase=_MODEL_BUSY),
    _rule(PROVIDER_BUSY, "429", phrase=_BUSY),
    _rule(PERIOD_SPENT, "429", phrase=_PERIOD),
    _rule(MODEL_BUSY, "500 502 503 504 529", phrase=_MODEL_BUSY),
)


def verdict_of_status(status: int) -> Verdict:
    """What the status alone says."""
    match status:
        case 401 | 403:
            return KEY_REFUSED
        case 402:
            return NO_MONEY
        case 404 | 410:
            return NO_MODEL
        case 408 | 409 | 425:
            return PROVIDER_BUSY
        case 429:
            return THROTTLED
        case _:
            return PROVIDER_BUSY if status >= 500 else INVALID
