"""What people do with the unmodified `openai` package, against a running server.

  openai_client.py URL RESULTS.jsonl   RESULTS: what `lorikeet batch` gave for the requests in it

Prints what is wrong and exits 1 when anything is.
"""
import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

from client_checks import BASE, GREEDY, openai_client, run_checks

ROOT = Path(__file__).resolve().parent.parent.parent


def models(client, url):
    names = [model.id for model in client.models.list()]
    assert names == [BASE, "shakespeare", "kjv", "moby"], names
    moby = client.models.retrieve("moby")
    assert moby.parent == BASE and moby.root.endswith("/moby"), moby
    assert client.models.retrieve(BASE).parent is None


def completion(client, url):
    answer = client.completions.create(model="moby", prompt="The whale", max_tokens=8, **GREEDY)
    assert answer.object == "text_completion" and answer.model == "moby", answer
    choice = answer.choices[0]
    assert choice.finish_reason == "length" and choice.text, choice
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8
    named = client.completions.create(model=BASE + ":moby", prompt="The whale", max_tokens=8, **GREEDY)
    assert named.choices[0].text == choice.text
    assert len(client.completions.create(model=BASE, prompt="The whale", **GREEDY).choices) == 1  # 16 tokens
    ids = httpx.post(url + "/tokenize", json={"prompt": "The whale"}).json()["tokens"]
    by_ids = client.completions.create(model="moby", prompt=ids, max_tokens=8, **GREEDY)
    assert by_ids.choices[0].text == choice.text
    assert httpx.post(url + "/detokenize", json={"tokens": ids}).json()["prompt"] == "The whale"


def completion_stream(client, url):
    whole = client.completions.create(model="kjv", prompt="And it came", max_tokens=12, **GREEDY)
    chunks = list(client.completions.create(model="kjv", prompt="And it came", max_tokens=12, stream=True,
                                            stream_options={"include_usage": True}, **GREEDY))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert len(chunks) > 4
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage, chunks[-1]
    assert chunks[-2].choices[0].finish_reason == "length"
    assert len({chunk.id for chunk in chunks}) == 1
    counted = client.completions.create(model="kjv", prompt="And it came", max_tokens=3, stream=True, **GREEDY,
                                        stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert {chunk.usage.prompt_tokens for chunk in counted} == {whole.usage.prompt_tokens}


def several(client, url):
    answer = client.completions.create(model=BASE, prompt=["The sea", "The land"], n=2, max_tokens=6, seed=5,
                                       temperature=0.9)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] != texts[1], texts
    assert answer.usage.completion_tokens == 24
    # The second choice of a seed is the first one of the next.
    again = client.completions.create(model=BASE, prompt="The sea", max_tokens=6, seed=6, temperature=0.9)
    assert again.choices[0].text == texts[1]


def logprobs(client, url):
    answer = client.completions.create(model=BASE, prompt="The sea", max_tokens=5, logprobs=2, **GREEDY)
    got = answer.choices[0].logprobs
    assert "".join(got.tokens) == answer.choices[0].text
    assert len(got.token_logprobs) == 5 and all(value <= 0 for value in got.token_logprobs)
    for token, value, top in zip(got.tokens, got.token_logprobs, got.top_logprobs):
        assert len(top) == 2 and top[token] == value == max(top.values())
    assert got.text_offset == [sum(map(len, got.tokens[:i])) for i in range(5)]

    chat = client.chat.completions.create(model=BASE, messages=[{"role": "user", "content": "Who?"}], max_tokens=5,
                                          logprobs=True, top_logprobs=3, **GREEDY)
    content = chat.choices[0].logprobs.content
    assert len(content) == 5
    assert b"".join(bytes(token.bytes) for token in content).decode() == chat.choices[0].message.content
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token and token.top_logprobs[0].logprob == token.logprob


def prompts_shown(client, url):
    plain = client.completions.create(model="moby", prompt="The whale", max_tokens=6, **GREEDY)
    ids = httpx.post(url + "/tokenize", json={"prompt": "The whale"}).json()["tokens"]
    arguments = {**GREEDY, "extra_body": {**GREEDY["extra_body"], "return_token_ids": True}}
    for prompt in ("The whale", ids):
        echoed = client.completions.create(model="moby", prompt=prompt, max_tokens=6, echo=True, **arguments)
        assert echoed.choices[0].text == "The whale" + plain.choices[0].text, echoed
        assert echoed.choices[0].prompt_token_ids == ids and len(echoed.choices[0].token_ids) == 6, echoed
        chunks = list(client.completions.create(model="moby", prompt=prompt, max_tokens=6, echo=True, stream=True,
                                                **arguments))
        assert "".join(chunk.choices[0].text for chunk in chunks) == echoed.choices[0].text


def chat(client, url):
    messages = [{"role": "system", "content": "Speak as a captain."}, {"role": "user", "content": "Where to?"}]
    whole = client.chat.completions.create(model="moby", messages=messages, max_tokens=10, **GREEDY)
    assert whole.object == "chat.completion"
    assert whole.choices[0].message.role == "assistant" and whole.choices[0].message.content
    chunks = list(client.chat.completions.create(model="moby", messages=messages, max_completion_tokens=10, stream=True,
                                                 **GREEDY))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    same = client.chat.completions.create(model="moby", messages=parts, max_tokens=10, **GREEDY)
    assert same.choices[0].message.content == text


def stop(client, url):
    free = client.completions.create(model="moby", prompt="The whale", max_tokens=24, **GREEDY).choices[0].text
    word = free.split()[3]
    assert free.count(word) >= 1
    held = client.completions.create(model="moby", prompt="The whale", max_tokens=24, stop=[word], **GREEDY)
    assert held.choices[0].text == free[:free.index(word)], (free, held)
    assert held.choices[0].finish_reason == "stop" and held.choices[0].stop_reason == word


def restrained(client, url):
    """logit_bias, min_tokens, bad_words, allowed_token_ids, against what the model says without them."""
    def ask(max_tokens=8, **more):
        return client.completions.create(model="moby", prompt="The whale", max_tokens=max_tokens, temperature=0,
                                         extra_body={"repetition_penalty": 1, "top_k": 0, "return_token_ids": True, **more})

    plain = ask(logprobs=5, ignore_eos=True).choices[0]
    first = plain.token_ids[0]
    second = list(plain.logprobs.top_logprobs[0])[1]
    held = ask(logit_bias={str(first): -100}, ignore_eos=True, logprobs=5).choices[0]
    assert held.logprobs.tokens[0] == second, (plain, held)
    assert held.logprobs.token_logprobs[0] == plain.logprobs.top_logprobs[0][second], "the model's, without the bias"
    assert ask(logit_bias={"300": 100}, ignore_eos=True).choices[0].token_ids == [300] * 8
    allowed = [id for id in range(2048) if id % 5 == 0]
    assert all(id in allowed for id in ask(24, allowed_token_ids=allowed, ignore_eos=True).choices[0].token_ids)
    stopped = ask(stop_token_ids=[first]).choices[0]
    assert stopped.finish_reason == "stop" and stopped.stop_reason == first and stopped.token_ids == [first], stopped
    later = ask(24, stop_token_ids=[first], min_tokens=5).choices[0]
    assert len(later.token_ids) >= 5 and first not in later.token_ids[:5], later
    words = {word for word in plain.text.split() if word.isalpha()}
    spelt = [httpx.post(url + "/tokenize", json={"prompt": " " + word}).json()["tokens"] for word in words]
    said = lambda word, ids: any(ids[i:i + len(word)] == word for i in range(len(ids)))
    spelt = [word for word in spelt if said(word, plain.token_ids)]
    assert spelt, (words, plain)
    spared = ask(24, bad_words=sorted(words), ignore_eos=True).choices[0]
    assert not any(said(word, spared.token_ids) for word in spelt), (words, spared)
    empty = httpx.post(url + "/v1/completions", json={"prompt": "x", "allowed_token_ids": []})
    assert empty.status_code == 400 and "allowed_token_ids is empty" in empty.text, empty.text


def prompts_cut_and_scored(client, url):
    ids = httpx.post(url + "/tokenize", json={"prompt": "And it came to pass in those days"}).json()["tokens"]
    body = {**GREEDY["extra_body"], "return_token_ids": True, "prompt_logprobs": 2}
    cut = client.completions.create(model="kjv", prompt=ids, max_tokens=1, temperature=0,
                                    extra_body={**body, "truncate_prompt_tokens": 4, "cache_salt": "mine"}).choices[0]
    assert cut.prompt_token_ids == ids[-4:]
    short = client.completions.create(model="kjv", prompt=ids[-4:], max_tokens=1, temperature=0,
                                      extra_body=body).choices[0]
    assert cut.prompt_logprobs == short.prompt_logprobs and cut.token_ids == short.token_ids, (cut, short)
    assert short.prompt_logprobs[0] is None and len(short.prompt_logprobs) == 4
    for id, scores in zip(ids[-3:], short.prompt_logprobs[1:]):
        own = scores[str(id)]
        assert set(own) == {"logprob", "rank", "decoded_token"} and 2 <= len(scores) <= 3, scores
        by_rank = sorted(scores.values(), key=lambda score: score["rank"])
        assert [score["rank"] for score in by_rank[:2]] == [1, 2]
        assert [s["logprob"] for s in by_rank] == sorted((s["logprob"] for s in by_rank), reverse=True), scores
    # What a prompt's token is worth is what it would be worth as an answer.
    answer = client.completions.create(model="kjv", prompt=ids[:-1], max_tokens=1, temperature=0, logprobs=2,
                                       extra_body={**GREEDY["extra_body"], "allowed_token_ids": [ids[-1]]}).choices[0]
    whole = client.completions.create(model="kjv", prompt=ids, max_tokens=1, temperature=0, extra_body=body).choices[0]
    assert abs(answer.logprobs.token_logprobs[0] - whole.prompt_logprobs[-1][str(ids[-1])]["logprob"]) < 1e-4
    echoed = client.completions.create(model="kjv", prompt=ids, max_tokens=2, echo=True, logprobs=2, **GREEDY).choices[0]
    got = echoed.logprobs
    assert len(got.tokens) == len(ids) + 2 and "".join(got.tokens) == echoed.text, echoed
    assert got.token_logprobs[0] is None and got.top_logprobs[0] is None
    assert abs(got.token_logprobs[len(ids) - 1] - answer.logprobs.token_logprobs[0]) < 1e-4
    assert got.text_offset == [sum(map(len, got.tokens[:i])) for i in range(len(got.tokens))]
    # A stream has the same, the prompt's before the answer's.
    events = [chunk.choices[0] for chunk in client.completions.create(
        model="kjv", prompt=ids, max_tokens=2, echo=True, logprobs=2, stream=True, temperature=0, extra_body=body)]
    scored = [event.logprobs for event in events if event.logprobs]
    assert "".join(event.text for event in events) == echoed.text, events
    for part in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        assert sum((getattr(logprobs, part) for logprobs in scored), []) == getattr(got, part), (part, scored, got)
    assert events[0].prompt_logprobs == whole.prompt_logprobs, events[0]
    assert not any(getattr(event, "prompt_logprobs", None) for event in events[1:])
    chatted = {"model": "kjv", "messages": [{"role": "user", "content": "Where to?"}], "max_tokens": 2, **GREEDY,
               "extra_body": {**GREEDY["extra_body"], "prompt_logprobs": 1}}
    first = next(iter(client.chat.completions.create(**chatted, stream=True)))
    answered = client.chat.completions.create(**chatted)
    assert first.prompt_logprobs == answered.prompt_logprobs and len(first.prompt_logprobs) > 4, first


def deadlines(client, url):
    late = httpx.post(url + "/v1/completions", timeout=60, json={
        "prompt": "The sea", "max_tokens": 1500, "ignore_eos": True, "timeout": 0.01, "a_field_of_tomorrow": 1})
    assert late.status_code == 408 and late.json()["error"]["code"] == "request_timeout", late.text
    assert "(timeout)" in late.json()["error"]["message"]


def errors(client, url):
    def refused(kind, code, param=None, **arguments):
        arguments = {"model": BASE, "prompt": "x", **arguments}
        try:
            client.completions.create(**arguments)
        except openai.APIStatusError as error:
            assert type(error) is kind and error.code == code and error.param == param, (error, code)
            assert error.response.headers["x-request-id"]
            return
        raise AssertionError(f"{arguments} was served")

    ampersand, = httpx.post(url + "/tokenize", json={"prompt": "&"}).json()["tokens"]
    refused(openai.NotFoundError, "model_not_found", "model", model="none")
    refused(openai.NotFoundError, "model_not_found", "model", model="none", stream=True)
    refused(openai.BadRequestError, "invalid_request", "temperature", temperature=9)
    refused(openai.BadRequestError, "invalid_request", "allowed_token_ids",
            extra_body={"allowed_token_ids": [ampersand], "bad_words": ["&"]})
    # Two tokens of which the second must not follow the first: no rank can know before the first is there.
    refused(openai.BadRequestError, "invalid_request", max_tokens=3, extra_body={
        "allowed_token_ids": [ampersand], "bad_words": ["&&"], "ignore_eos": True})
    refused(openai.BadRequestError, "invalid_request", "suffix", suffix="y")
    refused(openai.BadRequestError, "invalid_request", "max_tokens", max_tokens="many")
    refused(openai.BadRequestError, "context_length_exceeded", max_tokens=100000)
    refused(openai.BadRequestError, "context_length_exceeded", prompt="many words " * 100000)
    try:
        client.models.retrieve("none")
        raise AssertionError("there is a model none")
    except openai.NotFoundError:
        pass
    assert httpx.get(url + "/nowhere").status_code == 404
    assert httpx.get(url + "/v1/completions").status_code == 405
    assert httpx.post(url + "/v1/completions", content="x").status_code == 415
    big = httpx.post(url + "/v1/completions", content=b" " * (17 << 20), headers={"Content-Type": "application/json"})
    assert big.status_code == 413 and big.json()["error"]["code"] == "body_too_large", big


def request_ids(client, url):
    raw = client.completions.with_raw_response.create(model=BASE, prompt="x", max_tokens=1,
                                                      extra_headers={"X-Request-Id": "mine"})
    assert raw.headers["x-request-id"] == "mine"
    assert raw.parse().id == "cmpl-mine"
    assert httpx.get(url + "/health").status_code == 200
    assert httpx.get(url + "/ping").status_code == 200
    assert httpx.get(url + "/version").json()["version"]


def metrics(client, url):
    client.completions.create(model="moby", prompt="The whale", max_tokens=4, **GREEDY)
    answer = httpx.get(url + "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    value = lambda name: families[name].samples[0].value
    assert value("vllm:num_requests_running") == 0 and value("vllm:num_requests_waiting") == 0
    assert value("vllm:generation_tokens") >= 4
    ended = {s.labels["finished_reason"]: s.value for s in families["vllm:request_success"].samples}
    assert ended["length"] >= 1 and set(ended) == {"stop", "length", "abort", "error"}, ended
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"):
        buckets = [s for s in families["vllm:" + name].samples if s.name.endswith("_bucket")]
        assert buckets[-1].labels["le"] == "+Inf" and buckets[-1].value >= 1
    # As a router of the Gateway API's model-server protocol reads it: how many fit, and which are there.
    info = families["vllm:lora_requests_info"].samples[0].labels
    assert int(info["max_lora"]) == 8 and {"running_lora_adapters", "waiting_lora_adapters"} <= set(info), info
    tiers = {s.labels["lora_name"]: s.labels["tier"] for s in families["vllm:lora_loaded_adapters_info"].samples}
    dashboard = json.loads((ROOT / "examples/observability/grafana-dashboard.json").read_text())
    names = {sample.name for family in families.values() for sample in family.samples}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            used = set(re.findall(r"(?:vllm|lorikeet):[a-z0-9_]+", target["expr"]))
            assert used and used <= names, (panel["title"], used - names)
    assert tiers["moby"] == "gpu" and set(tiers) == {"shakespeare", "kjv", "moby"}, tiers


def leaves(client, url):
    stream = client.completions.create(model=BASE, prompt="The sea", max_tokens=1500, stream=True, **GREEDY)
    next(iter(stream))
    stream.close()


def streams_as_batch(client, url):
    """64 streams at once give the very text that `lorikeet batch` gave alone for the same seeds."""
    with open(sys.argv[2]) as lines:
        results = [json.loads(line) for line in lines]
    assert len(results) == 64

    def text_of(result):
        request = result["request"]
        stream = client.completions.create(
            model=request.get("adapter") or BASE, prompt=request["prompt"], max_tokens=request["max_tokens"],
            temperature=request["temperature"], seed=request["seed"], stream=True)
        return "".join(chunk.choices[0].text for chunk in stream)

    with ThreadPoolExecutor(64) as threads:
        texts = list(threads.map(text_of, results))
    for result, text in zip(results, texts):
        assert text == result["text"], (result, text)


def main():
    url = sys.argv[1]
    checks = (models, completion, completion_stream, several, logprobs, prompts_shown, chat, stop, restrained,
              prompts_cut_and_scored, deadlines, errors, request_ids, metrics, leaves, streams_as_batch)
    return run_checks(checks, openai_client(url), url)


if __name__ == "__main__":
    sys.exit(main())
