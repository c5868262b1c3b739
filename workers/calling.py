"""Calling one provider over HTTP."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import httpx

from topology.errors import ErrorType
from topology.fleet import Provider
from topology.messages import Job
from topology.providers import openai
from topology.providers.outcomes import Completion, Failure, FailureKind

log = logging.getLogger("optimizer.calling")

_CONNECT_TIMEOUT_S: Final = 10.0

_UNSENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)
"""How httpx says that not a byte of the request has left."""


class ProviderClient:
    """The HTTP connections to one provider.

    Every way in which a call can end is a value.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._accounts = {account.name: account for account in provider.quota_owners}
        self._secrets = [
            key.secret.get_secret_value()
            for account in provider.quota_owners
            for key in account.api_keys
            if key.secret is not None
        ]
        self._http = httpx.AsyncClient(
            base_url=provider.base_url,
            timeout=httpx.Timeout(provider.timeout_s, connect=_CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=provider.concurrency + 1, keepalive_expiry=30.0),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def call(
        self,
        job: Job,
        account: str,
        key_index: int,
        call_id: str,
        before_first_byte: Callable[[], Awaitable[None]],
    ) -> Completion | Failure:
        """Calls the provider once for this job, within the provider's `timeout_s`.

        Args:
            job: What is asked.
            account: Whose key is used.
            key_index: Which of its keys.
            call_id: Told to the provider, as `idempotency-key`.
            before_first_byte: Awaited when the connection stands and the request goes out with the next step.
                What it raises ends the call unsent, and is passed on.
        """
        request, model = job.request, job.candidate.model

        async def trace(event: str, _: object) -> None:
            if event.endswith("send_request_headers.started"):
                await before_first_byte()

        try:
            async with asyncio.timeout(self._provider.timeout_s):
                answer = await self._http.post(
                    openai.path_of(request),
                    content=openai.body_of(request, model),
                    headers=self._headers(job, account, key_index) | {"idempotency-key": call_id},
                    extensions={"trace": trace},
                )
        except _UNSENT as error:
            message = f"{self._provider.name} cannot be reached ({type(error).__name__})"
            return Failure(FailureKind.UNSENT, ErrorType.PROVIDER_ERROR, message)
        except (TimeoutError, httpx.TimeoutException):
            message = f"{self._provider.name} did not answer within {self._provider.timeout_s:g} s"
            return Failure(FailureKind.AMBIGUOUS, ErrorType.PROVIDER_ERROR, message)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            message = f"{self._provider.name} cut the answer off ({type(error).__name__})"
            return Failure(FailureKind.AMBIGUOUS, ErrorType.PROVIDER_ERROR, message)
        return openai.read_answer(
            request.operation,
            answer.status_code,
            answer.headers,
            answer.content,
            provider=self._provider.name,
        )

    def _headers(self, job: Job, account: str, key_index: int) -> dict[str, str]:
        headers = {
            "content-type": "application/json",
            # OpenAI's own name for the caller's id of a call; what the provider's records are found by.
            "x-client-request-id": quote(job.waiter.id, safe=""),  # a header holds ASCII
        }
        owner = self._accounts.get(account)
        secret = owner.api_keys[key_index].secret if owner else None
        if secret is not None:
            headers["authorization"] = f"Bearer {secret.get_secret_value()}"
        return headers
