"""The live page in a headless Chromium, as a person uses it: what it shows is compared with what the server says.

  live_page.py BINARY_DIRECTORY [SCREENSHOT]

Prints what is wrong and exits 1 when anything is; 77 where there is no Chromium. SCREENSHOT: a picture of the page after
a minute of load, as in the README; else one is made earlier, and looked at by nobody.
"""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib.resources import files
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from chromium import PROGRAM, Chromium, Failed

ROOT = Path(__file__).resolve().parent.parent.parent
NO_CHROMIUM = 77
WIDTH, HEIGHT = 1000, 900
PHONE_WIDTH, PHONE_HEIGHT = 360, 740
STREAMS = 3
BASE = "tiny-qwen2-gptq-int4"
TAB, ENTER, SPACE = ("Tab", 9), ("Enter", 13), (" ", 32)

problems = []


def expect(right, what):
    if not right:
        problems.append(what)


class Server:
    """`lorikeet serve` with the adapters kjv and moby; shakespeare is in `folder`, from where clients may load."""

    def __init__(self, binary, scratch):
        self.folder = scratch / "adapters"
        shutil.copytree(ROOT / "examples/models/adapters", self.folder)
        self.log = scratch / "log"
        modules = [f"{name}={self.folder / name}" for name in ("kjv", "moby")]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [binary, "serve", ROOT / "examples/models" / BASE, "--tensor-parallel-size", "2", "--device", "cpu",
                 "--port", "0", "--zmq", f"ipc://{scratch}/zmq", "--enable-runtime-lora-updating", "--lora-dir",
                 self.folder, "--lora-modules", *modules], stdout=log, stderr=log)
        end = time.monotonic() + 120
        while not any(line.startswith("serving ") for line in self.said()):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                sys.exit("the server did not start: " + "\n".join(self.said()))
            time.sleep(0.05)
        address = next(line for line in self.said() if line.startswith("OpenAI API at "))
        self.url = address.removeprefix("OpenAI API at ").removesuffix("/v1")
        self.http = httpx.Client(base_url=self.url, timeout=300)

    def said(self):
        return self.log.read_text(errors="replace").splitlines()

    def end(self):
        self.process.send_signal(signal.SIGINT)
        self.process.send_signal(signal.SIGINT)  # at once
        self.process.wait(60)

    def adapters(self):
        return {row["name"]: row for row in self.http.get("/v1/adapters").json()["adapters"] if not row["replaced"]}

    def sum(self, sample, **labels):
        """Over the samples of that name with those labels."""
        total = 0
        for family in text_string_to_metric_families(self.http.get("/metrics").text):
            for found in family.samples:
                if found.name == sample and labels.items() <= found.labels.items():
                    total += found.value
        return total


class Load:
    """Streams through one adapter, until it is told to end."""

    def __init__(self, url, adapter):
        self.url, self.adapter, self.wanted = url, adapter, True
        self.threads = [threading.Thread(target=self.stream) for _ in range(STREAMS)]
        for thread in self.threads:
            thread.start()

    def stream(self):
        body = {"model": self.adapter, "prompt": "The whale", "max_tokens": 1500, "ignore_eos": True, "stream": True}
        while self.wanted:
            with httpx.stream("POST", self.url + "/v1/completions", json=body, timeout=300) as answer:
                for _ in answer.iter_lines():
                    if not self.wanted:
                        return

    def end(self):
        self.wanted = False
        for thread in self.threads:
            thread.join()


def text(selector):
    return f"(document.querySelector({json.dumps(selector)}) || {{}}).textContent"


def cells(table, name):
    """The texts of a table's row without its buttons, as an expression; null: there is no such row."""
    return (f"(row => row && [...row.cells].filter(cell => !cell.querySelector('button')).map(cell => cell.textContent))"
            f"(document.querySelector({json.dumps(f'#{table} tr[data-name={json.dumps(name)}]')}))")


def looks_after_start(page, server):
    page.wait_for(f"{text('#state')} === 'serving'")
    page.wait_for(f"{text('#model')} === {json.dumps(BASE)}")
    ranks = page.wait_for("document.querySelectorAll('#ranks tr').length === 2 && document.querySelector('#ranks').innerText")
    expect(ranks.count("ready") == 2 and "not ready" not in ranks, f"two ranks are ready, and the page says {ranks!r}")
    expect(sorted(server.adapters()) == ["kjv", "moby"], "the server has the adapters of its flags")
    for name in ("kjv", "moby"):
        page.wait_for(cells("adapters", name))
    expect(page.run(text("#running")) == "0 running", "nothing runs yet")


def manages_adapters(page, server):
    page.type("#load-name", "nobody")
    page.type("#load-path", "nowhere")
    page.click("#load button")
    page.wait_for(f"{text('#said')}.startsWith('load nobody: ') && !{text('#said')}.endsWith('...')")
    expect("nowhere" in page.run(text("#said")), "the page says why it cannot be loaded")
    expect("nobody" not in server.adapters() and not page.run(cells("adapters", "nobody")), "nobody is not loaded")

    page.type("#load-name", "bard")
    page.type("#load-path", "shakespeare")  # below the --lora-dir
    page.key(*ENTER)
    page.wait_for(f"{text('#said')}.startsWith('load bard: ')")
    page.wait_for(cells("adapters", "bard"))
    expect("bard" in server.adapters(), "the page shows an adapter that the server does not have")
    page.wait_for("document.querySelector('#load-name').value === ''")
    page.wait_for("[...document.querySelectorAll('#models input')].some(box => box.value === 'bard')")

    page.click("button[aria-label='pin bard']")
    page.wait_for(f"{cells('adapters', 'bard')}[1].endsWith(', pinned')")
    expect(server.adapters()["bard"]["pinned"], "bard is pinned")
    page.click("button[aria-label='unpin bard']")
    page.wait_for(f"{cells('adapters', 'bard')} && !{cells('adapters', 'bard')}[1].includes('pinned')")
    expect(not server.adapters()["bard"]["pinned"], "bard is pinned no more")
    page.click("button[aria-label='warm kjv']")
    page.wait_for(f"{cells('adapters', 'kjv')}[1].startsWith('on the ranks')")
    expect(server.adapters()["kjv"]["tier"] == "slot", "kjv is on the ranks")
    page.click("button[aria-label='unload bard']")
    page.wait_for(f"!{cells('adapters', 'bard')}")
    expect("bard" not in server.adapters(), "bard is unloaded")


def tries_a_prompt(page, server):
    before = {name: server.sum("lorikeet:adapter_requests_total", adapter=name) for name in ("kjv", "moby")}
    page.type("#prompt", "And it came to pass")
    page.type("#tokens", "48")
    # How often each answer has grown.
    page.run("""(() => {
        window.grown = {};
        new MutationObserver(() => {
            for (const article of document.querySelectorAll("#answers article")) {
                const name = article.querySelector("h3").textContent;
                (window.grown[name] ||= new Set()).add(article.querySelector("p").textContent.length);
            }
        }).observe(document.querySelector("#answers"), { childList: true, subtree: true, characterData: true });
    })()""")
    page.click("#run")
    page.wait_for("document.querySelector('#run').disabled && !document.querySelector('#stop').disabled")
    page.wait_for("!document.querySelector('#run').disabled")
    answers = page.run("[...document.querySelectorAll('#answers article')].map(a => [...a.children].map(c => c.textContent))")
    expect([answer[0] for answer in answers] == [BASE, "kjv", "moby"], f"three answers side by side: {answers}")
    grown = page.run("Object.fromEntries(Object.entries(window.grown).map(([name, sizes]) => [name, sizes.size]))")
    for name, answer, note in answers:
        expect(len(answer) > 20 and " tokens, the first after " in note, f"{name} has answered: {answer!r} {note!r}")
        expect(grown.get(name, 0) > 3, f"the answer of {name} came piece by piece: {grown}")
    for name, count in before.items():
        expect(server.sum("lorikeet:adapter_requests_total", adapter=name) == count + 1, f"{name} has answered once more")

    page.type("#tokens", "1900")  # ended by the button
    page.click("#run")
    page.wait_for("[...document.querySelectorAll('#answers p')].some(p => p.textContent.length > 20)")
    page.click("#stop")
    page.wait_for("!document.querySelector('#run').disabled && document.querySelector('#stop').disabled")
    page.wait_for(f"{text('#running')} === '0 running'")
    page.type("#tokens", "48")
    page.click("#run")  # what the picture shows
    page.wait_for("document.querySelector('#run').disabled")
    page.wait_for("!document.querySelector('#run').disabled")


def shows_the_load(page, server, screenshot):
    load = Load(server.url, "moby")
    try:
        page.wait_for(f"{text('#running')} === '{STREAMS} running'")
        page.wait_for(f"{cells('adapters', 'moby')}[2] === '{STREAMS}'")
        rate = "Number(document.querySelector('#rate').textContent.replace(/,/g, ''))"
        page.wait_for(f"{rate} > 0")
        page.wait_for("parseFloat(document.querySelector('#kv').textContent) > 0")
        page.wait_for("/^[0-9.,]+ ms$/.test(document.querySelector('#ttft').textContent)")
        page.wait_for("document.querySelector('#c-rate').getAttribute('points').split(' ').length >= 8")
        # Of two looks of its own the page shows what they say.
        page.run("""(() => {
            const real = window.fetch;
            window.looks = [];
            window.fetch = async (...what) => {
                const answer = await real(...what);
                if (String(what[0]).endsWith("/metrics")) window.looks.push([performance.now(), await answer.clone().text()]);
                return answer;
            };
        })()""")
        looks, shown = page.wait_for(f"window.looks.length >= 3 && [window.looks.slice(-3), {rate}]")
        page.run("window.looks = []")
        tokens = [sum(sample.value for family in text_string_to_metric_families(look) for sample in family.samples
                      if sample.name == "vllm:generation_tokens_total") for _, look in looks]
        # It may not have counted the last look yet.
        rates = [1000 * (tokens[i + 1] - tokens[i]) / (looks[i + 1][0] - looks[i][0]) for i in range(2)]
        # Its clock is read before it asks and ours after it has the answer.
        expect(any(0.5 * measured < shown < 2 * measured for measured in rates),
               f"the page shows {shown} tokens/s of {rates}")
        if screenshot:
            page.wait_for("document.querySelector('#c-rate').getAttribute('points').split(' ').length >= 45", 120)
        page.screenshot(screenshot or os.devnull)
    finally:
        load.end()
    page.wait_for(f"{text('#running')} === '0 running'")
    total = server.sum("lorikeet:adapter_requests_total", adapter="moby")
    page.wait_for(f"{cells('adapters', 'moby')}[3] === '{int(total)}'")


def is_reached_by_keyboard(page):
    page.run("document.activeElement.blur(); window.scrollTo(0, 0)")
    reached = []
    for _ in range(60):
        page.key(*TAB)
        reached.append(page.run("(e => e.id || e.getAttribute('aria-label') || e.value || e.textContent)(document.activeElement)"))
        if reached[-1] == "run":
            break
    for name in ("warm kjv", "pin moby", "unload moby", "load-name", "load-path", "prompt", "kjv", "tokens", "run"):
        expect(name in reached, f"the tabulator does not reach {name}: {reached}")
    expect(page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen")
    page.run("document.querySelector('#tokens').value = 4")
    page.run("document.querySelector('#answers').replaceChildren()")
    page.key(*SPACE)
    page.wait_for("document.querySelectorAll('#answers article').length > 0")
    page.wait_for("!document.querySelector('#run').disabled")
    # The table is redrawn with every look, and the focus stays where it is.
    page.run("window.looks = []; document.querySelector(\"button[aria-label='pin moby']\").focus()")
    page.wait_for("window.looks.length >= 2")
    expect(page.run("document.activeElement.getAttribute('aria-label')") == "pin moby", "a look takes the focus away")


def fits_eyes_and_phones(page):
    page.run((files("axe_core_python") / "axe.min.js").read_text() + "; undefined")
    backgrounds = set()
    for scheme in ("light", "dark"):
        page.prefer(scheme)
        backgrounds.add(page.run("getComputedStyle(document.body).backgroundColor"))
        for width, height in ((WIDTH, HEIGHT), (PHONE_WIDTH, PHONE_HEIGHT)):
            page.resize(width, height, mobile=width == PHONE_WIDTH)
            wide = page.run("document.documentElement.scrollWidth")
            expect(wide <= width, f"the page is {wide} wide where {width} are seen")
            found = page.run("axe.run().then(all => all.violations.map(v => [v.id, v.nodes.map(n => n.html)]))")
            expect(not found, f"axe-core, {scheme}, {width} wide: {found}")
    expect(len(backgrounds) == 2, "dark is not light")
    page.resize(WIDTH, HEIGHT)


def try_page(server, screenshot, scratch):
    with Chromium(scratch / "profile", WIDTH, HEIGHT) as page:
        try:
            page.open(server.url + ("/" if screenshot else "/?period=250"))
            looks_after_start(page, server)
            manages_adapters(page, server)
            tries_a_prompt(page, server)
            shows_the_load(page, server, screenshot)
            is_reached_by_keyboard(page)
            fits_eyes_and_phones(page)
        except Failed as failed:
            problems.append(str(failed))
        elsewhere = [asked for asked in page.requests if not asked.startswith(server.url)]
        expect(not elsewhere, f"the page asks others: {elsewhere}")
        # The browser notes every answer that is an error; those to what the test does wrong on purpose are.
        wrong = [line for line in page.complaints if "lora_adapter" not in line]
        expect(not wrong, f"the page's script complains: {wrong}")


def main():
    if not os.path.exists(PROGRAM):
        print("there is no Chromium")
        return NO_CHROMIUM
    with tempfile.TemporaryDirectory(prefix="lorikeet-page-") as directory:
        scratch = Path(directory)
        server = Server(Path(sys.argv[1]) / "lorikeet", scratch)
        try:
            try_page(server, sys.argv[2] if len(sys.argv) > 2 else None, scratch)
        finally:
            server.end()
    print("\n".join(problems), end="")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
