"""What the doctor asks the providers: whether each key is taken, what is left, which models there are.

A list of models costs nothing, so it is what is asked for. Where it is open to everybody it proves
nothing about a key; then, and where there is none, only a call can tell. No text of a provider is
shown, since some quote the key they refuse; nor an exception's, since some hold the headers.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
from pydantic import SecretStr

from console.doctor_answers import AWAY, Answer, credit_left, offered_models, quota_left
from console.doctor_findings import Finding, fail, ok, warn
from producer_sdk.settings import masked
from topology.fleet import Provider
from topology.loading import ConfigurationError, with_secret
from topology.sections import ApiKey

AT_ONCE: Final = 8
_ANSWER_S: Final = 10.0
_OPENROUTER: Final = "openrouter"
_ANTHROPIC_VERSION: Final = "2023-06-01"


@dataclass(frozen=True)
class _Key:
    """A key to be checked; `secret` is None where there is none, and `problem` says why."""

    origin: str
    secret: SecretStr | None
    problem: Finding | None = None


async def check_providers(
    providers: Sequence[Provider], *, spend: bool, on_key: Callable[[], None]
) -> list[Finding]:
    """Checks every key of these providers, at most `AT_ONCE` requests at a time.

    Args:
        providers: Their keys need not be resolved.
        spend: Whether to make one call of one token with each key.
        on_key: Called as each key is done.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    checks = (_Provider(provider, gate, spend).check(on_key) for provider in providers)
    return [finding for findings in await asyncio.gather(*checks) for finding in findings]


def count_keys(providers: Sequence[Provider]) -> int:
    """How often `on_key` will be called for them."""
    return sum(len(account.api_keys) for provider in providers for account in provider.quota_owners)


class _Provider:
    def __init__(self, provider: Provider, gate: asyncio.Semaphore, spend: bool) -> None:
        self._provider = provider
        self._gate = gate
        self._spend = spend
        self._offered: set[str] = set()

    async def check(self, on_key: Callable[[], None]) -> list[Finding]:
        timeout = httpx.Timeout(_ANSWER_S)
        async with httpx.AsyncClient(base_url=self._provider.base_url, timeout=timeout) as http:
            nobody = await self._ask(http, "GET", "/models", None)
            if nobody.status == httpx.codes.OK:
                self._offered |= offered_models(nobody.body)
            keys = self._keys()
            findings = [] if keys else [self._without_keys(nobody)]
            findings += await asyncio.gather(*(self._check_key(http, key, nobody, on_key) for key in keys))
        return findings + self._models()

    def _keys(self) -> list[_Key]:
        """Each key, once: the same key under two names would count one quota twice."""
        seen: dict[str, str] = {}
        keys = []
        for account in self._provider.quota_owners:
            for api_key in account.api_keys:
                key = self._key(api_key)
                text = key.secret.get_secret_value() if key.secret else None
                if text in seen:
                    found = f"the same key as {seen[text]}: its quota would be counted twice"
                    key = _Key(key.origin, None, warn(self._check(key), found, "take one of them out"))
                elif text is not None:
                    seen[text] = key.origin
                keys.append(key)
        return keys

    def _key(self, api_key: ApiKey) -> _Key:
        origin = api_key.origin
        try:
            secret = with_secret(api_key, f"providers.{self._provider.name}.api_keys").secret
        except ConfigurationError as error:
            return _Key(origin, None, fail(f"key {self._provider.name} {origin}", str(error)))
        text = secret.get_secret_value() if secret else ""
        if not (text.isascii() and text.isprintable()) or " " in text:
            found = "holds characters that no key has"
            return _Key(
                origin, None, fail(f"key {self._provider.name} {origin}", found, f"write it anew to {origin}")
            )
        return _Key(origin, secret)

    def _check(self, key: _Key) -> str:
        return f"key {self._provider.name} {key.origin}"

    def _without_keys(self, answer: Answer) -> Finding:
        check, name = f"provider {self._provider.name}", self._provider.name
        if not self._provider.keyless:
            hint = f'api_keys = ["env:{self._provider.key_env or "NAME"}"]'
            return fail(check, "no key", f"add {hint} under [providers.{name}], or keyless = true")
        if answer.status is None:
            return self._away(check, answer)
        if answer.status in {401, 403}:
            return fail(
                check, f"asks for a key ({answer.status})", "give it api_keys instead of keyless = true"
            )
        return ok(check, f"answers at {masked(self._provider.base_url)}")

    def _away(self, check: str, answer: Answer) -> Finding:
        where = masked(self._provider.base_url)
        remedy = f"check base_url, network and proxy: {where}"
        if answer.failed == AWAY:
            return fail(check, f"{self._provider.name} cannot be reached", remedy)
        return warn(check, f"no answer within {_ANSWER_S:g} s", remedy)

    async def _check_key(
        self, http: httpx.AsyncClient, key: _Key, nobody: Answer, on_key: Callable[[], None]
    ) -> Finding:
        try:
            if key.problem is not None or key.secret is None:
                return key.problem or fail(self._check(key), "no key")
            if nobody.status is None:
                return self._away(self._check(key), nobody)
            if self._provider.name == _OPENROUTER:
                return self._judge_openrouter(key, await self._ask(http, "GET", "/key", key.secret))
            answer = await self._ask(http, "GET", "/models", key.secret)
            if answer.status == httpx.codes.OK:
                self._offered |= offered_models(answer.body)
            model = self._cheapest() if self._spend else None
            if model is not None and answer.status is not None:
                return self._judge_call(key, await self._call(http, key.secret, model), model)
            return self._judge_list(key, answer, is_open=nobody.status == httpx.codes.OK)
        finally:
            on_key()

    def _judge_openrouter(self, key: _Key, answer: Answer) -> Finding:
        """OpenRouter's list of models is open to everybody, but it tells each key how it stands."""
        if answer.status != httpx.codes.OK:
            return self._judge_list(key, answer, is_open=False)
        left, is_spent = credit_left(answer.body)
        return self._accepted(key, left, is_spent)

    def _judge_list(self, key: _Key, answer: Answer, is_open: bool) -> Finding:
        check = self._check(key)
        match answer.status:
            case None:
                return self._away(check, answer)
            case 401 | 403:
                return self._refused(key, answer.status)
            case 400 if answer.speaks_of_the_key:  # Gemini's word for a key that it does not know
                return self._refused(key, answer.status)
            case 200 if not is_open:
                return self._accepted(key, *quota_left(answer.headers))
            case 200:
                found = "not proven: the provider lists its models to everybody"
                return warn(check, found, "prove it with a call of one token: optimizer doctor --spend")
            case 404 | 405 | 501:
                found = f"not proven: the provider has no list of models ({answer.status})"
                return warn(check, found, "prove it with a call of one token: optimizer doctor --spend")
            case _:
                return self._unsure(check, answer.status)

    def _judge_call(self, key: _Key, answer: Answer, model: str) -> Finding:
        check = self._check(key)
        match answer.status:
            case None:
                return self._away(check, answer)
            case 401 | 403:
                return self._refused(key, answer.status)
            case 400 if answer.speaks_of_the_key:
                return self._refused(key, answer.status)
            case 200:
                return self._accepted(key, *quota_left(answer.headers))
            case 400 | 404 | 422:  # the key was looked at first
                found = f"accepted, but the call of {model} was not ({answer.status})"
                return warn(check, found, "take this model out of fleet.toml if it stays so")
            case _:
                return self._unsure(check, answer.status)

    def _accepted(self, key: _Key, left: Sequence[str], is_spent: bool) -> Finding:
        found = ", ".join(("accepted", *left))
        if is_spent:
            return warn(self._check(key), found, "its requests wait until the provider opens it again")
        return ok(self._check(key), found)

    def _refused(self, key: _Key, status: int) -> Finding:
        page = f" (see {self._provider.docs_url})" if self._provider.docs_url else ""
        remedy = f"put a valid key of {self._provider.title or self._provider.name} there{page}"
        return fail(self._check(key), f"refused by {self._provider.name} ({status})", remedy)

    def _unsure(self, check: str, status: int) -> Finding:
        match status:
            case 402:
                return warn(
                    check, "accepted, but without credit (402)", "buy some, or wait for the next period"
                )
            case 429:
                return warn(check, "the limit is reached (429)", "try again later")
            case _ if status >= 500:
                return warn(check, f"the provider is in trouble ({status})", "try again later")
            case _:
                return warn(check, f"an answer that tells nothing ({status})", "check base_url in fleet.toml")

    def _models(self) -> list[Finding]:
        """Whether what is configured is on offer; nothing where no list was seen."""
        listed = [model.id for model in self._provider.models]
        if not self._offered or not listed:
            return []
        check = f"models {self._provider.name}"
        absent = [model for model in listed if model not in self._offered]
        if not absent:
            return [ok(check, f"all {len(listed)} configured are among the {len(self._offered)} offered")]
        remedy = f"name those you use under [[providers.{self._provider.name}.models]] in fleet.toml"
        return [warn(check, f"not offered: {', '.join(absent)}", remedy)]

    def _cheapest(self) -> str | None:
        """The model for a call; None where only embeddings are listed, or nothing."""
        chatting = [model for model in self._provider.models if set(model.tasks) != {"embedding"}]
        on_offer = [model for model in chatting if model.id in self._offered] or chatting
        prices = {model.id: model.price for model in on_offer}
        return min(prices, key=lambda id_: (prices[id_] is None, prices[id_] or 0.0), default=None)

    async def _call(self, http: httpx.AsyncClient, secret: SecretStr, model: str) -> Answer:
        body = {"model": model, "messages": [{"role": "user", "content": "Say ok."}], "max_tokens": 1}
        return await self._ask(http, "POST", "/chat/completions", secret, body)

    async def _ask(
        self, http: httpx.AsyncClient, method: str, path: str, secret: SecretStr | None, body: Any = None
    ) -> Answer:
        headers = self._key_headers(path, secret.get_secret_value()) if secret else {}
        async with self._gate:
            try:
                async with asyncio.timeout(_ANSWER_S):
                    return Answer.of(await http.request(method, path, headers=headers, json=body))
            except (TimeoutError, httpx.TimeoutException) as error:
                return Answer.none(error)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                return Answer.none(error)

    def _key_headers(self, path: str, key: str) -> dict[str, str]:
        """Anthropic's list of models is not among what it offers in OpenAI's form."""
        if path == "/models" and httpx.URL(self._provider.base_url).host == "api.anthropic.com":
            return {"x-api-key": key, "anthropic-version": _ANTHROPIC_VERSION}
        return {"authorization": f"Bearer {key}"}
