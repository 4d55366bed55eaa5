"""`dpclip app` as a user starts it, and its page in headless Chromium as the user sees it."""

import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("selenium", reason="the browser is driven with selenium: pip install selenium")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
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


@contextmanager
def served(folder, *arguments):
    """`dpclip app` as a user starts it; gives its address and what it writes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "log"
    command = [sys.executable, "-c", WATCHED, "app", "--port", str(port), *map(str, arguments)]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
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

    def clear(self, field):
        for button in self.find(f"#{field} button[aria-label=Clear]"):
            button.click()
        self.wait(lambda: self.find(f"#{field} input[type=file]"), "there is nothing to drop a photo on")

    def upload(self, *paths, field="upload"):
        self.clear(field)
        self.find(f"#{field} input[type=file]")[0].send_keys("\n".join(map(str, paths)))

    def press(self, name):
        self.find(f"#{name}")[0].click()

    def picture(self, name):
        """Address of a picture that has loaded, if there is one."""
        loaded = "return arguments[0].complete && arguments[0].naturalWidth > 0"
        images = self.find(f"#{name} img")
        return images[0].get_attribute("src") if images and self.browser.execute_script(loaded, images[0]) else None

    def choose(self, class_name):
        self.press("class-name input")
        options = self.wait(lambda: [each for each in self.find("[role=option]") if class_name in each.text], "no such name")
        options[0].click()

    def type(self, selector, text):
        field = self.find(selector)[0]
        field.send_keys(Keys.CONTROL + "a" + Keys.NULL, text, Keys.ENTER, Keys.TAB)


@contextmanager
def opened(address, folder):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options, webdriver.ChromeService(CHROMEDRIVER))
    try:
        yield Page(browser, address)
    finally:
        browser.quit()
