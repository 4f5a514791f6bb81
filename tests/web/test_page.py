"""explore.py in a real headless Chromium: load, choose, move sliders, save, upload, end.

Skipped without Gradio, Playwright or a Chromium on the PATH.
"""

import errno
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from web.sliders import SLIDERS
from web.texts import ENGLISH, SPANISH, translate

ROOT = Path(__file__).parents[2]
COARSE = next(slider.label for slider in SLIDERS if slider.name == "coarse")
PATIENCE = 120  # seconds, for busy machines
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
missing = [name for name in ("gradio", "playwright") if not importlib.util.find_spec(name)]
missing += [] if browser_path else ["a Chromium on the PATH"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}"),
]


@dataclass
class Server:
    """A running explore.py, and the home and temporary folders that it should leave clean."""

    process: subprocess.Popen[str]
    url: str
    home: Path
    temporary: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home, temporary = (tmp_path_factory.mktemp(name) for name in ("home", "temporary"))
    port = free_port()
    command = [sys.executable, ROOT / "explore.py", run, "--port", port, "--steps", 3]
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(temporary)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        list(map(str, command)), cwd=home, env=environment, stdout=pipe, stderr=pipe, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line, process.communicate()[1]
        yield Server(process, f"http://127.0.0.1:{port}/", home, temporary)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        made = player.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """The page, loaded; in the end, no request may have gone to any other host."""
    context = browser.new_context(locale="en-US", accept_downloads=True)
    made = context.new_page()
    made.set_default_timeout(1000 * PATIENCE)
    urls: list[str] = []
    made.on("request", lambda request: urls.append(request.url))
    made.goto(server.url)
    made.wait_for_selector("#third .changes img")
    made.wait_for_selector("#face-b img")
    yield made
    context.close()
    assert [url for url in urls if not url.startswith((server.url, "data:", "blob:"))] == []


def shown(page: Any) -> dict[str, str]:
    """Return the picture of each face."""
    places = ("face-a", "third", "face-b")
    return {place: page.locator(f"#{place} img").first.get_attribute("src") for place in places}


def changed(page: Any, before: dict[str, str], *places: str) -> dict[str, str]:
    """Wait until the pictures in `places` have changed; return all."""
    end = time.monotonic() + PATIENCE
    while any((now := shown(page))[place] == before[place] for place in places):
        assert time.monotonic() < end, f"{places} stayed the same"
        page.wait_for_timeout(50)
    return now


def push(page: Any, control: str) -> None:
    """Move a slider to its right end by the keyboard.

    A slider that has just been laid out may lose the key press: press again until it has moved.
    """
    slider = page.locator(f"#{control} input[type=range]")
    end = time.monotonic() + PATIENCE
    while slider.input_value() != slider.get_attribute("max"):
        assert time.monotonic() < end, f"{control} does not move"
        slider.press("End")
        page.wait_for_timeout(50)


def write(page: Any, control: str, text: str) -> None:
    """Type the value of a slider, again if Gradio resets it while it lays the slider out."""
    box = page.locator(f"#{control} input[type=number]")
    end = time.monotonic() + PATIENCE
    while True:
        box.fill(text)
        box.press("Tab")
        page.wait_for_timeout(300)
        if box.input_value() == text:
            return
        assert time.monotonic() < end, f"{control} does not keep {text}"


def upload(page: Any, side: str, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.click(f"#upload-{side}")
    chooser.value.set_files(path)


def save(page: Any, what: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click(f"#keep-{what}")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_the_page_shows_three_faces_and_switches_its_language(page: Any) -> None:
    assert len(set(shown(page).values())) == 3
    assert page.get_by_text(translate("title", ENGLISH)).is_visible()
    page.get_by_text(SPANISH, exact=True).click()
    page.get_by_text(translate("title", SPANISH)).wait_for()
    page.get_by_text(COARSE[1]).wait_for()
    assert page.locator("#keep-picture").inner_text() == translate("picture", SPANISH)
    assert page.get_by_text(COARSE[0]).count() == 0


def test_a_browser_in_spanish_gets_the_page_in_spanish(browser: Any, server: Server) -> None:
    context = browser.new_context(locale="es-PE")
    page = context.new_page()
    page.goto(server.url)
    page.get_by_text(translate("title", SPANISH)).wait_for(timeout=1000 * PATIENCE)
    context.close()


def test_faces_are_chosen_by_seed_and_at_random(page: Any) -> None:
    first = shown(page)
    page.fill("#seed-a input", "42")
    page.press("#seed-a input", "Enter")
    second = changed(page, first, "face-a", "third")
    assert second["face-b"] == first["face-b"]
    page.click("#draw-b")
    changed(page, second, "face-b", "third")
    page.fill("#seed-a input", "-1")
    page.press("#seed-a input", "Enter")
    page.get_by_text("A seed is a whole number from 0").first.wait_for()


def test_sliders_change_only_the_third_face_but_psi_changes_all(page: Any) -> None:
    first = shown(page)
    push(page, "coarse")
    second = changed(page, first, "third")
    page.wait_for_timeout(500)
    assert all(second[side] == first[side] for side in ("face-a", "face-b"))
    assert second["third"] == second["face-b"]  # middle and fine layers were B's already
    page.click("#directions button")
    push(page, "direction-0")
    third = changed(page, second, "third")
    page.click("#more button")
    write(page, "psi", "0.1")
    changed(page, third, "third", "face-a", "face-b")


def test_saved_files_open_and_styles_can_be_uploaded(page: Any, tmp_path: Path) -> None:
    names = {"picture": "third.png", "sheet": "crossover.png", "film": "third.webp"}
    for what, name in names.items():
        path = save(page, what, tmp_path)
        assert path.name == name
        with Image.open(path) as image:
            assert image.width >= 256
    styles = save(page, "styles", tmp_path)
    first = shown(page)
    upload(page, "a", styles)
    assert changed(page, first, "face-a")["face-a"] == first["third"]


def test_a_photo_is_projected(page: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    photo = tmp_path / "me & you.jpg"
    Image.fromarray(pixels).resize((80, 60)).save(photo)
    first = shown(page)
    upload(page, "b", photo)
    second = changed(page, first, "face-b", "third")
    assert second["face-a"] == first["face-a"]
    assert "me" in page.locator("#face-b figcaption").inner_text()
    assert page.input_value("#seed-b input") == ""


def test_a_bad_upload_shows_a_message_and_changes_nothing(
    page: Any, server: Server, tmp_path: Path
) -> None:
    first = shown(page)
    bad, large = tmp_path / "bad.jpg", tmp_path / "large.jpg"
    bad.write_text("no photo")
    upload(page, "a", bad)
    page.get_by_text(translate("no_photo", ENGLISH, "not an image")).first.wait_for()
    with open(large, "wb") as file:
        file.truncate(50 * 2**20)
    upload(page, "b", large)
    page.get_by_text(re.compile("exceed the maximum allowed size of 25")).first.wait_for()
    assert shown(page) == first
    page.click("#draw-a")  # the page goes on
    changed(page, first, "face-a")
    assert not any(path.is_file() for path in server.temporary.rglob("*.jpg"))


def test_the_run_is_stepped_through_its_snapshots(page: Any) -> None:
    page.click("#time button")
    page.get_by_text("after 12,000 iterations, 64 px").wait_for()
    assert page.locator("#then img").count() == 3
    page.click("#earlier")
    page.get_by_text("after 8,000 iterations, 32 px").wait_for()


def test_the_page_listens_on_this_machine_only_and_leaves_nothing_behind(server: Server) -> None:
    port = int(server.url.rstrip("/").rpartition(":")[2])
    with socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", port)) == errno.ECONNREFUSED
    assert len(list(server.temporary.iterdir())) == 1
    server.process.send_signal(signal.SIGINT)
    _, stderr = server.process.communicate(timeout=PATIENCE)
    assert server.process.returncode == 130
    assert stderr == "explore.py: ended; what was uploaded or made is erased\n"
    assert list(server.temporary.iterdir()) == []
    assert list(server.home.rglob("*")) == []
