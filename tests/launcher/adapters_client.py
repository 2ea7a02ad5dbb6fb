"""Adapters loaded into a running server, with the unmodified `openai` package; vLLM's routes as its users call them.

  adapters_client.py URL DIRECTORY   DIRECTORY: the server's --lora-dir, with copies of adapters and of bad ones:
                                     moby, kjv, corrupt, other-base, empty, escape (a link out of it)

Prints what is wrong and exits 1 when anything is.
"""
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
from prometheus_client.parser import text_string_to_metric_families

from client_checks import BASE, GREEDY, openai_client, run_checks


class Server:
    def __init__(self, url, directory):
        self.url, self.directory = url, directory
        self.openai = openai_client(url)
        self.http = httpx.Client(base_url=url, timeout=300)

    def load(self, name, path, **more):
        return self.http.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": path, **more})

    def unload(self, name):
        return self.http.post("/v1/unload_lora_adapter", json={"lora_name": name, "lora_int_id": 1})

    def adapters(self):
        return {row["name"]: row for row in self.http.get("/v1/adapters").json()["adapters"] if not row["replaced"]}

    def text(self, model, prompt="The whale", **more):
        answer = self.openai.completions.create(model=model, prompt=prompt, max_tokens=12, **GREEDY, **more)
        return answer.choices[0].text


def loads_and_unloads(server):
    answer = server.load("late", server.directory + "/moby")
    assert answer.status_code == 200, answer.text
    assert answer.text == "Success: LoRA adapter 'late' added successfully."
    assert answer.headers["content-type"].startswith("text/plain")
    assert "late" in [model.id for model in server.openai.models.list()]
    card = server.openai.models.retrieve("late")
    assert card.parent == BASE and card.root.endswith("/moby"), card
    assert server.text("late") == server.text("moby") == server.text(BASE + ":late")
    assert server.text("late") != server.text(BASE)
    answer = server.load("late", "kjv", load_inplace=True)  # relative to --lora-dir
    assert answer.status_code == 200, answer.text
    assert server.text("late") == server.text("kjv")
    assert server.openai.models.retrieve("late").root.endswith("/kjv")
    answer = server.unload("late")
    assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'late' removed successfully.")
    try:
        server.text("late")
        raise AssertionError("it is served after it was unloaded")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    assert "late" not in [model.id for model in server.openai.models.list()]


def refuses(server):
    def refused(answer, status, *parts):
        error = answer.json()["error"]
        assert answer.status_code == status, (answer.status_code, error)
        assert all(part in error["message"] for part in parts), error

    before = server.adapters()
    refused(server.load("moby", server.directory + "/kjv"), 400, "'moby' has already been loaded",
            "'load_inplace' to True")
    refused(server.load(BASE, server.directory + "/kjv"), 400, "the base model")
    refused(server.load("-", server.directory + "/kjv"), 400, "the base model")
    refused(server.load("x", "/etc"), 403, "/etc is not below", "--lora-dir")
    refused(server.load("x", server.directory + "/../.."), 403, "is not below")
    refused(server.load("x", "escape"), 403, "escape is not below")
    refused(server.load("x", server.directory + "/nothing"), 404, "Loading lora x failed: No adapter found for")
    refused(server.load("x", "empty"), 404, "No adapter found for empty/adapter_config.json")
    refused(server.load("x", "corrupt"), 400, "adapter_model.safetensors")
    refused(server.load("x", "other-base"), 400)
    refused(server.load("moby", "corrupt", load_inplace=True), 400, "adapter_model.safetensors")
    refused(server.load("x", ""), 400, "Both 'lora_name' and 'lora_path' must be provided.")
    refused(server.unload("x"), 404, "The lora adapter 'x' cannot be found.")
    refused(server.http.post("/v1/adapters/x/pin"), 404, "The lora adapter 'x' cannot be found.")
    refused(server.http.post("/v1/load_lora_adapter", json={"lora_path": "kjv"}), 400, "must be provided")
    after = server.adapters()
    assert set(after) == set(before) and after["moby"]["digest"] == before["moby"]["digest"], (before, after)


def pins_and_warms(server):
    server.load("kept", "kjv")
    answer = server.http.post("/v1/adapters/kept/pin")
    assert answer.status_code == 200 and answer.json() == {"message": "'kept' is pinned"}, answer.text
    row = server.adapters()["kept"]
    assert row["pinned"] and row["tier"] == "slot" and row["rank"] > 0 and row["bytes"] > 0 and row["leases"] == 0, row
    assert server.http.post("/v1/adapters/kept/warm").status_code == 200
    families = {f.name: f for f in text_string_to_metric_families(server.http.get("/metrics").text)}
    loaded = [s.labels for s in families["vllm:lora_adapter_loaded"].samples if s.labels["adapter_name"] == "kept"]
    assert {s["level"] for s in loaded} == {"gpu", "cpu"} and all(s["pinned"] == "true" for s in loaded), loaded
    loads = families["vllm:lora_adapter_load_seconds"].samples
    count = {s.labels["level"]: s.value for s in loads if s.name.endswith("_count")}
    assert count["gpu"] >= 1 and count["cpu"] >= 1, count
    lookups = {s.labels["level"]: s.value for s in families["vllm:lora_cache_lookups"].samples}
    hits = {s.labels["level"]: s.value for s in families["vllm:lora_cache_hits"].samples}
    assert all(0 < hits[level] <= lookups[level] for level in ("gpu", "cpu")), (lookups, hits)
    assert server.http.post("/v1/adapters/kept/unpin").status_code == 200
    assert not server.adapters()["kept"]["pinned"]
    server.unload("kept")


def streams_do_not_notice(server):
    """Seeded streams give the same texts alone and while adapters come and go beside and below them."""
    server.load("below", "moby")

    def stream(index):
        model = ["moby", "kjv", "below", BASE][index % 4]
        chunks = server.openai.completions.create(model=model, prompt="The captain said", max_tokens=40, seed=index,
                                                  temperature=0.9, stream=True, extra_body={"ignore_eos": True})
        text = next(iter(chunks)).choices[0].text
        begun.release()
        return text + "".join(chunk.choices[0].text for chunk in chunks)

    begun = threading.Semaphore(0)
    with ThreadPoolExecutor(12) as threads:
        alone = list(threads.map(stream, range(12)))
    begun = threading.Semaphore(0)
    with ThreadPoolExecutor(12) as threads:
        running = [threads.submit(stream, index) for index in range(12)]
        for _ in running:
            begun.acquire()
        assert server.load("below", "kjv", load_inplace=True).status_code == 200
        assert server.unload("below").status_code == 200
        for index in range(10):
            assert server.load(f"x{index}", ["moby", "kjv"][index % 2]).status_code == 200
            assert server.load("x", "corrupt").status_code == 400
        for index in range(10):
            assert server.unload(f"x{index}").status_code == 200
        crowded = [stream.result() for stream in running]
    assert crowded == alone, [(a, b) for a, b in zip(alone, crowded) if a != b]


def main():
    return run_checks((loads_and_unloads, refuses, pins_and_warms, streams_do_not_notice), Server(*sys.argv[1:3]))


if __name__ == "__main__":
    sys.exit(main())
