"""The jobs of a real gateway on the page of a real health server, in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import Browser, expect

from tests.contract.client import until
from tests.services.conftest import SceneMaker
from tests.services.gateway.conftest import SAVE, Gateway, gateway, node, workers
from tests.services.gateway.double_of_workers import INSTANCE, Workers
from tests.services.health.sampling.test_queue_sampler import hanging, jobs
from tests.services.health.web.test_page import EVIL, PICTURE, browser
from tests.services.jobs.conftest import server

__all__ = ["browser", "gateway", "server", "workers"]


def test_the_page_shows_what_the_gateway_has_and_that_it_hangs(
    browser: Browser, scene: SceneMaker, gateway: Gateway, workers: Workers
) -> None:
    real = scene(settings={"jobs": jobs(gateway.url)})
    real.serve()
    context = browser.new_context(viewport={"width": 380, "height": 800}, color_scheme="dark")
    page, wrong = context.new_page(), list[str]()
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.goto(real.url)
    section = page.locator("#jobs")
    expect(section).to_contain_text("No job yet.")

    uploaded = gateway.ask("POST", "/api/v2/assets", files={"file": ("a.png", PICTURE)},
                           data={"file_path": "a.png"}).json()["id"]  # fmt: skip
    for workflow in ({"1": node("Save", image=uploaded)}, {"7": node("Break", message=EVIL)}):
        gateway.job(gateway.submit(workflow)["id"], wait=10)
    held = gateway.submit({"1": node("Say"), "2": node("Hold")})["id"]
    until(lambda: gateway.job(held)["status"] == "running", 10, "it to run")
    workers.pause()
    for _ in range(3):
        gateway.submit(SAVE)

    expect(section.locator(".title")).to_have_text(
        re.compile(r"3 wait \(the oldest \d+ s\), 1 run")
    )
    running = section.get_by_role("list", name="Running jobs")
    expect(running).to_contain_text(f"{held[:8]}… on {INSTANCE}")
    expect(running.locator("progress")).to_have_attribute("value", "50")
    expect(section.get_by_role("list", name="Failed jobs")).to_contain_text(
        "at node 7 (Break)", use_inner_text=True
    )
    expect(section).to_contain_text(f"ValueError: {EVIL}")
    expect(section.locator(".shot img")).to_have_js_property("naturalWidth", 2)
    # The double's preview is no whole picture.
    expect(running.locator(".peek img")).to_have_attribute("src", re.compile(f"/{held}[?]at="))
    assert page.evaluate("document.documentElement.scrollWidth") == 380

    with hanging(gateway):
        expect(section).to_contain_text("Not known: the gateway doesn't answer within 1.5 s")
        expect(page.locator(".link.good")).to_have_text("live")
    expect(section.locator(".title")).to_contain_text("3 wait")
    gateway.ask("POST", f"/api/v2/jobs/{held}/cancel")
    assert wrong == []
    context.close()
