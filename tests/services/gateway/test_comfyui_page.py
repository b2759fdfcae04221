"""The page of a simulated ComfyUI in a real browser, which knows the gateway alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from tests.contract.client import until
from tests.contract.conftest import installation_of
from tests.services.gateway.conftest import Gateway
from tests.services.jobs.conftest import Server
from tests.services.jobs.site import MACHINE, Site

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RUN = """async prompt => {
  const socket = new WebSocket(`ws://${location.host}/ws?clientId=page`);
  await new Promise(opened => socket.onopen = opened);
  const shown = new Promise(seen => socket.onmessage = ({data}) => {
    const said = typeof data === 'string' ? JSON.parse(data) : {};
    if (said.type === 'executed' && said.data.node === '3') seen(said.data.output.images[0]);
  });
  const body = JSON.stringify({prompt, client_id: 'page'});
  const answer = await fetch('/api/prompt', {method: 'POST', body});
  if (!answer.ok) throw new Error(await answer.text());
  const image = new Image();
  image.src = '/api/view?' + new URLSearchParams(await shown);
  document.body.append(image);
  await image.decode();
  socket.close();
  return [image.naturalWidth, image.src];
}"""


TOKEN = "se:cret"


@pytest.fixture(params=["", TOKEN], ids=["open", "token"])
def gateway(server: Server, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    it = Gateway(tmp_path, server.url, request.param, machine=MACHINE)
    yield it
    it.end()
    assert it.log == "", "it says nothing"


@pytest.fixture
def site(server: Server, gateway: Gateway, tmp_path: Path) -> Iterator[Site]:
    installation = installation_of("simulator-2026", tmp_path / "comfyui")
    it = Site(server, installation, tmp_path)
    try:
        it.begin(instances=2)
        until(lambda: "Work" in gateway.ask("GET", "/object_info").json(), 60, "the instances")
        yield it
    finally:
        it.close()
        installation.close()


@pytest.fixture
def page() -> Iterator[Page]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say(f"there is none of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--no-proxy-server"]
        )
        yield browser.new_page(http_credentials={"username": "me", "password": TOKEN})
        browser.close()


def test_the_page_shows_a_picture(gateway: Gateway, site: Site, page: Page) -> None:
    answer = page.goto(gateway.url)
    assert answer
    assert answer.ok
    assert page.evaluate("fetch('/api/settings').then(it => it.status)") in (200, 404)
    assert page.evaluate("fetch('/free', {method: 'POST'}).then(it => it.status)") == 403
    width, source = page.evaluate(RUN, site.pictures())
    assert width > 0
    (job,) = gateway.ask("GET", "/api/jobs").json()["jobs"]
    assert f"subfolder=jobs%2F{job['id']}" in source, "a name that stays this picture's"
