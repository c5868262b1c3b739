"""The guards, each with what stands there without it and the tests that must notice."""

from typing import Final

from tests.mutants.running import Mutant

_ADMIT: Final = "broker/scripts/admit.lua"
_CLAIM: Final = "broker/scripts/claim.lua"
_COMMIT: Final = "broker/scripts/commit.lua"
_RENEW: Final = "broker/scripts/renew.lua"
_RELEASE: Final = "broker/scripts/release.lua"
_SETTLE: Final = "broker/scripts/settle.lua"
_HEDGE: Final = "broker/scripts/hedge.lua"

_FENCES: Final = (
    Mutant(
        "an error of whoever lost the claim ends the flight",
        "fence",
        _COMMIT,
        "if f.state and f.token ~= a.token then",
        "if false then",
        ("tests/broker/test_commit.py::test_an_error_is_taken_from_the_holder_of_the_claim_only",),
    ),
    Mutant(
        "an error replaces a result",
        "fence",
        _COMMIT,
        """    if f.state and f.token ~= a.token then
      settle()
      return {'stale'}
    end
""",
        "",
        ("tests/broker/test_commit.py::test_a_result_replaces_an_error_and_no_error_replaces_a_result",),
    ),
    Mutant(
        "whoever lost the claim gives it up for its new holder",
        "fence",
        _RELEASE,
        "if f.state ~= 'running' or f.token ~= a.token then",
        "if f.state ~= 'running' then",
        ("tests/broker/test_leases.py::test_a_claim_that_was_lost_cannot_be_released",),
    ),
    Mutant(
        "whoever lost the claim renews it for its new holder",
        "fence",
        _RENEW,
        "elseif not is_hedge and (f.state ~= 'running' or f.token ~= a.token) then",
        "elseif f.state ~= 'running' then",
        (
            "tests/broker/test_leases.py::test_a_worker_whose_claim_has_passed_to_another_is_told_that_it_is_lost",
        ),
    ),
    Mutant(
        "two workers run one flight",
        "fence",
        _CLAIM,
        "if leased then\n  return {'busy', text(f.lease_until)}\nend",
        "",
        ("tests/broker/test_claim.py::test_a_second_worker_finds_it_busy_until_the_lease_ends",),
    ),
    Mutant(
        "a second result is told as if it were the first",
        "fence",
        _COMMIT,
        "if f.state == 'done' and f.status == 'ok' then",
        "if false then",
        ("tests/broker/test_commit.py::test_a_second_result_is_a_duplicate_and_the_first_one_counts",),
    ),
)

_SETTLING: Final = (
    Mutant(
        "who was served is forgotten",
        "settle",
        _SETTLE,
        "  redis.call('ZADD', SERVED, text(math.max(waiter.deadline, now) + GRACE), waiter.key)\n",
        "",
        ("tests/broker/test_admit.py::test_a_request_that_was_served_is_recognised_for_good",),
    ),
    Mutant(
        "a waiter whose flight is done is admitted anew",
        "settle",
        _ADMIT,
        "if f.state == 'done' and redis.call('HEXISTS', WAITERS, a.key) == 1 then",
        "if false then",
        ("tests/broker/test_admit.py::test_a_waiter_whose_reply_is_still_to_come_is_known",),
    ),
    Mutant(
        "the waiter of a job is unknown to a Redis that was emptied",
        "settle",
        _COMMIT,
        "remember(a.key, a.waiter, a.deadline)\n",
        "",
        ("tests/broker/test_commit.py::test_after_a_flush_the_jobs_own_waiter_is_answered",),
    ),
    Mutant(
        "a job of long ago is bought again",
        "settle",
        _CLAIM,
        "if not f.state and a.deadline <= now then",
        "if false then",
        ("tests/broker/test_claim.py::test_an_unknown_job_past_its_deadline_is_expired",),
    ),
)

_RESERVES: Final = (
    Mutant(
        "a claim takes no permits",
        "reserve",
        _CLAIM,
        "take_permits(limits, probes, a.token, now, a.lease_s, a.permit_key, notes)\n",
        "",
        ("tests/broker/test_claim_permits.py::test_no_more_calls_run_than_the_concurrency_allows",),
    ),
    Mutant(
        "a retry that fails is given back",
        "reserve",
        "broker/scripts/permits.lua",
        "how.in_vain = #failed > 0\n",
        "\n",
        (
            "tests/broker/test_retries.py::test_a_quiet_provider_may_be_asked_again_a_few_times_and_then_the_job_is_parked",
        ),
    ),
    Mutant(
        "a retry that ends well is not given back",
        "reserve",
        "broker/scripts/retries.lua",
        "(note.took and 1 or 0) + (how.ok",
        "(how.ok",
        (
            "tests/broker/test_retries.py::test_a_retry_that_ends_well_is_given_back_so_that_those_who_waited_follow",
        ),
    ),
    Mutant(
        "a first attempt is held up by the retry budget",
        "reserve",
        _CLAIM,
        "if retries and not may_retry(a.retries, now) then",
        "if a.retries.key and not may_retry(a.retries, now) then",
        ("tests/broker/test_retries.py::test_first_attempts_are_never_held_up",),
    ),
    Mutant(
        "the lease of a running call ends while it runs",
        "reserve",
        _RENEW,
        "  redis.call('ZADD', key, text(now + a.lease_s), a.token) --",
        "  --",
        ("tests/broker/test_claim_permits.py::test_renewing_keeps_the_lease_too",),
    ),
    Mutant(
        "a refusal books no instant",
        "reserve",
        _ADMIT,
        "    redis.call('ZADD', limit.key, text(booked), a.key)\n",
        "",
        ("tests/broker/test_admit_limits.py::test_those_who_wait_pass_one_window_after_another",),
    ),
    Mutant(
        "a call of which nobody knows the end is no spend",
        "reserve",
        _CLAIM,
        "redis.call('HINCRBY', FLIGHT, 'spends', 1)\n",
        "",
        ("tests/broker/test_claim.py::test_after_max_spends_without_an_end_nobody_buys_again",),
    ),
    Mutant(
        "the bill is never booked",
        "reserve",
        "broker/scripts/permits.lua",
        "        settle_note(note, spent)\n",
        "",
        ("tests/broker/test_claim_permits.py::test_the_bill_replaces_what_was_reserved",),
    ),
    Mutant(
        "calls are taken to arrive at the instant of their grant",
        "reserve",
        "broker/scripts/limits.lua",
        "'-inf', text(now - limit.window_s - limit.slack_s))",
        "'-inf', text(now - limit.window_s))",
        ("tests/model/test_permits.py::test_a_sliding_window_ends_when_a_late_call_has_left_it_too",),
    ),
    Mutant(
        "the next permit is whoever's asks first",
        "reserve",
        "broker/scripts/turns.lua",
        "      if goes_first(limit, rank, ends, a, now) then",
        "      if false then",
        (
            "tests/broker/test_turns.py::test_a_free_permit_goes_to_the_more_urgent_class_that_waits_elsewhere",
        ),
    ),
    Mutant(
        "everybody tries what was closed, all at once",
        "reserve",
        "broker/scripts/closed.lua",
        "  elseif redis.call('EXISTS', key .. '|probe') == 1 then",
        "  elseif false then",
        ("tests/broker/test_closing.py::test_after_its_time_one_call_tries_what_was_closed",),
    ),
    Mutant(
        "what the provider says is left of a limit is not heard",
        "reserve",
        "workers/answering.py",
        "Result(outcome, event, keep_s=keep_s, bill=bill, left=left, parts=parts)",
        "Result(outcome, event, keep_s=keep_s, bill=bill, left=None, parts=parts)",
        ("tests/test_quotas.py::test_what_another_program_uses_of_a_limit_is_heard_from_the_provider",),
    ),
    Mutant(
        "a call that failed opens the circuit that it tried",
        "reserve",
        _COMMIT,
        "let_in = #a.failed == 0,",
        "let_in = true,",
        ("tests/broker/test_circuits.py::test_an_error_that_ends_a_flight_leaves_what_it_tried_closed",),
    ),
    Mutant(
        "what a retry tier gives back before its pause is over is tried at once",
        "order",
        "workers/execution.py",
        "if job.not_before > self._worker.clock.now():",
        "if False:",
        (
            "tests/test_retries.py::test_with_its_budget_used_up_whoever_may_be_asked_again_is_once_the_pause_is_over",
        ),
    ),
    Mutant(
        "an agent's next job has its turn at once, however many it has before",
        "order",
        "broker/scripts/lines.lua",
        ", tonumber(known[2] or '0'))",
        ", 0)",
        (
            "tests/broker/test_lines.py::test_who_has_a_lot_waiting_is_passed_by_those_who_come_later_with_less",
        ),
    ),
    Mutant(
        "an agent's own budget is not looked at",
        "reserve",
        "broker/scripts/claim.lua",
        "local own_refusal = refusal_of(a.own_budgets, now)",
        "local own_refusal",
        ("tests/broker/test_budgets.py::test_what_one_agent_has_spent_holds_up_no_other",),
    ),
    Mutant(
        "a permit that others wait for goes to a call that cannot end in time",
        "order",
        "broker/scripts/claim.lua",
        "if ends_at and ends_at > latest then",
        "if false then",
        ("tests/broker/test_late.py::test_a_permit_that_others_wait_for_is_for_a_call_that_can_end_in_time",),
    ),
    Mutant(
        "a class loses its place with the first of it that goes",
        "order",
        "broker/scripts/turns.lua",
        "redis.call('ZREM', marks, a.seat) == 1 and a.more then",
        "redis.call('ZREM', marks, a.seat) == 1 and false then",
        ("tests/broker/test_turns.py::test_a_class_with_more_waiting_keeps_its_place_when_one_of_it_goes",),
    ),
    Mutant(
        "a busy agent takes at one worker what others wait for at another",
        "order",
        "broker/scripts/rounds.lua",
        "elseif agent ~= place.agent and",
        "elseif false and",
        ("tests/broker/test_rounds.py::test_what_is_rounds_ahead_leaves_the_permit_to_who_waits_elsewhere",),
    ),
    Mutant(
        "an agent waits at one worker for what it has itself at another",
        "order",
        "broker/scripts/rounds.lua",
        "elseif agent ~= place.agent and",
        "elseif",
        ("tests/broker/test_rounds.py::test_it_waits_for_nobody_else",),
    ),
    Mutant(
        "the jobs of a hand lose their place with the first that goes",
        "order",
        "broker/scripts/rounds.lua",
        "  if turn and turn > 0 then",
        "  if false then",
        ("tests/broker/test_rounds.py::test_where_one_was_granted_the_next_in_that_hand_waits",),
    ),
    Mutant(
        "whom a limit lets pass too late waits for it",
        "order",
        "broker/scripts/claim.lua",
        "local is_late = refusal and refusal.at >= latest and",
        "local is_late = refusal and refusal.at < 0 and",
        ("tests/broker/test_late.py::test_who_waits_for_less_than_that_is_told_at_once",),
    ),
    Mutant(
        "a permit is good for ever",
        "reserve",
        "workers/calling.py",
        '            if event.endswith("send_request_headers.started"):',
        "            if False:",
        (
            "tests/test_late_calls.py::test_a_worker_that_was_frozen_with_a_permit_takes_another_before_it_calls",
        ),
    ),
)

_SIGNS_OF_LIFE: Final = (
    Mutant(
        "a flight without a job takes newcomers for ever",
        "life",
        _ADMIT,
        "local alive = now < f.published_at + backoff and (f.parked_until or 0) <= now",
        "local alive = true",
        (
            "tests/broker/test_admit.py::test_a_job_without_a_sign_of_life_is_led_anew_after_as_long_as_it_waited",
        ),
    ),
    Mutant(
        "the last to lead joins its own lost job",
        "life",
        _ADMIT,
        "if alive and f.published_by ~= a.key and",
        "if alive and",
        ("tests/broker/test_admit.py::test_a_leader_that_asks_again_leads_again_as_its_job_may_be_lost",),
    ),
    Mutant(
        "a durable request rests on somebody else's call",
        "life",
        _ADMIT,
        "if f.state == 'running' and f.lease_until > now and not a.durable then",
        "if f.state == 'running' and f.lease_until > now then",
        ("tests/broker/test_admit.py::test_a_durable_request_relies_on_nobody_elses_job_or_call",),
    ),
    Mutant(
        "an urgent duplicate waits behind the batch",
        "life",
        _ADMIT,
        "and rank <= a.rank and not a.durable then",
        "and not a.durable then",
        ("tests/broker/test_admit.py::test_a_more_urgent_request_leads_and_a_less_urgent_one_joins",),
    ),
)

_HEDGES: Final = (
    Mutant(
        "a flight is hedged again and again",
        "hedge",
        _HEDGE,
        "elseif f.hedge then",
        "elseif false then",
        ("tests/broker/test_hedge.py::test_a_call_that_takes_long_is_made_a_second_time_and_no_third",),
    ),
    Mutant(
        "a second call takes the permit that others wait for",
        "hedge",
        _HEDGE,
        "if is_marked(limit, a.rank, now) or next(marks_of_others(limit, a, now)) then",
        "if false then",
        ("tests/broker/test_hedge.py::test_none_takes_what_others_wait_for",),
    ),
    Mutant(
        "an error ends the flight that a second call may still answer",
        "hedge",
        _COMMIT,
        " or (f.hedge_until or 0) > now then",
        " then",
        ("tests/broker/test_hedge.py::test_an_error_of_the_first_waits_for_the_second",),
    ),
    Mutant(
        "all that takes long is made twice",
        "hedge",
        "workers/offering.py",
        " or self._saved < 1.0:",
        ":",
        (
            "tests/test_hedging.py::test_a_share_of_the_calls_that_take_long_is_made_twice_and_the_slow_one_is_cut",
        ),
    ),
)

_BOOKS: Final = (
    Mutant(
        "a call is made that is not in the books",
        "books",
        "workers/claimed_calls.py",
        "if not await self._telling.write_ahead(call, self._provider.timeout_s):",
        "if not await self._telling.write_ahead(call, self._provider.timeout_s) and False:",
        ("tests/test_books.py::test_nothing_is_called_while_rabbitmq_takes_no_entries",),
    ),
    Mutant(
        "what RabbitMQ did not take is not entered",
        "books",
        "workers/books.py",
        "        self._owed[Event.from_bytes(body).id] = body\n",
        "",
        ("tests/test_books.py::test_what_rabbitmq_did_not_take_is_entered_when_it_does",),
    ),
)

_ACKS: Final = (
    Mutant(
        "what is sent on is acknowledged before it is confirmed",
        "ack",
        "workers/moving.py",
        "        if not await self.published(delivery, message):",
        "        delivery.ack()\n        if not await self._worker.publisher.publish(message):",
        (
            "tests/test_acknowledging.py::test_a_request_is_answered_though_its_front_died_with_the_job_unsent",
        ),
    ),
    Mutant(
        "a copy is acknowledged although the job was not moved",
        "ack",
        "workers/moving.py",
        '            return LaterPlease(0.0, "own call")',
        "            return GoOn()",
        (
            "tests/test_handed_out_again.py::test_a_durable_request_is_answered_though_its_failed_job_could_not_be_moved",
        ),
    ),
    Mutant(
        "a job is acknowledged before its replies are confirmed",
        "ack",
        "workers/telling.py",
        "        reached = await self._replies.send_all(answers)\n        served",
        "        delivery.ack()\n        reached = await self._replies.send_all(answers)\n        served",
        (
            "tests/test_acknowledging.py::test_a_request_is_answered_though_its_backend_died_with_the_bought_answer_unsent",
        ),
    ),
    Mutant(
        "a job is acknowledged before its events are confirmed",
        "ack",
        "workers/telling.py",
        "        published = await self._publish(ended.events)\n        answers",
        "        delivery.ack()\n        published = await self._publish(ended.events)\n        answers",
        (
            "tests/test_acknowledging.py::test_a_request_is_answered_though_its_backend_died_with_the_bought_answer_unsent",
        ),
    ),
    Mutant(
        "events are acknowledged before they are in the database",
        "ack",
        "workers/recorder.py",
        "        await asyncio.to_thread(self._ledger.record, [entry for _, entry in fit])\n",
        "        for delivery, _ in fit:\n            delivery.ack()\n"
        "        await asyncio.to_thread(self._ledger.record, [entry for _, entry in fit])\n",
        (
            "tests/test_acknowledging.py::test_what_a_recorder_had_in_hand_when_it_died_is_recorded_by_the_next",
        ),
    ),
    Mutant(
        "a hit is acknowledged before its reply is confirmed",
        "ack",
        "workers/front.py",
        "                self._replies.tell(plan.answer,",
        "                plan.delivery.ack()\n                self._replies.tell(plan.answer,",
        (
            "tests/test_acknowledging.py::test_a_request_is_answered_though_its_front_died_with_the_stored_answer_unsent",
        ),
    ),
)

_CONFIRMS: Final = (
    Mutant(
        "a refused publish counts as confirmed",
        "confirm",
        "producer_sdk/transport.py",
        "    Confirmed.NACK: Published.REFUSED,",
        "    Confirmed.NACK: Published.CONFIRMED,",
        ("tests/test_books.py::test_nothing_is_called_while_rabbitmq_takes_no_entries",),
    ),
    Mutant(
        "what was lost with its connection counts as confirmed",
        "confirm",
        "producer_sdk/transport.py",
        "        lost_as = Published.NOWHERE if missing else Published.LOST",
        "        lost_as = Published.NOWHERE if missing else Published.CONFIRMED",
        (
            "tests/test_acknowledging.py::test_a_request_is_answered_though_the_job_was_lost_with_the_fronts_publishing_connection",
        ),
    ),
    Mutant(
        "a client that connects again does not ask again",
        "confirm",
        "producer_sdk/core.py",
        "return [self._transmit(request_id, call, now) for request_id, call in self._pending.items()]",
        "return []",
        ("tests/sdk/test_core.py::test_a_reconnect_sends_everything_pending_at_once",),
    ),
)

MUTANTS: Final = (*_ACKS, *_CONFIRMS, *_FENCES, *_SETTLING, *_RESERVES, *_SIGNS_OF_LIFE, *_HEDGES, *_BOOKS)
