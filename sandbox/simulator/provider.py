"""The provider's judgement: who may call, what it costs, what becomes of the call."""

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.simulator import faults, replies
from sandbox.simulator.answers import answer_chat, answer_embeddings
from sandbox.simulator.ledger import Entry, Ledger, Outcome, Summary
from sandbox.simulator.limits import Limits
from sandbox.simulator.prompts import EmbeddingsPrompt, InvalidBodyError, Prompt
from sandbox.simulator.replies import Reply
from sandbox.simulator.settings import Fault, Model, Settings

_UNBILLED: frozenset[Fault] = frozenset({"server_error", "unavailable", "error_in_200", "rate_limited"})
_CONCURRENCY_WAIT_S = 0.1


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call in progress, with the reply it is to get after `wait_s` seconds."""

    entry: Entry
    fault: Fault
    wait_s: float
    reply: Reply

    @property
    def outcome(self) -> Outcome:
        """What becomes of the call if nobody ends it early."""
        return "ok" if self.fault == "slow" else self.fault


class Provider:
    """The state of a simulated provider; decides at once and never waits.

    Args:
        settings: What it is told; `change` replaces them.
        ledger_path: File for the ledger, appended to. `None`: memory only.
    """

    def __init__(self, settings: Settings, ledger_path: Path | None = None) -> None:
        self.settings = settings
        self.ledger = Ledger(ledger_path)
        self.in_flight = 0
        self._limits = Limits(settings)
        self._script = deque(settings.script)
        self._occurrences: Counter[str] = Counter()
        # Epoch seconds that no clock adjustment can turn back.
        self._epoch_s = time.time() - time.monotonic()

    def now(self) -> float:
        """The time in epoch seconds."""
        return self._epoch_s + time.monotonic()

    def change(self, changes: dict[str, Any]) -> None:
        """Merge `changes` into the settings; a `script` given replaces what is left of the old one.

        Raises:
            pydantic.ValidationError: The result is no valid settings; nothing has changed.
        """
        self.settings = self.settings.changed(changes)
        self._limits.settings = self.settings
        if "script" in changes:
            self._script = deque(self.settings.script)

    def reset(self) -> None:
        """Forget the ledger in memory, the use of limits, the script and what was seen."""
        self.ledger.clear()
        self._limits.clear()
        self._script.clear()
        self._occurrences.clear()

    def summary(self) -> Summary:
        """The ledger in figures."""
        return self.ledger.summary(self._limits.usage())

    def account(self, headers: Mapping[str, str]) -> str | None:
        """Whose bearer key this is, `None` if nobody's."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            return None
        if not self.settings.accounts:
            return "default"
        owners = (one.name for one in self.settings.accounts if key in one.keys)
        return next(owners, None)

    def judge(
        self,
        raw: bytes,
        headers: Mapping[str, str],
        read: Callable[[bytes], Prompt],
    ) -> Admitted | Reply:
        """Admit a call or refuse it, and enter it in the ledger either way.

        An admitted call is in flight until `finish`.

        Args:
            raw: Its body.
            headers: Its headers, names in lower case.
            read: How to read the body; raises `InvalidBodyError`.
        """
        account = self.account(headers)
        entry = Entry(
            seq=self.ledger.next_seq(),
            arrived_at=self.now(),
            request_id=headers.get("x-client-request-id"),
            call_id=headers.get("idempotency-key"),
            account=account,
            model=None,
            prompt_sha256=None,
            in_flight=self.in_flight + 1,
        )
        if account is None:
            return self._refuse(entry, "unauthorized", replies.unknown_key())
        try:
            prompt = read(raw)
        except InvalidBodyError as exc:
            return self._refuse(entry, "invalid", replies.bad_request(exc.message, exc.param))
        entry = entry.model_copy(
            update={
                "model": prompt.model,
                "prompt_sha256": prompt.sha256,
                "prompt_tokens": prompt.prompt_tokens,
            }
        )
        model = next((one for one in self.settings.models if one.id == prompt.model), None)
        if model is None:
            return self._refuse(entry, "invalid", replies.unknown_model(prompt.model))
        if lacking := prompt.params.intersection(model.lacks):
            return self._refuse(entry, "invalid", replies.unsupported(min(lacking)))
        return self._admit_within_limits(entry, account, prompt, model)

    def finish(self, call: Admitted, outcome: Outcome, status: int | None) -> None:
        """Say how an admitted call ended."""
        self.in_flight -= 1
        self.ledger.finish(call.entry, outcome, status, self.now())

    def _admit_within_limits(
        self, entry: Entry, account: str, prompt: Prompt, model: Model
    ) -> Admitted | Reply:
        tokens, now = self._charge_of(prompt), entry.arrived_at
        most = self.settings.concurrency
        refusal: Reply | None = None
        if most is not None and self.in_flight >= most:
            message = f"Too many concurrent requests: Limit {most}, Used {self.in_flight}."
            refusal = replies.throttled(message, "requests", _CONCURRENCY_WAIT_S)
        elif excess := self._limits.excess(account, model.id, tokens, now):
            refusal = replies.over_limit(model.id, account, excess)
        else:
            fate = self._fate(prompt.sha256)
            if fate.fault == "rate_limited":
                wait_s = self.settings.faults.retry_after_s
                refusal = replies.throttled("Rate limit reached.", "requests", wait_s)
        if refusal is None:
            self._limits.charge(account, model.id, tokens, now)
        standings = replies.limit_headers(self._limits.standings(account, model.id, now))
        if refusal is not None:
            return self._refuse(entry, "rate_limited", replies.with_headers(refusal, standings))
        entry = entry.model_copy(update={"charged_tokens": tokens})
        return self._admit(entry, prompt, model, fate, standings)

    def _admit(
        self,
        entry: Entry,
        prompt: Prompt,
        model: Model,
        fate: faults.Fate,
        headers: dict[str, str],
    ) -> Admitted:
        reply, completion_tokens, wait_s = self._reply(prompt, entry, fate)
        if fate.fault not in _UNBILLED:
            cost_usd = (
                prompt.prompt_tokens * model.input_usd_per_mtok
                + completion_tokens * model.output_usd_per_mtok
            ) / 1e6
            bill = {"billed": True, "completion_tokens": completion_tokens, "cost_usd": cost_usd}
            entry = entry.model_copy(update=bill)
        self.in_flight += 1
        self.ledger.add(entry)
        named = {"x-request-id": f"req_{entry.seq}"}
        return Admitted(entry, fate.fault, wait_s, replies.with_headers(reply, headers | named))

    def _reply(self, prompt: Prompt, entry: Entry, fate: faults.Fate) -> tuple[Reply, int, float]:
        """The reply, its completion tokens, and the seconds before its first byte."""
        if isinstance(prompt, EmbeddingsPrompt):
            vectors = answer_embeddings(prompt, self.settings)
            return replies.embeddings_reply(prompt, vectors, fate.fault), 0, fate.first_wait_s
        answer = answer_chat(prompt, self.settings)
        name = f"{self.settings.seed}:{prompt.sha256}:{self._occurrences[prompt.sha256]}"
        answer_id = f"chatcmpl-{hashlib.sha256(name.encode()).hexdigest()[:24]}"
        gap_s, wait_s = self.settings.latency.per_output_token_s, fate.first_wait_s
        created = int(entry.arrived_at)
        reply = replies.chat_reply(prompt, answer, fate.fault, answer_id, created, gap_s)
        if not prompt.stream and fate.fault != "timeout":
            wait_s += gap_s * answer.completion_tokens
        return reply, answer.completion_tokens, wait_s

    def _fate(self, sha256: str) -> faults.Fate:
        self._occurrences[sha256] += 1
        scripted = self._script.popleft() if self._script else None
        settings = self.settings
        nth = self._occurrences[sha256]
        return faults.draw(settings.faults, settings.latency, settings.seed, sha256, nth, scripted)

    def _charge_of(self, prompt: Prompt) -> int:
        if isinstance(prompt, EmbeddingsPrompt):
            return prompt.prompt_tokens
        return prompt.prompt_tokens + (prompt.max_tokens or self.settings.high_answer_tokens)

    def _refuse(self, entry: Entry, outcome: Outcome, reply: Reply) -> Reply:
        ending = {"outcome": outcome, "status": reply.status, "finished_at": self.now()}
        self.ledger.add(entry.model_copy(update=ending))
        return replies.with_headers(reply, {"x-request-id": f"req_{entry.seq}"})
