"""A headless Chromium that a test drives over the pipe of its debugging protocol: no package beside Python is needed.

https://chromedevtools.github.io/devtools-protocol/ has the commands and events.
"""
import base64
import json
import os
import select
import signal
import subprocess
import time

PROGRAM = "/usr/bin/chromium"
PATIENCE_S = 60


class Failed(Exception):
    pass


class Chromium:
    """One browser with one page. What the page asks for and what its script complains of is kept."""

    def __init__(self, profile, width, height):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()

        def take_descriptors():  # in the child: 3 is what it reads, 4 what it writes
            first, second = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(first, 3)
            os.dup2(second, 4)

        # Its processes are one group, so that none is left behind.
        self.process = subprocess.Popen(
            [PROGRAM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--remote-debugging-pipe", f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False,
            preexec_fn=take_descriptors, start_new_session=True)
        os.close(theirs_in)
        os.close(theirs_out)
        self.read_from, self.write_to = ours_in, ours_out
        self.buffer, self.last_id, self.session = b"", 0, None
        self.complaints, self.requests, self.loaded = [], [], False
        page = next(target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(domain + ".enable")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.read_from)
        os.close(self.write_to)

    def call(self, method, **parameters):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write_to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(PATIENCE_S)
            if answer is None:
                raise Failed(f"the browser does not answer {method}")
            if answer.get("id") == self.last_id:
                if "error" in answer:
                    raise Failed(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, seconds):
        end = time.monotonic() + seconds
        while b"\0" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.read_from], [], [], left)[0]:
                return None
            piece = os.read(self.read_from, 1 << 16)
            if not piece:
                raise Failed("the browser has ended")
            self.buffer += piece
        text, self.buffer = self.buffer.split(b"\0", 1)
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event, about):
        if event == "Page.loadEventFired":
            self.loaded = True
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(about["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        elif event == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(about["entry"]["text"] + " " + about["entry"].get("url", ""))
        elif event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    # ---- the page

    def open(self, url):
        self.loaded = False
        self.call("Page.navigate", url=url)
        end = time.monotonic() + PATIENCE_S
        while not self.loaded:
            if self._receive(1) is None and time.monotonic() > end:
                raise Failed(f"{url} is not loaded in {PATIENCE_S} s")

    def resize(self, width, height, mobile=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def prefer(self, scheme):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, expression):
        """The value of a JavaScript expression; a promise's, once it has one."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise Failed(f"{expression}: {done['exceptionDetails'].get('exception', {}).get('description')}")
        return done["result"].get("value")

    def wait_for(self, expression, seconds=PATIENCE_S):
        """Until the expression is true; its value."""
        end = time.monotonic() + seconds
        while True:
            value = self.run(expression)
            if value:
                return value
            if time.monotonic() > end:
                raise Failed(f"the page has not shown this in {seconds} s: {expression}")
            self._receive(0.05)

    def click(self, selector):
        """With the mouse, on the middle of the element, as a person does."""
        spot = self.run(f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            if (!element) return null;
            element.scrollIntoView({{ block: "center" }});
            const box = element.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
            const hit = document.elementFromPoint(x, y);
            return {{ x, y, hit: !!hit && (element === hit || element.contains(hit)), disabled: !!element.disabled }};
        }})()""")
        if not spot or not spot["hit"] or spot["disabled"]:
            raise Failed(f"{selector} cannot be clicked: {spot}")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=spot["x"], y=spot["y"], button="left", clickCount=1)

    def key(self, name, code):
        for kind in ("rawKeyDown", "char", "keyUp"):
            if kind == "char" and name != "Enter" and name != " ":
                continue
            text = {"Enter": "\r", " ": " "}.get(name, "")
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code={" ": "Space"}.get(name, name), text=text,
                      windowsVirtualKeyCode=code, nativeVirtualKeyCode=code)

    def type(self, selector, text):
        self.run(f"(e => {{ e.focus(); e.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.call("Input.insertText", text=text)

    def screenshot(self, path):
        """Of the whole page, what is below the window's edge too."""
        width = self.run("innerWidth")
        for _ in range(2):  # a bar at the side that goes makes the lines longer, and fewer
            self.resize(width, self.run("Math.ceil(document.querySelector('main').getBoundingClientRect().bottom + scrollY)"))
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def cpu_seconds(self):
        """Of all the browser's processes, by what they do: {"renderer": ..., "browser": ..., ...}."""
        seconds = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as file:
                    fields = file.read().rpartition(")")[2].split()
                if int(fields[2]) != self.process.pid and int(fields[3]) != self.process.pid:  # group, session
                    continue
                with open(f"/proc/{pid}/cmdline") as file:
                    words = file.read().replace("\0", " ").split()
            except OSError:
                continue
            kind = next((word[7:] for word in words if word.startswith("--type=")), "browser")
            seconds[kind] = seconds.get(kind, 0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return seconds
