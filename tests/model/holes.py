"""Holes that the protocol had, each opened again in memory, and the search that must find it.

The letters are those of a review of an earlier form. Those beginning with N were found by this model.
`GUARDED` names, for what a model of one flight cannot show, the tests that hold it shut.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.model.flight import Ask
from tests.model.scenarios import (
    BURIED,
    HURRIED,
    KEPT_1,
    KEPT_2,
    OFF,
    R1,
    R2,
    REFRESH,
    URGENT,
    scenario,
)
from tests.model.world import Rules, Scenario


@dataclass(frozen=True)
class Hole:
    """One rule taken away.

    Attributes:
        what: The rule.
        patches: Text of the scripts, and what stands there instead. It must be there exactly once.
        overrides: Arguments of the scripts, and what is passed instead.
    """

    name: str
    what: str
    scenario: Scenario
    patches: Mapping[str, str] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    overrides: Mapping[str, Any] = field(default_factory=dict)


def _hole(name: str, what: str, where: Scenario, *patches: tuple[str, str], **rules: bool) -> Hole:
    return Hole(name, what, where, dict(patches), Rules(**rules))


_JOIN: Final = "if alive and f.published_by ~= a.key and rank <= a.rank and not a.durable then"
_REMEMBER: Final = "remember(a.key, a.waiter, a.deadline)\n\nlocal repeated"

HOLES: Final = (
    _hole(
        "C1", "the record outlives its messages",
        scenario("an old copy", BURIED, URGENT),
        ("math.ceil(kept)\n", "math.ceil(tonumber(redis.call('HGET', FLIGHT, 'fresh_until') or kept))\n"),
    ),
    _hole(
        "C2", "joined needs a sign of life",
        scenario("no job", R1, R2, front_kills=1),
        (_JOIN, "if not a.durable then"),
    ),
    _hole(
        "C3", "whoever was served is known for good",
        scenario("handed out again", OFF, front_kills=1),
        ("  redis.call('ZADD', SERVED, text(math.max(waiter.deadline, now) + GRACE), waiter.key)\n", ""),
    ),
    _hole(
        "H1", "a durable request never rests on Redis alone",
        scenario("joined", R1, KEPT_2, flushes=1),
        (_JOIN, _JOIN.replace(" and not a.durable", "")),
        ("if f.state == 'running' and f.lease_until > now and not a.durable then",
         "if f.state == 'running' and f.lease_until > now then"),
    ),
    _hole(
        "H2", "commit remembers the job's own waiter",
        scenario("forgotten", KEPT_1, flushes=1),
        (_REMEMBER, "local repeated"),
    ),
    _hole(
        "H6a", "errors are taken from the claim's holder only",
        scenario("a late error", R1, freezes=1, faults=1),
        ("    if f.state and f.token ~= a.token then\n", "    if false then\n"),
    ),
    _hole(
        "H6c", "an error gives way to whoever has time",
        scenario("a follower", Ask("r1", timeout_s=0.5), R2, must="r2", failures=1),
        ("a.retry_at > 0 and latest_deadline() > a.retry_at", "a.retry_at > 0 and a.deadline > a.retry_at"),
    ),
    _hole(
        "H6d", "a result replaces an error",
        scenario("a late result", R1, freezes=1, faults=1),
        ("    if f.state == 'done' and f.status == 'ok' then\n", "    if f.state == 'done' then\n"),
    ),
    _hole(
        "H9", "the last told to lead is told again",
        scenario("no publish", Ask("r1", timeout_s=25.0), front_kills=1),
        (_JOIN, _JOIN.replace(" and f.published_by ~= a.key", "")),
    ),
    _hole(
        "C2/raise", "an urgent newcomer leads",
        scenario("behind the batch", BURIED, URGENT),
        (_JOIN, _JOIN.replace(" and rank <= a.rank", "")),
    ),
    Hole(
        "H10", "leases are short",
        scenario("a minute's lease", HURRIED, kills=1),
        overrides={"lease_s": 60.0},
    ),
    _hole(
        "M1", "no deadline cuts a running call",
        scenario("the leader leaves", Ask("r1", timeout_s=20.0), R2, must="r2", delays=1),
        cut_at_deadline=True,
    ),
    _hole(
        "M2/reopened", "a call older than the refresh does not answer it",
        scenario("too old", R1, REFRESH, freezes=1),
        ("    if f.opened and a.started < f.opened and f.token ~= a.token then\n", "    if false then\n"),
    ),
    _hole(
        "M3", "a worker's name is its process's",
        scenario("the same name", R1, kills=1),
        name_survives=True,
    ),
    _hole(
        "M4", "events wait like a waiter",
        scenario("no event", R1, kills=1),
        ("'done', f.outcome, f.payer or '', f.events or ''", "'done', f.outcome, f.payer or '', ''"),
    ),
    _hole(
        "M4/reopened", "events that nobody has published outlive the refresh of their flight",
        scenario("no event of the first", R1, REFRESH, kills=1),
        ("'events', (f.events or '') .. a.events", "'events', a.events"),
    ),
    _hole(
        "M4/settled", "only the events that were published are taken out",
        scenario("a second result", R1, REFRESH, kills=1),
        ("string.sub(events, #a.events + 1))", "'')"),
        ("  if string.sub(events, 1, #a.events) == a.events then", "  if true then"),
    ),
    _hole(
        "M4/expired", "what nobody waits for any more still has its events",
        scenario("nobody waits", HURRIED, Ask("r2", max_age_s=0.0, timeout_s=30.0), must="", kills=2),
        ("return {'expired', f.events or '', doubts}", "return {'expired', '', doubts}"),
    ),
    _hole(
        "M8", "what may be billed stays counted",
        scenario("without bound", R1, timeouts=3),
        ("if f.call and not a.billed and f.spends > 0 then", "if f.call and f.spends > 0 then"),
    ),
    _hole(
        "N1", "the claim of a spent flight gives no spend back",
        scenario("its own copy", R1, kills=2, resends=1),
        ("if f.call and not a.billed and f.spends > 0 then", "if not a.billed and f.spends > 0 then"),
    ),
    _hole(
        "N2", "a duplicate result tells the job's own waiter too",
        scenario("two calls after a flush", R1, KEPT_2, flushes=1),
        (_REMEMBER, "local repeated"),
        ("    if f.opened and a.started", f"    {_REMEMBER.splitlines()[0]}\n    if f.opened and a.started"),
    ),
    _hole(
        "N6", "who comes second publishes the events that the first has left",
        scenario("the first dies", R1, freezes=1, kills=1),
        ("return answer('duplicate', '0', f.events or '')", "return answer('duplicate', '0', '')"),
    ),
    _hole(
        "N7", "a doubt is named until the holder of a claim has passed it on",
        scenario("two die with a claim", R1, kills=2),
        ("(f.doubts or '') .. (f.state", "(f.state"),
    ),
    _hole(
        "N3", "a failed try after a flush is no end",
        scenario("forgotten, and failed", R1, flushes=1, failures=1),
        (_REMEMBER, "local repeated"),
        ("return answer('stored',", "remember(a.key, a.waiter, a.deadline)\nreturn answer('stored',"),
    ),
    _hole(
        "N4", "another request's job that waited for its own worker's call is looked at again",
        scenario("two jobs, one worker", R1, KEPT_2, flushes=1),
        own_is_dealt_with=True,
    ),
    _hole(
        "N8", "a copy of a job is looked at again where its worker could not move the one that it had",
        scenario("failed, and cut", KEPT_1, failures=1, cuts=1),
        left_is_dealt_with=True,
    ),
    _hole(
        "N5", "a job whose error came too late is looked at again",
        scenario("stale", KEPT_1, R2, flushes=1, failures=1),
        stale_is_dealt_with=True,
    ),
    _hole(
        "hedge/told", "a job whose call was cut, since another had brought the answer, is looked at again",
        scenario("the faster one dies", KEPT_1, hedges=1, kills=1),
        answered_is_dealt_with=True,
    ),
    _hole(
        "hedge/error", "an error gives way to a second call that may still answer",
        scenario("it fails for good", R1, hedges=1, faults=1),
        (" or (f.hedge_until or 0) > now then\n      return {'living'}", " then\n      return {'living'}"),
    ),
    _hole(
        "front/confirm", "a front acknowledges after the confirm",
        scenario("acknowledged", KEPT_1, front_kills=1),
        front_acks_first=True,
    ),
    _hole(
        "backend/ack", "a worker acknowledges last",
        scenario("acknowledged", KEPT_1, kills=1),
        worker_acks_first=True,
    ),
    _hole(
        "backend/settle", "a waiter is settled after its reply is out",
        scenario("settled", KEPT_1, kills=1),
        settles_first=True,
    ),
)  # fmt: skip

GUARDED: Final[Mapping[str, tuple[str, ...]]] = {
    "C4": (
        "tests/topology/test_declaration.py::test_a_message_for_a_queue_that_is_gone_ends_with_the_undertaker",
        "tests/topology/test_declaration.py::test_no_queue_inside_has_a_length_limit_but_the_copies_for_people",
        "tests/test_undertaker.py::test_a_job_whose_queue_was_deleted_while_it_was_parked_is_answered",
    ),
    "C5": (
        "tests/broker/test_claim_permits.py::test_a_paid_answer_is_told_though_no_permit_is_left",
        "tests/test_late_calls.py::test_a_worker_that_was_frozen_with_a_permit_takes_another_before_it_calls",
    ),
    "C6": (
        "tests/test_quotas.py::test_a_model_whose_quota_is_spent_holds_up_no_other_model",
        "tests/test_waiting.py::test_a_limit_that_closes_a_lane_for_long_is_named_to_those_who_come_later",
    ),
    "H3": (
        "tests/broker/test_admit_limits.py::test_a_booked_instant_stays_the_same_however_often_one_asks",
        "tests/broker/test_admit_limits.py::test_hits_and_joins_are_free",
        "tests/test_entrance.py::test_an_agent_over_its_rate_waits_its_turn_while_others_pass",
        "tests/topology/test_names.py::test_a_retry_tier_is_the_longest_that_is_over_in_time",
    ),
    "H4": ("tests/topology/test_fingerprint.py::test_what_changes_the_answer_makes_another_flight",),
    "H6b": ("tests/broker/test_claim.py::test_a_flight_that_expired_is_opened_again_by_the_next_request",),
    "H7": ("tests/test_undertaker.py::test_a_copy_of_a_job_that_is_running_ends_nothing",),
    "H11": ("tests/broker/test_admit.py::test_a_job_that_waits_in_a_retry_tier_is_not_joined",),
    "H12": ("tests/sdk/test_core.py::test_at_its_deadline_a_call_fails_and_is_not_sent_again",),
    "H13": ("tests/test_cache_modes.py::test_join_shares_what_runs_or_has_just_finished_and_nothing_stored",),
    "M2/release": ("tests/broker/test_leases.py::test_a_claim_that_was_lost_cannot_be_released",),
    "M5": ("tests/test_entrance.py::test_an_agent_over_its_rate_waits_its_turn_while_others_pass",),
    "M6": ("tests/topology/test_declaration.py::test_callback_queues_are_left_to_their_clients",),
    "M7": (
        "tests/topology/test_messages.py::test_a_body_that_is_too_large_is_refused_before_it_is_published",
    ),
    "M9": ("tests/broker/test_admit.py::test_a_waiter_that_moved_is_answered_at_its_new_address",),
    "M10": (
        "tests/sdk/test_core.py::test_a_silent_request_is_sent_again_at_intervals_that_double_from_30_to_600_s",
        "tests/broker/test_admit.py::test_a_job_without_a_sign_of_life_is_led_anew_after_as_long_as_it_waited",
    ),
    "M11": (
        "tests/crash/test_gone.py::test_what_waits_for_a_pool_or_a_queue_that_is_gone_is_answered_by_another",
    ),
    "M12": (
        "tests/broker/test_claim_permits.py::test_a_fixed_window_ends_at_the_providers_own_hour",
        "tests/broker/test_claim_permits.py::test_near_the_border_of_two_fixed_windows_a_call_counts_in_both",
        "tests/model/test_permits.py::test_no_call_is_refused_whenever_it_arrives",
    ),
    "M14": ("tests/broker/test_leases.py::test_renewing_writes_back_what_a_flushed_redis_forgot",),
    "M15": ("tests/sdk/test_core.py::test_at_its_deadline_a_call_fails_and_is_not_sent_again",),
    "M16": ("tests/test_redis_faults.py::test_a_full_redis_takes_nothing_new_and_tells_what_is_under_way",),
    "M17": (
        "tests/topology/test_declaration.py::test_a_copy_for_people_may_be_looked_at_as_often_as_they_like",
    ),
}
"""Holes outside a model of one flight, or shut twice within it, and the tests that hold them shut."""

LEFT_OUT: Final[Mapping[str, str]] = {
    "H5": "Redis Cluster is not offered: flights and limits belong in one atomic step",
    "H8": "streams are not built",
    "H14": "the setting that it speaks of was never built",
    "M13": "marks of refused classes are not built; lanes share by turns",
    "M18": "the direct fallback is not built",
}
"""Holes of what there is not."""
