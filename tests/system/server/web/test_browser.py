"""The dashboard in a real browser: it logs in, every page is clean, a live page changes by itself."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi import FastAPI

from fixtures_dashboard import PASSWORD, seed
from shoal_server.access import Role
from shoal_server.registry.trust import TrustService
from shoal_server.services import Services
from shoal_server.storage.database import Database
from shoal_server.testing import api_token, fake_services, listening, program_of

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync --window-size=1280,900"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.system,
    pytest.mark.skipif(
        CHROMIUM is None or DRIVER is None, reason="chromium is not installed (apt-get install chromium-driver)"
    ),
]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[FastAPI]:
    from shoal_server.access import routes as access_routes
    from shoal_server.rollouts import routes as rollout_routes
    from shoal_server.web import pages

    database = Database(f"sqlite:///{tmp_path}/shoal.db")
    database.create_all()
    trust = TrustService(database, keys_folder=tmp_path / "keys", clock=time.time)
    services = fake_services(database, tmp_path, clock=time.time, trust=trust)
    app = program_of(services, [access_routes.router, rollout_routes.router])
    pages.install(app)
    seed(app.state.shoal)
    yield app
    database.close()


@pytest.fixture
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    profile = tempfile.mkdtemp(prefix="shoal-browser-")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


def test_pages_in_a_real_browser(program: FastAPI, browser: Any) -> None:
    with listening(program) as url:
        try:
            _log_in(browser, url)
            _open_every_page(browser, url)
            _watch_a_rollout(browser, url, program.state.shoal)
            _resume_by_button(browser, program.state.shoal)
            _unfold_an_answer(browser, url, program.state.shoal)
            assert _console(browser) == []
        finally:
            program.state.shoal.signals.close()  # ends the event streams; the server would wait for the browser


def _log_in(browser: Any, url: str) -> None:
    browser.get(url + "/rollouts")
    assert urlsplit(browser.current_url).path == "/login"
    _find(browser, "[name=name]").send_keys("olga")
    _find(browser, "[name=password]").send_keys("wrong")
    _find(browser, "button").click()
    _until(lambda: "wrong" in _find(browser, "[role=alert]").text)
    assert _console(browser) == ["401"]
    _find(browser, "[name=password]").send_keys(PASSWORD)
    _find(browser, "button").click()
    _until(lambda: urlsplit(browser.current_url).path == "/rollouts")


def _open_every_page(browser: Any, url: str) -> None:
    paths = [link.get_attribute("href") for link in browser.find_elements("css selector", ".nav a")]
    paths += [f"{url}/{path}" for path in ("devices/cam-new-01", "models/meter-reader/1.1.0", "rollouts/meter-1.2")]
    paths.append(f"{url}/webhooks/ops")
    assert len(paths) == 13
    for path in paths:
        browser.get(path)
        if browser.find_elements("css selector", ".pulse"):
            _until(lambda: _find(browser, ".pulse").text == "live")
        assert _console(browser) == [], path
        width, room = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert width <= room, path
    browser.get(url + "/drift")
    _find(browser, "a.cell.drift").click()
    _until(lambda: "at site=bern" in _find(browser, "h1").text)
    assert browser.find_elements("css selector", "svg.chart .live")
    assert _console(browser) == []


def _watch_a_rollout(browser: Any, url: str, shoal: Services) -> None:
    browser.get(url + "/rollouts/meter-1.1")
    _until(lambda: _find(browser, ".pulse").text == "live")
    browser.execute_script("window.neverReloaded = true")
    token = api_token(shoal, Role.OPERATOR)
    pause = f"{url}/api/v1/rollouts/meter-1.1/actions/pause"
    answer = httpx2.post(pause, json={"reason": "for the test"}, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    _until(lambda: "paused" in _find(browser, ".head .badge").text)
    assert "for the test" in _find(browser, ".notice").text
    assert _find(browser, ".actions .button").text == "Resume"
    assert browser.execute_script("return window.neverReloaded") is True
    assert _find(browser, ".pulse").text == "live"


def _resume_by_button(browser: Any, shoal: Services) -> None:
    from shoal_server.rollouts import store

    _find(browser, "[data-dialog=do-resume]").click()
    _until(lambda: _find(browser, "#do-resume").is_displayed())
    _find(browser, "#do-resume [name=reason]").send_keys("go on")
    _find(browser, "#do-resume .button.primary").click()
    _until(lambda: "go on" in _find(browser, ".timeline").text)
    with shoal.database.read() as session:
        assert store.read(session, "meter-1.1").reason == "resume by person:olga: go on"


def _unfold_an_answer(browser: Any, url: str, shoal: Services) -> None:
    """What somebody has unfolded stays so when the page is brought up to date."""
    from shoal_server.webhooks import store

    browser.get(url + "/webhooks/ops")
    _until(lambda: _find(browser, ".pulse").text == "live")
    _find(browser, "#deliveries summary").click()
    rows = len(browser.find_elements("css selector", "#deliveries tbody tr"))
    with shoal.database.write() as session:
        hook = store.get(session, "ops")
        delivered = store.deliveries(session, hook)[-1][0]
        store.redeliver(session, hook, delivered.id or 0, now=shoal.clock())
    shoal.signals.bump("webhooks")
    _until(lambda: len(browser.find_elements("css selector", "#deliveries tbody tr")) == rows + 1)
    assert browser.execute_script("return document.querySelector('#deliveries details').open") is True
    assert _console(browser) == []


def _find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def _console(browser: Any) -> list[str]:
    """What the browser complained of; a refused log-in is told as its status."""
    messages = [entry["message"] for entry in browser.get_log("browser")]
    return ["401" if "401" in message else message for message in messages]


def _until(condition: Any, timeout_s: float = 30.0) -> None:
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except (NoSuchElementException, StaleElementReferenceException):
            pass  # the page is just being changed
        assert time.monotonic() < deadline, "the page did not change in time"
        time.sleep(0.1)
