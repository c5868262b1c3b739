import hashlib
import json

import httpx
import pytest

from sandbox.simulator import Account, Latency, Model, Settings

SETTINGS = Settings(
    latency=Latency(median_s=0.0),
    models=(Model(id="sim-small", input_usd_per_mtok=1.0, output_usd_per_mtok=2.0),),
    accounts=(Account(name="a", keys=("key-a1", "key-a2")), Account(name="b", keys=("key-b",))),
)
KEY = "key-a1"


def body(text: str = "Hello", **more: object) -> dict[str, object]:
    return {"model": "sim-small", "messages": [{"role": "user", "content": text}], **more}


def chat(client: httpx.Client, text: str = "Hello", **more: object) -> httpx.Response:
    return client.post("/chat/completions", json=body(text, **more))


def events(response: httpx.Response) -> list[str]:
    return [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]


def test_an_answer_echoes_the_last_user_message(client):
    echo = hashlib.sha256(b"Hello").hexdigest()[:16]
    reply = chat(client).json()
    choice, usage = reply["choices"][0], reply["usage"]
    assert choice["message"]["content"].startswith(f"echo:{echo}")
    assert choice["finish_reason"] == "stop"
    assert usage["prompt_tokens"] == 1
    assert usage["completion_tokens"] == len(choice["message"]["content"].split())
    assert usage["total_tokens"] == 1 + usage["completion_tokens"]


def test_an_answer_depends_on_prompt_and_seed_alone(simulator, client):
    def contents() -> list[str]:
        texts = ("one", "two", "one")
        return [chat(client, text).json()["choices"][0]["message"]["content"] for text in texts]

    first = contents()
    assert first[0] == first[2] != first[1]
    simulator.reset()
    assert contents() == first
    simulator.change(seed=1)
    assert contents() != first


def test_max_tokens_cuts_an_answer(client):
    reply = chat(client, max_tokens=3).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] == 3


def test_a_stream_carries_the_same_answer(client):
    whole = chat(client).json()
    streamed = chat(client, stream=True, stream_options={"include_usage": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *chunks, last = events(streamed)
    assert last == "[DONE]"
    *parts, usage = [json.loads(chunk) for chunk in chunks]
    text = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
    assert text == whole["choices"][0]["message"]["content"]
    assert parts[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"]
    assert "usage" not in json.loads(events(chat(client, stream=True))[-2])


def test_a_required_tool_is_called(client):
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {}}}]
    named = {"type": "function", "function": {"name": "look_up"}}
    for choice in ("required", named):
        answer = chat(client, tools=tools, tool_choice=choice).json()["choices"][0]
        assert answer["finish_reason"] == "tool_calls"
        assert answer["message"]["content"] is None
        (call,) = answer["message"]["tool_calls"]
        assert call["function"]["name"] == "look_up"
        assert "echo" in json.loads(call["function"]["arguments"])
    assert chat(client, tools=tools).json()["choices"][0]["finish_reason"] == "stop"


def test_a_json_answer_is_a_json_object(client):
    reply = chat(client, response_format={"type": "json_object"}).json()
    content = json.loads(reply["choices"][0]["message"]["content"])
    assert content["echo"].startswith("echo:")


def test_embeddings_follow_from_the_text(client):
    request = {"model": "sim-small", "input": ["a", "b", "a"]}
    reply = client.post("/embeddings", json=request).json()
    first, second, third = (row["embedding"] for row in reply["data"])
    assert first == third != second
    assert sum(x * x for x in first) == pytest.approx(1.0, abs=1e-4)
    assert client.post("/embeddings", json=request).json() == reply
    packed = client.post("/embeddings", json={**request, "encoding_format": "base64"}).json()
    assert isinstance(packed["data"][0]["embedding"], str)


def test_models_are_listed(client):
    assert [model["id"] for model in client.get("/models").json()["data"]] == ["sim-small"]


def test_an_unknown_model_is_not_found(client):
    response = chat(client, model="other")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b'{"model": "sim-small"}', b'{"model": "sim-small", "messages": "Hi"}']
)
def test_a_bad_body_is_refused(simulator, client, raw):
    response = client.post("/chat/completions", content=raw)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert [entry.outcome for entry in simulator.ledger()] == ["invalid"]


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Bearer", "Basic key-a1", ""])
def test_an_unknown_key_is_unauthorized(simulator, client, authorization):
    headers = {"authorization": authorization}
    response = client.post("/chat/completions", json=body(), headers=headers)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    (entry,) = simulator.ledger()
    assert (entry.outcome, entry.account, entry.billed) == ("unauthorized", None, False)


def test_a_key_belongs_to_its_account(simulator, client):
    for key in ("key-a1", "key-a2", "key-b"):
        client.post("/chat/completions", json=body(), headers={"authorization": f"Bearer {key}"})
    assert [entry.account for entry in simulator.ledger()] == ["a", "a", "b"]


def test_without_accounts_any_key_will_do(simulator, client):
    simulator.change(accounts=[])
    assert chat(client).status_code == 200
    assert simulator.ledger()[0].account == "default"


def test_an_answer_is_billed_at_its_models_price(simulator, client):
    usage = chat(client, "x" * 400).json()["usage"]
    (entry,) = simulator.ledger()
    assert usage["prompt_tokens"] == entry.prompt_tokens == 100
    assert entry.cost_usd == pytest.approx((100 * 1.0 + usage["completion_tokens"] * 2.0) / 1e6)
    assert simulator.summary().cost_usd == pytest.approx(entry.cost_usd)


def test_a_prompt_is_the_same_streamed_or_not_and_whoever_asks(simulator, client):
    chat(client)
    chat(client, stream=True, user="someone", metadata={"a": "b"})
    chat(client, temperature=0.5)
    first, second, third = (entry.prompt_sha256 for entry in simulator.ledger())
    assert first == second != third
    summary = simulator.summary()
    assert (summary.billed, summary.distinct_billed_prompts) == (3, 2)
