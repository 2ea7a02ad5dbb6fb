"""Lets Debian's Prometheus scrape a running server, and asks it for every expression of the dashboard.

  scrape_with_prometheus.py URL DIRECTORY   DIRECTORY: for what Prometheus writes

Prints what is wrong and exits 1 when anything is.
"""
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def expressions():
    dashboard = json.loads((ROOT / "examples/observability/grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$model", "tiny-qwen2-gptq-int4").replace("$__rate_interval", "1m")


def main():
    url, directory = sys.argv[1], Path(sys.argv[2])
    config = (ROOT / "examples/observability/prometheus.yml").read_text()
    config = config.replace("127.0.0.1:8000", url.removeprefix("http://")).replace("scrape_interval: 10s",
                                                                                   "scrape_interval: 1s")
    (directory / "prometheus.yml").write_text(config)
    prometheus = f"http://127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
         f"--web.listen-address={prometheus.removeprefix('http://')}"],
        stdout=subprocess.DEVNULL, stderr=(directory / "prometheus.err").open("w"))
    try:
        httpx.post(url + "/v1/completions", json={"prompt": "The sea", "model": "moby", "max_tokens": 4}, timeout=60)
        missing = list(expressions())
        assert len(missing) > 20, missing
        end = time.monotonic() + PATIENCE_S
        while missing and time.monotonic() < end:
            # Rates need two scrapes of a counter that has moved between them.
            httpx.post(url + "/v1/completions", json={"prompt": "The sea", "model": "moby", "max_tokens": 4}, timeout=60)
            time.sleep(0.2)
            try:
                missing = [expression for expression in missing if not result_of(prometheus, expression)]
            except httpx.TransportError:
                continue  # it has not begun to listen
        for expression in missing:
            print("no data:", expression)
        return 1 if missing else 0
    finally:
        server.terminate()
        server.wait()
        if server.returncode not in (0, -15):
            print((directory / "prometheus.err").read_text())


def result_of(prometheus, expression):
    answer = httpx.get(prometheus + "/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    return answer["data"]["result"]


if __name__ == "__main__":
    sys.exit(main())
