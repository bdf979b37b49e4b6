"""The page as people meet it: a real service, a real browser, every state that it can be in.

After every test: no error in the browser's console, no request to anywhere else, no breach of the page's own policy.
"""

from __future__ import annotations

import json
import re
import struct
import time
from contextlib import contextmanager

import pytest
import torch

from tests.evaluation.test_report import CHROMIUM, needs_chromium
from tests.media import write_video
from tests.model.test_uniformerv2 import MOTION, TINY, make
from tests.serving.service import serving
from uniformerv2.model.config import CheckpointInfo
from uniformerv2.zoo.checkpoint import save_model

pytest.importorskip("fastapi")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
pytestmark = [pytest.mark.chromium, needs_chromium]

NAMES = ("archery", "<b>dunk</b>", "c", "d", "e")
TOKEN = "a-token-of-the-tests"
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
POLICY = "addEventListener('securitypolicyviolation', (event) => console.error('policy', event.blockedURI));"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    for name, config in (("scene", TINY), ("motion", MOTION)):
        model = make(config)
        model.info = CheckpointInfo(class_names=NAMES)
        with torch.no_grad():
            model.head.weight.mul_(40)  # it is sure of something
        save_model(model, folder / name)
    for place in range(3):
        write_video(folder / f"{place}.mp4", num_frames=40, fps=10, seed=place)
    (folder / "broken.mp4").write_bytes((folder / "0.mp4").read_bytes()[:3000])
    (folder / "text.mp4").write_text("hello")
    return folder


@pytest.fixture(scope="module")
def service(folder):
    with serving(
        folder, f"scene={folder / 'scene'}", f"motion={folder / 'motion'}", "--queue-size", "1", "--max-upload-mb", "8"
    ) as service:
        yield service


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *FAKE_CAMERA])
        yield browser
        browser.close()


@contextmanager
def opened(chromium, service, *, expected=("status of 429",), **options):
    """The page, and at its end that nothing went wrong; ``expected`` is what may stand in the console."""
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    page.set_default_timeout(30_000)
    wrong, asked = [], []
    page.on("console", lambda line: wrong.append(line.text) if line.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(POLICY)
    try:
        page.goto(f"http://127.0.0.1:{service.port}/")
        yield page
        assert [line for line in wrong if not any(part in line for part in expected)] == []
        assert [
            url for url in asked if not url.startswith((f"http://127.0.0.1:{service.port}/", "blob:", "data:"))
        ] == []
        assert not any(TOKEN in url for url in asked)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    finally:
        context.close()


@pytest.fixture
def page(chromium, service):
    with opened(chromium, service) as page:
        yield page


def until(page, script):
    """Wait for something that is true; the page's policy forbids Playwright's own way, which is eval."""
    for _ in range(600):
        if page.evaluate(script):
            return
        page.wait_for_timeout(50)
    raise AssertionError(script)


def choose(page, *paths):
    page.wait_for_selector("#add:not([hidden])")
    page.set_input_files("#files", [str(path) for path in paths])


def bars(page):
    """Class -> score in percent, as they stand there."""
    page.wait_for_selector("#bars li")
    rows = page.eval_on_selector_all(
        "#bars li", "rows => rows.map(row => [row.children[0].textContent, row.children[1].textContent])"
    )
    return {name: float(text.removesuffix("\u00a0%")) for name, text in rows}


def answer(service, address, path):
    """Of a service that may still be at work for the page, and takes one request at a time."""
    while (found := service.post(address, path.read_bytes())).status == 429:
        time.sleep(0.1)
    return found.json


def served(service, path, model="scene"):
    """Class -> score in percent, as the service says it."""
    top = answer(service, f"/v1/predict?model={model}", path)["top"]
    return {one["name"]: pytest.approx(100 * one["score"], abs=0.06) for one in top}


def test_a_video_is_chosen_and_its_classes_stand_there(page, service, folder):
    choose(page, folder / "0.mp4")
    assert bars(page) == served(service, folder / "0.mp4")
    assert page.inner_text("#name").startswith("0.mp4, ")
    assert page.evaluate("document.querySelector('#player').duration") == pytest.approx(4, abs=0.2)
    steps = page.eval_on_selector_all("#times dt", "steps => steps.map(step => step.textContent)")
    assert steps == ["Upload", "Wait", "Decode", "Prepare", "Compute", "In all"]
    page.click("summary")
    until(page, "document.querySelector('#json').textContent.includes('\"archery\"')")
    until(page, "document.querySelector('#status').textContent.startsWith('0.mp4: ')")
    assert page.is_hidden("#videos")
    assert page.is_hidden("#model-choice") is False


def test_a_video_is_dropped_anywhere(page, service, folder):
    page.wait_for_selector("#add")
    moved = page.evaluate_handle(
        """bytes => {
            const moved = new DataTransfer();
            moved.items.add(new File([new Uint8Array(bytes)], "dropped.mp4"));
            return moved;
        }""",
        list((folder / "1.mp4").read_bytes()),
    )
    page.dispatch_event("footer", "dragenter", {"dataTransfer": moved})
    assert page.is_visible("#curtain")
    page.dispatch_event("footer", "drop", {"dataTransfer": moved})
    assert bars(page) == served(service, folder / "1.mp4")
    assert page.is_hidden("#curtain")


def test_a_folder_is_dropped_with_what_lies_below_it(page, service, folder):
    for place, name in enumerate(("b.mp4", "below/a.mp4", "notes.txt", ".hidden.mp4")):
        file = folder / "dropped" / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes((folder / f"{place % 3}.mp4").read_bytes())
    page.wait_for_selector("#add:not([hidden])")
    browser = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder / "dropped")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 200, "data": data})
    page.get_by_text("2 of 2 done").wait_for()
    assert page.locator("#list .file").all_text_contents() == ["a.mp4", "b.mp4"]


def test_an_example_is_one_click_away(page):
    page.click("#examples button >> nth=0")
    assert set(bars(page)) == set(NAMES)
    assert page.inner_text("#name").startswith("archery.mp4")


def test_a_broken_file_is_said_in_the_words_of_the_service(chromium, service, folder):
    with opened(chromium, service, expected=["status of 4"]) as page:
        for name in ("text.mp4", "broken.mp4"):
            choose(page, folder / name)
            page.wait_for_selector("#problem b")
            problem = answer(service, "/v1/predict", folder / name)
            assert page.inner_text("#problem").split("\n") == [problem["title"], problem["detail"]]
            until(page, "document.querySelector('#screen').hidden")
            assert page.is_hidden("#answer")
            assert page.is_hidden("#no-player")
            page.click("#remove")
        choose(page, folder / "0.mp4")
        assert set(bars(page)) == set(NAMES)
        assert page.is_hidden("#problem")
        with (folder / "huge.mp4").open("wb") as file:
            file.truncate(9 * 2**20)
        choose(page, folder / "huge.mp4")
        page.locator("#problem", has_text="An upload has at most 8 megabytes").wait_for()


def test_a_video_that_no_browser_plays_is_classified_anyway(page, service, folder):
    write_video(folder / "old.avi")
    choose(page, folder / "old.avi")
    assert bars(page) == served(service, folder / "old.avi")
    page.wait_for_selector("#no-player:not([hidden])")
    assert page.is_hidden("#screen")


def test_a_recording_of_the_camera_is_classified(page):
    page.click("#camera-open")
    page.check("#lengths input[value='3']")
    page.click("#record:not(:disabled)")
    assert set(bars(page)) == set(NAMES)
    assert page.inner_text("#name").startswith("camera ")
    until(page, "Number.isFinite(document.querySelector('#player').duration)")
    assert not page.evaluate("document.querySelector('#camera').open")
    assert page.evaluate("document.querySelector('#preview').srcObject") is None


def test_several_models_are_asked_by_a_choice(page, service, folder):
    choose(page, folder / "0.mp4")
    page.click("summary")
    first = bars(page)
    page.select_option("#model", "motion")
    until(page, "!document.querySelector('#json').textContent.includes('\"model\": \"scene\"')")
    page.wait_for_selector("#answer:not([hidden])")
    assert bars(page) == served(service, folder / "0.mp4", "motion") != first
    page.select_option("#model", "scene")
    until(page, "document.querySelector('#json').textContent.includes('\"model\": \"scene\"')")
    assert bars(page) == first


def test_many_videos_stand_in_a_list_that_keys_walk(page, service, folder):
    choose(page, *(folder / f"{place}.mp4" for place in range(3)))
    page.wait_for_selector("#counted:text('3 of 3 done')")
    rows = page.locator("#list li")
    assert rows.count() == 3
    assert rows.nth(0).get_attribute("aria-selected") == "true"
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    until(page, "document.querySelector('#name').textContent.startsWith('1.mp4')")
    assert bars(page) == served(service, folder / "1.mp4")
    with page.expect_download() as download:
        page.click("#save-all")
    saved = json.loads(download.value.path().read_text())
    assert [one["file"] for one in saved] == ["0.mp4", "1.mp4", "2.mp4"]
    page.focus("#list")
    page.keyboard.press("Delete")
    page.keyboard.press("End")
    until(page, "document.querySelector('#name').textContent.startsWith('2.mp4')")
    assert rows.count() == 2
    page.click("#clear")
    assert page.is_hidden("#workspace")


def test_the_token_is_asked_for_and_stands_in_no_address(chromium, folder):
    (folder / "tokens.txt").write_text(f"{TOKEN}\n")
    with serving(folder, str(folder / "scene"), "--token-file", str(folder / "tokens.txt")) as service:
        assert service.get("/v2/models").kind == "unauthorized"
        assert service.post("/", b"").kind == "unauthorized"
        with opened(chromium, service, expected=["status of 401"]) as page:
            page.fill("#token", "wrong")
            page.click("#entrance button")
            page.wait_for_selector("#token-problem:not([hidden])")
            page.fill("#token", TOKEN)
            page.click("#entrance button")
            choose(page, folder / "0.mp4")
            assert set(bars(page)) == set(NAMES)
            assert page.is_hidden("#entrance")
            page.reload()
            page.wait_for_selector("#add:not([hidden])")


def test_what_happens_when_stands_below_the_player(page, service, folder):
    choose(page, folder / "0.mp4")
    wanted = answer(service, "/v1/timeline?model=scene", folder / "0.mp4")
    assert wanted["segments"]
    page.wait_for_selector(".segment")
    names = page.eval_on_selector_all(".segment", "found => found.map(one => one.getAttribute('aria-label'))")
    assert sorted(name.split(",")[0] for name in names) == sorted(one["label"] for one in wanted["segments"])
    assert page.locator(".lane polygon").count() >= 1
    now = "document.querySelector('#player').currentTime"
    strip = page.get_by_role("slider", name="Time in the video")
    strip.focus()
    for key, seconds in (("ArrowRight", 0.5), ("ArrowRight", 1.0), ("ArrowLeft", 0.5), ("Home", 0)):
        page.keyboard.press(key)
        until(page, f"Math.abs({now} - {seconds}) < 0.01")
    box = strip.bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
    until(page, f"Math.abs({now} - 0.75 * {wanted['duration_seconds']}) < 0.05")
    assert float(strip.get_attribute("aria-valuenow")) == pytest.approx(0.75 * wanted["duration_seconds"], abs=0.1)
    assert strip.get_attribute("aria-valuetext").startswith("0:0")
    page.click(".segment >> nth=0")
    starts = [one["start_seconds"] for one in wanted["segments"]]
    until(page, f"{starts}.some(start => Math.abs({now} - start) < 0.05)")
    page.evaluate("document.querySelector('#player').play()")
    until(page, f"{now} > 0.3 && parseFloat(document.querySelector('.needle').style.left) > 0")


PAINTED = """() => {
    const map = document.querySelector("#map");
    const pixels = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
    return !map.hidden && new Set(pixels).size > 3;
}"""


def test_where_the_model_looked_lies_on_the_player(page, folder):
    choose(page, folder / "0.mp4")
    best = max(bars(page).items(), key=lambda pair: pair[1])[0]
    page.get_by_role("switch", name="Show where the model looks").check()
    page.get_by_text(f"Light is what spoke for \u201c{best}\u201d.").wait_for()
    until(page, f"({PAINTED})()")
    page.get_by_role("switch").uncheck()
    until(page, "document.querySelector('#map').hidden")
    assert page.text_content("#look-note") == ""


def test_where_no_browser_plays_the_video_the_service_makes_one_of_the_look(page, folder):
    choose(page, write_video(folder / "look.avi", num_frames=40, fps=10))
    bars(page)
    page.wait_for_selector("#no-player:not([hidden])")
    page.get_by_role("switch").check()
    until(page, "Math.abs(document.querySelector('#player').duration - 4) < 0.6")
    assert page.is_visible("#screen")
    page.get_by_role("switch").uncheck()
    until(page, "document.querySelector('#screen').hidden")


def test_a_network_that_cannot_be_explained_says_so(chromium, service, folder):
    problem = {"type": "urn:x", "title": "No.", "status": 422, "detail": "It has no video token."}
    with opened(chromium, service, expected=["status of 422", "status of 429"]) as page:
        page.route("**/v1/explain*", lambda route: route.fulfill(status=422, body=json.dumps(problem)))
        choose(page, folder / "0.mp4")
        bars(page)
        page.get_by_role("switch").check()
        page.get_by_text("It has no video token.").wait_for()


def test_a_busy_service_is_asked_again_and_a_lost_one_can_be(chromium, service, folder):
    answers = ["busy", "lost", "through", "through"]

    def reply(route):
        kind = answers.pop(0)
        if kind == "busy":
            route.fulfill(status=429, headers={"retry-after": "1"}, body="{}")
        elif kind == "lost":
            route.abort()
        else:
            route.continue_()

    with opened(chromium, service, expected=["status of 429", "ERR_FAILED"]) as page:
        page.route("**/v1/predict*", reply)
        choose(page, folder / "0.mp4")
        page.locator("#progress-words", has_text="The service is busy; it is asked again in 1").wait_for()
        page.locator("#problem", has_text="The service does not answer.").wait_for()
        page.click("#again")
        assert set(bars(page)) == set(NAMES)


def test_an_upload_tells_how_far_it_is(page, folder):
    hole = 3_000_000
    large = folder / "large.mp4"
    large.write_bytes((folder / "0.mp4").read_bytes() + struct.pack(">I4s", hole + 8, b"free") + bytes(hole))
    network = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 2_000_000}
    network.send("Network.emulateNetworkConditions", slow)
    choose(page, large)
    until(page, "/Sending: [1-9]/.test(document.querySelector('#progress-words').textContent)")
    assert 0 < page.evaluate("document.querySelector('#progress').value") < 1
    assert set(bars(page)) == set(NAMES)


SMALL = """() => [...document.querySelectorAll("button, select, summary, label.action, label.switch, .strip, #list li")]
    .filter(one => one.checkVisibility() && !one.matches(".segment") && one.getBoundingClientRect().height < 44)
    .map(one => one.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_everything_is_there_and_large_enough(chromium, service, folder, scheme):
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme, "reduced_motion": "reduce"}
    with opened(chromium, service, **phone) as page:
        page.wait_for_selector("#examples li")
        assert page.evaluate(SMALL) == []
        choose(page, folder / "0.mp4", folder / "1.mp4")
        page.wait_for_selector(".segment")
        assert page.evaluate(SMALL) == []
        colours = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        ink, paper = (sum(map(int, re.findall("[0-9]+", colour))) for colour in colours)
        assert (ink < paper) == (scheme == "light")


COUNT_ADDRESSES = """
    window.held = 0;
    const { createObjectURL: make, revokeObjectURL: free } = URL;
    URL.createObjectURL = (file) => { window.held += 1; return make.call(URL, file); };
    URL.revokeObjectURL = (address) => { window.held -= 1; free.call(URL, address); };
"""


@pytest.mark.slow
def test_fifty_files_in_a_row(chromium, service, folder):
    paths = [write_video(folder / f"row {place:02}.mp4", num_frames=30, fps=10, seed=place) for place in range(50)]
    with opened(chromium, service) as page:
        page.add_init_script(COUNT_ADDRESSES)
        page.reload()
        page.wait_for_selector("#examples li")
        before = page.evaluate("window.held")
        choose(page, *paths)
        page.get_by_text("50 of 50 done").wait_for(timeout=240_000)
        page.focus("#list")
        for place in range(1, 50):
            page.keyboard.press("ArrowDown")
            page.get_by_text(f"row {place:02}.mp4, ").wait_for()
        assert bars(page) == served(service, paths[-1])
        assert page.evaluate("window.held") == before + 1
        page.click("#clear")
        until(page, f"window.held === {before}")


def test_the_files_of_the_page_are_asked_for_again_only_where_they_changed(service):
    page = service.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    again = service.get("/", if_none_match=page.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    script = service.get("/page/page.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert service.ask("HEAD", "/").status == 200
    for path in ("/page/", "/page/../app.py", "/page/%2e%2e/app.py", "/page/nothing.js"):
        assert service.get(path).kind == "not-found"
    assert service.get("/", sec_fetch_site="cross-site").status == 200
