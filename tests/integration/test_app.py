"""The page of `dpclip app` in a real browser, with nothing but this machine to talk to.

``DPCLIP_SCREENSHOT=docs/app.png pytest tests/integration/test_app.py`` renews the picture in the documents, for which it
trains adapters that are worth looking at.
"""

import ipaddress
import json
import os
import re
import time
from io import BytesIO
from urllib.parse import urlsplit

import pytest
from PIL import Image
from tests.data.golden.make_golden import GOLDEN
from tests.spotted import soft_photo

from anomalib_dpclip import Surfaces, save_adapters
from anomalib_dpclip.app.correct_command import write_corrected
from anomalib_dpclip.model.from_file import model_from_file

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'anomalib-dpclip[app]'")

from tests.integration.browser import CHROMEDRIVER, CHROMIUM, opened, served

pytestmark = pytest.mark.skipif(
    not (CHROMIUM and CHROMEDRIVER),
    reason="needs the browser Chromium and its driver (Debian: apt-get install chromium chromium-driver)",
)

SCREENSHOT = os.environ.get("DPCLIP_SCREENSHOT")


@pytest.fixture(scope="module")
def adapters(make_model, engine_in, learned_bricks, surfaces_root, tmp_path_factory):
    """Adapters with a calibration, of little or (for the picture) some training."""
    if not SCREENSHOT:
        return learned_bricks
    folder = tmp_path_factory.mktemp("adapters")
    model = make_model(auxiliary="Surfaces", shots=None, batch_size=8)
    engine = engine_in(folder, max_epochs=6, limit_val_batches=0)
    engine.fit(model=model, datamodule=Surfaces(root=surfaces_root, category="weave"))
    return save_adapters(model, folder / "adapters.safetensors")


@pytest.fixture(scope="module")
def server(adapters, tmp_path_factory):
    with served(tmp_path_factory.mktemp("server"), "--weights", adapters, "--max_megabytes", 1) as running:
        yield running


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint that remembers six plain photos."""
    model = model_from_file(GOLDEN / "checkpoint-v1.ckpt", visualizer=False)
    model.set_references([soft_photo(tmp_path / f"plain{seed}.png", seed) for seed in range(6)])
    write_corrected(model, GOLDEN / "checkpoint-v1.ckpt", tmp_path / "model.ckpt")
    return tmp_path / "model.ckpt"


@pytest.fixture
def page(server, tmp_path):
    with opened(server[0], tmp_path) as page:
        yield page


SCORE = r"(Anomalous|Normal)\nScore 0\.\d{3}, threshold 0\.50"


def test_photo_class_name_and_threshold(page, surfaces_root):
    assert "Not calibrated" not in page.find("body")[0].text
    assert not any(button.is_displayed() for button in page.find("#fine")), "there is nothing to correct"
    with page.answer(SCORE):
        page.upload(surfaces_root / "weave" / "test" / "hole" / "003.png")
    first = page.wait(lambda: page.picture("heat-map"), "no heat map")
    assert page.picture("photo")

    page.type("#class-name input", "weave surface")  # not among the suggestions
    page.wait(lambda: page.picture("heat-map") not in {None, first}, "the heat map stays that of the other class")
    score = re.search(r"Score (\S+),", page.verdict)[1]
    for threshold, decision in ((0, "Anomalous"), (1, "Normal")):
        with page.answer(rf"{decision}\nScore {score}, threshold {threshold}\.00"):
            page.type("#threshold input[type=number]", str(threshold))


def take_screenshot(page):
    page.browser.set_window_size(1280, 960)
    time.sleep(1)  # transitions of the page
    screenshot = Image.open(BytesIO(page.browser.get_screenshot_as_png())).convert("RGB")
    screenshot.quantize(method=Image.Quantize.MAXCOVERAGE).save(SCREENSHOT, optimize=True)  # a fifth of the size


def test_good_photos_given_and_removed(page, surfaces_root):
    assert page.verdict == "Drop a photo, or several, to begin.\nKnown of the target: nothing, not even its name."
    page.choose("weave")
    judged, good = surfaces_root / "weave" / "test" / "hole" / "004.png", surfaces_root / "weave" / "train" / "good"
    with page.answer(SCORE + r"\nKnown of the target: nothing but its name\.\nThe thresholds are not of weave: "):
        page.upload(judged)
    by_name, map_by_name = page.verdict, page.wait(lambda: page.picture("heat-map"), "no heat map")
    count = 12 if SCREENSHOT else 4
    beside = rf"\n[\d.]+ % of {count} good photos score lower, most like \d+\.png\.\n"
    with page.answer(SCORE + beside + rf"Known of the target: {count} good photos\.$"):
        page.upload(*sorted(good.iterdir())[:count], field="good")
    page.wait(lambda: page.picture("heat-map") not in {None, map_by_name}, "the heat map stays that of the name alone")
    if SCREENSHOT:
        take_screenshot(page)
    with page.answer("nothing but its name"):
        page.clear("good")
    assert page.verdict == by_name

    with page.answer(r"^No result\n004\.png is the photo to judge and, as 004\.png, a good photo"):
        page.upload(judged, field="good")
    assert page.picture("heat-map") is None
    with page.answer("nothing but its name"):
        page.clear("good")
    assert page.verdict == by_name


def test_a_photo_that_is_fine_is_remembered(checkpoint, tmp_path):
    called, again = (soft_photo(tmp_path / f"spot{seed}.png", seed, (30, 60)) for seed in (7, 8))
    with served(tmp_path, "--weights", checkpoint) as (address, log), opened(address, tmp_path) as page:
        assert page.verdict == "Drop a photo, or several, to begin.\nKnown of the target: 6 good photos kept in the checkpoint."
        page.press("fine")  # of no photo
        with page.answer(r"^Anomalous"):
            page.upload(called)
        assert not (tmp_path / "model-corrected.ckpt").exists()
        with page.answer(r"^Normal[^$]*\nCorrected, and kept in model-corrected\.ckpt beside the checkpoint\."):
            page.press("fine")
        with page.answer(r"Not corrected: spot7\.png has been taken for fine before"):
            page.press("fine")
        with page.answer(r"^Normal[^$]*7 good photos kept in the checkpoint\.$"):
            page.upload(again)
        assert "Traceback" not in log.read_text()
    assert int(model_from_file(tmp_path / "model-corrected.ckpt").scorer.state.memory.photos) == 7


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
    others = {address for _, address in addresses} - {"localhost", "None"}
    assert all(ipaddress.ip_address(address).is_loopback for address in others), others
