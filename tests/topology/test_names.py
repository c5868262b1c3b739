import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from topology import names
from topology.names import Priority, RetryTier

LONGEST_S = max(tier.delay_s for tier in RetryTier)
SHORTEST_S = min(tier.delay_s for tier in RetryTier)

agents = st.from_regex(names.AGENT_PATTERN, fullmatch=True)
priorities = st.sampled_from(Priority)


@given(priorities, agents)
def test_a_routing_key_tells_who_speaks_and_how_urgent_it_is(priority: Priority, agent: str) -> None:
    assert names.speaker_of(names.request_key(priority, agent)) == (priority, agent)


@pytest.mark.parametrize("key", ["urgent.quality", "HIGH.quality", "", ".quality", "quality"])
def test_an_unknown_priority_is_named_with_the_choices(key: str) -> None:
    with pytest.raises(ValueError, match=r"^priority: .* is none of high, normal, batch$"):
        names.speaker_of(key)


@pytest.mark.parametrize(
    "agent", ["", "Quality", "two.words", "a" * 65, "späh", "quality\n", "a b", "reply/../x", "#"]
)
def test_an_impossible_agent_is_named(agent: str) -> None:
    with pytest.raises(ValueError, match=r"^agent: .* is not 1 to 64 of") as refused:
        names.speaker_of(f"high.{agent}")
    assert repr(agent) in str(refused.value)


def test_priorities_rank_from_the_most_urgent() -> None:
    assert sorted(Priority, key=lambda p: p.rank) == [Priority.HIGH, Priority.NORMAL, Priority.BATCH]


@given(st.floats(min_value=SHORTEST_S, max_value=1e9))
def test_a_retry_tier_is_the_longest_that_is_over_in_time(seconds: float) -> None:
    tier = names.largest_tier_within(seconds)

    assert tier.delay_s <= seconds
    assert not [other for other in RetryTier if tier.delay_s < other.delay_s <= seconds]


@given(st.floats(max_value=SHORTEST_S, exclude_max=True, allow_nan=False))
def test_the_shortest_tier_serves_when_none_is_over_in_time(seconds: float) -> None:
    assert names.largest_tier_within(seconds).delay_s == SHORTEST_S


def test_a_tier_gives_its_queue_and_exchange_the_documented_names() -> None:
    assert [(t.queue, t.exchange, t.delay_s) for t in RetryTier] == [
        ("retry.1s", "optimizer.retry.1s", 1.0),
        ("retry.5s", "optimizer.retry.5s", 5.0),
        ("retry.30s", "optimizer.retry.30s", 30.0),
        ("retry.5m", "optimizer.retry.5m", 300.0),
    ]


@given(st.text())
def test_a_slug_is_one_word_of_a_queues_name(model: str) -> None:
    word = names.slug(model)

    assert word
    assert set(word) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert names.slug(word) == word


@pytest.mark.parametrize(
    ("model", "word"),
    [
        ("llama-3.3-70b-versatile", "llama-3-3-70b-versatile"),
        ("deepseek/deepseek-r1:free", "deepseek-deepseek-r1-free"),
        ("GPT_5", "gpt_5"),
        ("///", "model"),
    ],
)
def test_a_models_name_becomes_a_readable_lane(model: str, word: str) -> None:
    assert names.slug(model) == word


@given(agents, agents)
def test_an_agent_may_have_its_replies_sent_to_its_own_queues_alone(agent: str, other: str) -> None:
    assume(other not in {agent, "gateway"})

    assert names.may_reply_to(agent, names.reply_queue(agent, "client", "abc"))
    assert names.may_reply_to(agent, names.reply_queue("gateway", "client", "abc"))
    assert not names.may_reply_to(agent, names.reply_queue(other, "client", "abc"))


@pytest.mark.parametrize("queue", ["", "dead", "reply.a", "reply.", "reply.gatewayx.y", "xreply.a.b.c"])
def test_replies_go_to_callback_queues_only(queue: str) -> None:
    assert not names.may_reply_to("a", queue)


def test_the_queues_of_the_house_have_the_documented_names() -> None:
    assert names.requests_queue(Priority.HIGH) == "requests.high"
    assert names.jobs_queue("groq", names.ANY_LANE, Priority.BATCH) == "jobs.groq.any.batch"
    assert names.reply_queue("quality", "c1", "f00") == "reply.quality.c1.f00"
