"""The page of `dpclip app` in a real browser, with nothing but this machine to talk to.

``DPCLIP_SCREENSHOT=docs/app.png pytest tests/integration/test_app.py`` renews the picture in the documents, for which it
trains adapters that are worth looking at.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from io import BytesIO
from urllib.parse import urlsplit

import pytest
from anomalib.engine import Engine
from PIL import Image

from anomalib_dpclip import DPCLIP, Surfaces, save_adapters

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'anomalib-dpclip[app]'")
pytest.importorskip("selenium", reason="the browser is driven with selenium: pip install selenium")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="needs the browser Chromium and its driver (Debian: apt-get install chromium chromium-driver)",
)

SCREENSHOT = os.environ.get("DPCLIP_SCREENSHOT")
PATIENCE = 120
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--window-size=1280,760"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

# Writes down every address that the server listens on, connects to or looks up.
WATCHED = """
import sys
def watch(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo"):
        address = arguments[0] if event == "socket.getaddrinfo" else arguments[1]
        print("SOCKET", event, address[0] if isinstance(address, tuple) else address, file=sys.stderr, flush=True)
sys.addaudithook(watch)
from anomalib_dpclip.cli import main
main()
"""


@pytest.fixture(scope="module")
def adapters(surfaces_root, tmp_path_factory):
    """Adapters with a calibration, of little or (for the picture) some training."""
    folder = tmp_path_factory.mktemp("adapters")
    model = DPCLIP(
        backbone="mini",
        auxiliary="Surfaces" if SCREENSHOT else "Surfaces/brick",
        auxiliary_root=str(surfaces_root),
        shots=None if SCREENSHOT else 8,
        batch_size=8,
        learning_rate=2e-3,
        visualizer=False,
    )
    engine = Engine(
        accelerator="cpu",
        devices=1,
        max_epochs=6 if SCREENSHOT else 1,
        limit_val_batches=0,
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
    )
    engine.fit(model=model, datamodule=Surfaces(root=surfaces_root, category="weave"))
    return save_adapters(model, folder / "adapters.safetensors")


@pytest.fixture(scope="module")
def server(adapters, tmp_path_factory):
    """`dpclip app` as a user starts it; gives its address and what it writes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    arguments = ["app", "--weights", str(adapters), "--port", str(port), "--max_megabytes", "1"]
    with (
        log.open("w") as output,
        subprocess.Popen([sys.executable, "-c", WATCHED, *arguments], stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        try:
            deadline = time.monotonic() + PATIENCE
            while "The page is at" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/", log
        finally:
            process.terminate()


class Page:
    """The page as its user sees it."""

    def __init__(self, browser, address):
        self.browser = browser
        browser.get(address)
        self.wait(lambda: self.find("#upload input[type=file]"), "the page does not load")

    def find(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, condition, message):
        return WebDriverWait(self.browser, PATIENCE).until(lambda _: condition(), message)

    @property
    def verdict(self):
        return self.find("#verdict")[0].text

    @contextmanager
    def answer(self, pattern):
        """Wait until what is done in the block is answered by another verdict, one that matches a pattern."""
        before = self.verdict
        yield
        self.wait(lambda: self.verdict != before and re.search(pattern, self.verdict), f"no verdict {pattern!r}")

    def upload(self, path):
        for button in self.find("#upload button[aria-label=Clear]"):
            button.click()
        self.wait(lambda: self.find("#upload input[type=file]"), "there is nothing to drop a photo on")
        self.find("#upload input[type=file]")[0].send_keys(str(path))

    def picture(self, name):
        """Address of a picture that has loaded, if there is one."""
        loaded = "return arguments[0].complete && arguments[0].naturalWidth > 0"
        images = self.find(f"#{name} img")
        return images[0].get_attribute("src") if images and self.browser.execute_script(loaded, images[0]) else None

    def type(self, selector, text):
        field = self.find(selector)[0]
        field.send_keys(Keys.CONTROL + "a" + Keys.NULL, text, Keys.ENTER, Keys.TAB)


@pytest.fixture
def page(server, tmp_path):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield Page(browser, server[0])
    finally:
        browser.quit()


SCORE = r"(Anomalous|Normal)\nScore 0\.\d{3}, threshold 0\.50"


def test_photo_class_name_and_threshold(page, surfaces_root):
    assert "Not calibrated" not in page.find("body")[0].text
    with page.answer(SCORE):
        page.upload(surfaces_root / "weave" / "test" / "hole" / "003.png")
    first = page.wait(lambda: page.picture("heat-map"), "no heat map")
    assert page.picture("photo")

    page.type("#class-name input", "weave surface")  # not among the suggestions
    page.wait(lambda: page.picture("heat-map") not in {None, first}, "the heat map stays that of the other class")
    if SCREENSHOT:
        time.sleep(1)  # transitions of the page
        screenshot = Image.open(BytesIO(page.browser.get_screenshot_as_png()))
        screenshot.convert("RGB").quantize(method=Image.Quantize.MAXCOVERAGE).save(
            SCREENSHOT, optimize=True
        )  # a fifth of the size

    score = re.search(r"Score (\S+),", page.verdict)[1]
    for threshold, decision in ((0, "Anomalous"), (1, "Normal")):
        with page.answer(rf"{decision}\nScore {score}, threshold {threshold}\.00"):
            page.type("#threshold input[type=number]", str(threshold))


def test_broken_file_gets_a_message_and_the_next_photo_an_answer(page, server, surfaces_root, tmp_path):
    photo = surfaces_root / "weave" / "test" / "good" / "000.png"
    with page.answer(SCORE):
        page.upload(photo)
    broken = tmp_path / "broken.png"
    broken.write_bytes(photo.read_bytes()[:2000])
    with page.answer(r"No result\ncannot read image broken\.png: "):
        page.upload(broken)
    assert page.picture("heat-map") is None, "the heat map of the photo before would pass for this one's"
    with page.answer(SCORE):
        page.upload(photo)
    assert "Traceback" not in server[1].read_text()


def test_too_large_a_photo_is_refused(page, tmp_path):
    large = tmp_path / "large.bmp"
    Image.new("RGB", (700, 700)).save(large)  # 1.5 MB
    page.upload(large)
    page.wait(lambda: "exceed the maximum allowed size of 1.0 Mb" in page.find("body")[0].text, "no message")
    assert page.picture("heat-map") is None


def test_nothing_leaves_the_machine(page, server, surfaces_root):
    with page.answer(SCORE):
        page.upload(surfaces_root / "weave" / "test" / "good" / "000.png")
    messages = [json.loads(entry["message"])["message"] for entry in page.browser.get_log("performance")]
    asked = {urlsplit(each["params"]["request"]["url"]) for each in messages if each["method"] == "Network.requestWillBeSent"}
    assert {url.hostname for url in asked if url.scheme.startswith("http")} == {"127.0.0.1"}
    addresses = set(re.findall(r"^SOCKET socket\.(\w+) (\S+)$", server[1].read_text(), re.MULTILINE))
    assert ("bind", "127.0.0.1") in addresses
    assert {address for _, address in addresses} <= {"127.0.0.1", "localhost", "None"}
