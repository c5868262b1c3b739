from collections import Counter
from pathlib import Path

import pytest

from sandbox.demo import sampling
from sandbox.demo.errors import Unusable
from sandbox.demo.fleet import fleet_agents, fleet_workload
from sandbox.demo.real import (
    CEILING_CALLS,
    CEILING_USD,
    find_provider,
    real_workload,
    write_fleet,
)
from sandbox.demo.trace import SAMPLE, phrases, read_trace, trace_workload
from sandbox.demo.workload import Workload
from topology import names
from topology.loading import catalogue, load_fleet


def fleet(seed: int = 1, seconds: float = 20.0) -> Workload:
    return fleet_workload(seed, seconds, "r1")


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def test_the_fleet_is_28_agents_of_several_kinds_and_all_of_them_ask() -> None:
    agents = fleet_agents()

    assert len(set(agents)) == 28
    assert len({agent.kind for agent in agents}) >= 7
    assert all(names.is_agent_name(agent.name) for agent in agents)
    assert {ask.agent for ask in fleet().asks} == set(agents)


def test_the_fleets_workload_follows_from_its_seed() -> None:
    assert fleet(seed=7) == fleet(seed=7)
    assert fleet(seed=7) != fleet(seed=8)


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_fleet_sends_600_to_900_requests_in_order_and_in_time(seed: int) -> None:
    asks = fleet(seed).asks

    assert 600 <= len(asks) <= 900
    instants = [ask.at_s for ask in asks]
    assert instants == sorted(instants)
    assert instants[0] >= 0.0
    assert instants[-1] <= 20.0


def test_the_fleet_mixes_priorities_and_cache_modes() -> None:
    asks = fleet().asks
    priorities, modes = Counter(a.priority for a in asks), Counter(a.cache for a in asks)

    assert all(priorities[name] > 100 for name in ("high", "normal", "batch"))
    assert all(0 < modes[name] < 100 for name in ("refresh", "join", "off"))


def test_the_fleet_has_bursts_of_equal_requests_of_several_agents_at_one_instant() -> None:
    bursts = Counter((ask.at_s, ask.content) for ask in fleet().asks if ask.cache == "use")

    assert sum(size >= 5 for size in bursts.values()) >= 10
    assert max(bursts.values()) >= 12


def test_requests_that_share_only_calls_share_their_content_with_no_others() -> None:
    asks = fleet().asks
    joining = {ask.content for ask in asks if ask.cache == "join"}

    assert joining.isdisjoint(ask.content for ask in asks if ask.cache != "join")


def test_another_run_meets_no_answer_of_this_one() -> None:
    first, second = fleet_workload(1, 20.0, "r1"), fleet_workload(1, 20.0, "r2")

    assert {ask.content for ask in first.asks}.isdisjoint(ask.content for ask in second.asks)


def test_equal_hashes_are_equal_prompts_and_others_are_not() -> None:
    assert phrases((1, 2)) == phrases((1, 2))
    assert len({phrases(blocks) for blocks in [(1,), (2,), (1, 2), (2, 1), (12,), (1, 1), (17,)]}) == 7


def test_a_trace_of_mooncakes_form_keeps_its_times_and_its_repetition(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "some.jsonl",
        '{"timestamp": 1000, "input_length": 700, "output_length": 80, "hash_ids": [5, 6]}\n\n'
        '{"timestamp": 3000, "input_length": 90, "output_length": 16, "hash_ids": [7]}\n'
        '{"timestamp": 5000, "input_length": 700, "output_length": 800, "hash_ids": [5, 6]}\n',
    )

    workload = trace_workload(read_trace(path, 10), seed=1, seconds=2.0, run="r1")

    assert [ask.at_s for ask in workload.asks] == [0.0, 1.0, 2.0]
    first, other, again = (ask.content for ask in workload.asks)
    assert first == again != other
    assert dict(workload.asks[0].params) == {"max_tokens": 10}
    assert "2.0 times as fast" in workload.notes[0]


def test_a_trace_of_azures_form_is_all_distinct_and_says_so(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "some.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n"
        "2023-11-16 18:17:04.4799600,4808,10\n",
    )

    trace = read_trace(path, 10)
    workload = trace_workload(trace, seed=1, seconds=20.0, run="r1")

    assert not trace.knows_repeats
    assert [ask.at_s for ask in workload.asks] == pytest.approx([0.0, 0.5])
    assert len({ask.content for ask in workload.asks}) == 2
    assert "every prompt is distinct" in workload.notes[-1]


def test_a_trace_is_capped_and_says_so() -> None:
    trace = read_trace(SAMPLE, 100)

    assert len(trace.rows) == 100
    assert trace.more
    assert trace_workload(trace, 1, 20.0, "r1").title.startswith("trace: the first 100 requests of")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("broken.jsonl", '{"timestamp": 0, "output_length": 1, "hash_ids": [1]}\nnone\n', "line 2"),
        ("short.jsonl", '{"timestamp": 0}\n', "line 1"),
        ("other.csv", "WHEN,WHAT\n1,2\n", "line 2"),
        ("empty.jsonl", "", "no request"),
    ],
)
def test_a_trace_that_cannot_be_read_is_one_sentence(tmp_path: Path, name: str, text: str, told: str) -> None:
    with pytest.raises(Unusable, match=told):
        read_trace(written(tmp_path, name, text), 10)


def test_the_sample_is_what_its_script_writes_and_repeats_itself() -> None:
    assert SAMPLE.read_text("utf-8") == sampling.text()
    rows = read_trace(SAMPLE, 1000).rows
    assert len(rows) == sampling.REQUESTS
    assert len({row.blocks for row in rows}) < 0.7 * len(rows)


PAID = [name for name, entry in catalogue().items() if entry.get("key_env")]


@pytest.mark.parametrize("name", PAID)
def test_a_real_provider_gets_the_ceiling_beside_the_limits_that_are_known(tmp_path: Path, name: str) -> None:
    variable = catalogue()[name]["key_env"]
    environ = {variable: "sk-test"}
    provider = find_provider(name, None, environ)

    write_fleet(provider, tmp_path / "demo" / "fleet.toml")

    text = (tmp_path / "demo" / "fleet.toml").read_text("utf-8")
    assert "sk-test" not in text
    [(found, own)] = load_fleet(tmp_path / "demo" / "fleet.toml", environ).providers.items()
    assert found == name
    limits = {(limit.unit, limit.amount, limit.window_s) for limit in own.limits}
    assert {("requests", CEILING_CALLS, 86400.0), ("usd", CEILING_USD, 86400.0)} <= limits
    model = own.model(provider.model)
    assert model is not None
    assert model.price is not None
    _, known = next(iter(load_fleet(None, environ).providers.items()))
    assert limits >= {(limit.unit, limit.amount, limit.window_s) for limit in known.limits}


def test_a_real_provider_is_asked_for_less_than_its_ceiling() -> None:
    provider = find_provider("groq", None, {"GROQ_API_KEY": "sk-test"})
    asks = real_workload(provider, seed=1, seconds=20.0).asks

    assert len({ask.content for ask in asks}) <= CEILING_CALLS
    assert {ask.params for ask in asks} == {(("max_tokens", 60),)}
    assert len({ask.agent for ask in asks}) == 28


@pytest.mark.parametrize(
    ("name", "key_env", "told"),
    [
        ("groq", None, "no GROQ_API_KEY"),
        ("groq", "OTHER_KEY", "no OTHER_KEY"),
        ("nobody", None, "not in the catalogue; there are .*groq"),
    ],
)
def test_a_provider_that_cannot_be_used_is_one_sentence(name: str, key_env: str | None, told: str) -> None:
    with pytest.raises(Unusable, match=told):
        find_provider(name, key_env, {})
