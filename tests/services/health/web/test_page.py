"""The page in a real browser, with a server that says what the tests tell it."""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Dialog,
    Locator,
    Page,
    expect,
    sync_playwright,
)

from comfy_machine.services.health.model import answers
from tests.services import samples
from tests.services.conftest import SceneMaker
from tests.services.stand import PATHS, Stand, stand

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = """--no-sandbox --disable-gpu --disable-background-networking --disable-sync
--disable-component-update --no-first-run --disable-quic --no-proxy-server""".split()
BY_THE_NETWORK = "Failed to load resource"
"""What the browser itself writes to its console at each answer of 400 and more."""

PICTURES = re.compile(r"/health/comfyui/(pictures|thumbnails|previews)/")
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGM8ISfHwMDAxMDAwMDAAAANBAEIfXHK"
    "ZgAAAABJRU5ErkJggg=="
)
"""A PNG of two by two pixels."""
IDLE: dict[str, Any] = {
    "stuck": [],
    "waiting": 0,
    "oldest": None,
    "running": 0,
    "dead": 0,
    "runs": [],
    "ended": [],
}

expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all tests. Where tests must not be skipped, as CI says by CI=true, it has to be."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say(f"the page is tested in Chromium, and there is none of {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        yield launched
        launched.close()


@pytest.fixture
def server() -> Iterator[Stand]:
    with stand() as one:
        yield one


@pytest.fixture
def page(browser: Browser, server: Stand) -> Iterator[Page]:
    """Whatever a test does, nothing is asked of others, written to the console, or opened."""
    context = browser.new_context()
    opened = context.new_page()
    wrong: list[str] = []
    asked: set[str] = set()

    def hear(said: ConsoleMessage) -> None:
        if not said.text.startswith(BY_THE_NETWORK):
            wrong.append(said.text)

    def dismiss(dialog: Dialog) -> None:
        wrong.append(dialog.message)
        dialog.dismiss()

    opened.on("console", hear)
    opened.on("dialog", dismiss)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: asked.add(request.url))
    yield opened
    context.close()
    own = {f"{server.url}{path}" for path in ("/", "/health/comfyui/events", *PATHS)}
    others = {url for url in asked - own if not url.startswith("data:")}
    assert [url for url in others if not PICTURES.match(url.removeprefix(server.url))] == []
    assert wrong == []


def show(page: Page, server: Stand, topics: samples.Topics) -> None:
    server.say(**topics)
    page.goto(server.url)
    expect(page.locator(".link.good")).to_have_text("live")
    expect(page.locator(".empty", has_text="Nothing is known yet")).to_have_count(0)


def texts(locator: Locator) -> list[str]:
    return [" ".join(text.split()) for text in locator.all_inner_texts()]


def test_progress_is_seen_while_installing(page: Page, server: Stand) -> None:
    show(page, server, samples.installing())
    expect(page.locator("h1")).to_contain_text("installing")
    progress = page.locator("#progress")
    expect(progress.locator("h2")).to_have_text("doit up is running")
    expect(progress.locator(".whole")).to_contain_text("41 %")
    expect(progress.locator(".whole")).to_contain_text("about 3 min left")
    expect(progress.locator(".whole")).to_contain_text("3 of 13 tasks done")
    node, environment, model, supervisor = texts(progress.locator("ul.rows").first.locator("li"))
    assert re.search("was-node-suite-comfyui .* receiving objects", node)
    assert re.search(r"34 % 1 min 1\d s 64 of 187 packages", environment)
    assert "1.2 of 4.3 GB" in model
    assert "%" not in supervisor
    assert texts(progress.locator("summary")) == ["6 waiting", "3 finished"]
    assert page.locator(".bad").count() == 0, "what isn't there yet is no fault"
    expect(page.locator("main")).to_contain_text("they start when the installation is done")

    further = samples.run("running", samples.RUNNING[:1], percent=97.0, seconds_left=None)
    server.say(**samples.machine("installing", [], run=further))
    expect(progress.locator(".whole")).to_contain_text("97 %")
    expect(progress.locator(".whole")).to_contain_text("time left unknown")
    server.say(**samples.healthy(2))
    expect(progress).to_have_count(0)
    expect(page.locator("#nodes")).to_contain_text("doit up succeeded")


def test_a_failed_task_comes_first_with_its_reason_and_its_log(page: Page, server: Stand) -> None:
    show(page, server, samples.broken_off("failed"))
    progress = page.locator("#progress")
    expect(progress.locator("h2")).to_have_text("doit up failed")
    first = progress.locator("ul.rows > li").first
    expect(first).to_contain_text("could not be cloned: the repository answers 404")
    expect(first).to_contain_text("log: /workspace/.machine/logs/nodes-ComfyUI-Broken.log")
    assert texts(progress.locator("summary")) == ["6 held back by what failed", "3 finished"]
    expect(page.locator("#machine")).to_contain_text("What to do: doit")


def test_all_that_is_to_come_or_failed_to_is_listed_where_it_is_more_than_one_thing(
    page: Page, server: Stand
) -> None:
    show(page, server, samples.progressing())
    listed = page.locator("#machine").get_by_role("list", name="Conditions").locator("li")
    assert [re.sub(r" since .*", "", text) for text in texts(listed)] == [
        "the run brings checkpoints/xl.safetensors", "custom node x: it is left out",
    ]  # fmt: skip
    assert re.search(r"since \d\d:\d\d \(1 min 1\d s\)$", texts(listed)[0])
    assert listed.first.get_attribute("class") == "busy"
    one = samples.progressing()
    told = one["overview"].model_dump()["conditions"][:2]
    server.say(overview=one["overview"].model_copy(update={"conditions": [
        answers.MachineCondition(**each) for each in told
    ]}))  # fmt: skip
    expect(listed).to_have_count(0)


def test_an_interrupted_run_is_said_to_be_that(page: Page, server: Stand) -> None:
    show(page, server, samples.broken_off("interrupted"))
    progress = page.locator("#progress")
    expect(progress.locator("h2")).to_have_text("doit up was interrupted")
    expect(progress).to_contain_text("the next run continues from there")
    assert "left" not in progress.inner_text()
    rows = texts(progress.locator("ul.rows").first.locator("li"))
    assert rows
    assert all("broken off" in row for row in rows)
    assert progress.locator(".spins").count() == 0


def test_a_healthy_machine_of_eight_gpus_is_seen_to_be_well(page: Page, server: Stand) -> None:
    show(page, server, samples.healthy())
    assert page.title() == "healthy · comfy-machine"
    expect(page.locator("#machine")).to_contain_text("(3 h 12 min)")
    expect(page.locator("#said")).to_contain_text("Machine healthy")
    expect(page.locator(".card")).to_have_count(8)
    assert texts(page.locator("h3")) == [f"comfyui-gpu{gpu}" for gpu in range(8)]
    assert page.locator(".bad, .warn, .log").count() == 0
    assert page.locator(".card [aria-label=yes]").count() == 4 * 8
    seventh = page.locator("#gpu7")
    for text in (
        "port 8195",
        "pid 4107",
        "4.7 GB",
        "39.0 of 80 GiB",
        "KSampler",
        "84 %",
        "worker-gpu7 runs",
    ):
        expect(seventh).to_contain_text(text)
    label = seventh.locator(".spark svg").first.get_attribute("aria-label")
    assert label == "memory: 3.7 GB to 4.3 GB in the last 10 min"
    drawn = seventh.locator(".curve").first.get_attribute("d") or ""
    assert drawn.count("M") == 2, "a gap where nothing was known"
    page.get_by_role("link", name="GPU 7").click()
    expect(seventh).to_be_in_viewport()


def test_a_sick_instance_says_why_what_to_do_and_its_last_lines(page: Page, server: Stand) -> None:
    show(page, server, samples.unhealthy())
    assert page.title() == "unhealthy · comfy-machine"
    sick = page.locator("#gpu1")
    expect(sick.locator(".badge")).to_have_text("unhealthy")
    expect(sick.locator(".why")).to_contain_text("has been at the front of the queue for 312 s")
    expect(sick.locator(".why")).to_contain_text("What to do: doit restart comfyui-gpu1")
    layers = sick.locator(".layers li")
    marks = layers.locator("svg").evaluate_all("all => all.map(one => one.ariaLabel)")
    assert marks == ["yes", "yes", "no", "no"]
    expect(layers.last).to_contain_text("1 of 4 is listed but can't be loaded")
    for text in (
        "ComfyUI-Impact-Pack doesn't import: ImportError",
        "was-node-suite lacks BLIP Analyze, CLIPSeg",
        "checkpoints/xl.safetensors listed, but the link leads nowhere",
        "canary",
        "no answer within 60 s",
        "worker-gpu1 waits for comfyui-gpu1: it is unhealthy",
        "later (optional)",
        "video: node 7 is of class Gone, which it lacks",
    ):
        expect(sick).to_contain_text(text)
    log = sick.locator("pre")
    expect(log).to_be_visible()
    lines = log.inner_text().splitlines()
    assert lines[-2:] == [
        "!!! Exception during processing !!!",
        "RuntimeError: CUDA error: device-side assert triggered",
    ]
    assert log.evaluate("pre => pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4")
    assert page.locator("#gpu0 .log, #gpu0 .why").count() == 0


def test_what_is_wrong_with_nodes_and_models_comes_first(page: Page, server: Stand) -> None:
    show(page, server, samples.unhealthy())
    assert "5 nodes, 2 with a problem" in page.locator("#nodes").inner_text()
    broken, optional, *well = texts(page.locator("#nodes .rows > li"))
    assert broken == "ComfyUI-Broken not imported 4f3e2d1c0b ImportError: no module cv2"
    assert optional.startswith("Optional-Pack (optional) not there should be 4f3e2d1c0b could not")
    assert len(well) == 4
    damaged, *well = texts(page.locator("#models .rows > li"))
    assert damaged == (
        "checkpoints/xl.safetensors present not verified not listed by GPU 1"
        " GPU 2 doesn't say 4.3 GB its sha256 differs from the lock's"
    )
    assert well[0] == "checkpoints/sd15.safetensors present verified listed 4.3 GB"


def test_a_machine_without_instances_has_words_for_it(page: Page, server: Stand) -> None:
    show(page, server, samples.disabled())
    expect(page.locator("#machine")).to_contain_text("ENABLE_COMFYUI is false")
    main = page.locator("main")
    expect(main).to_contain_text("ComfyUI is switched off here, so no instance runs")
    expect(main).to_contain_text("machine.yaml names no models")
    expect(main).to_contain_text("machine.yaml names no custom nodes")
    assert page.locator(".bad, #progress").count() == 0
    waits = answers.Service(name="queue", running=False, waits_for=["redis"], reason="no answer")
    server.say(**samples.machine("down", [], services=[waits]))
    expect(main).to_contain_text("queue waits for redis: no answer")


def test_jobs_are_shown_with_their_progress_their_pictures_and_why_they_failed(
    page: Page, server: Stand
) -> None:
    server.pictures |= dict.fromkeys((samples.THUMBNAIL, samples.PREVIEW), PICTURE)
    show(page, server, samples.with_jobs(samples.healthy(2)))
    jobs = page.locator("#jobs")
    expect(jobs.locator(".title")).to_have_text(
        re.compile(r"3 wait \(the oldest 1 min 1\d s\), 2 run$")
    )
    expect(jobs.locator(".note")).to_contain_text("1 job is dead")
    expect(jobs.locator(".note code")).to_have_text("doit jobs --failed")
    first, second = texts(jobs.get_by_role("list", name="Running jobs").locator("li"))
    assert re.fullmatch(r"1b64c1b2… on comfyui-gpu0 at node 7 for owner 42 % 1\d s", first)
    assert re.fullmatch(r"2b64c1b2… on comfyui-gpu1 for owner \d+ s", second)
    bars = jobs.locator("progress")
    assert [bars.nth(n).get_attribute("value") for n in range(2)] == ["42", None]
    (failed,) = texts(jobs.get_by_role("list", name="Failed jobs").locator("li"))
    assert re.fullmatch(
        r"4b64c1b2… failed on comfyui-gpu1 at node 7 \(KSampler\) \d\d:\d\d"
        r" ValueError: no such sampler",
        failed,
    )
    (waits,) = texts(jobs.get_by_role("list", name="Jobs that wait in vain").locator("li"))
    assert re.fullmatch(r"2 wait: no instance has node class X first 7b64c1b2… 1 min 1\d s", waits)
    preview, picture = jobs.locator(".peek img"), jobs.locator(".shot img")
    expect(preview).to_have_js_property("naturalWidth", 2)
    expect(jobs.locator(".peek")).to_have_count(2)
    expect(picture).to_have_js_property("naturalWidth", 2)
    assert jobs.locator(".shot a").get_attribute("href") == samples.PICTURE
    said = texts(jobs.locator(".shot"))
    assert [text.split(" ")[0] for text in said] == ["3b64c1b2…", "5b64c1b2…", "6b64c1b2…"]
    assert "canceled" in said[1]

    server.say(**samples.with_jobs(samples.healthy(2), paused=True, dead=0, advice="", waiting=1))
    expect(jobs.locator(".note")).to_contain_text("Paused")
    expect(jobs.locator(".title")).to_contain_text("1 waits")
    silent = answers.JobQueue(ok=False, reason="the gateway doesn't answer within 1.5 s")
    overview = samples.healthy(2)["overview"].model_copy(update={"jobs": silent})
    server.say(overview=overview)
    expect(jobs).to_have_text("JobsNot known: the gateway doesn't answer within 1.5 s")
    server.say(**samples.with_jobs(samples.healthy(2), **IDLE))
    expect(jobs).to_have_text("Jobs0 wait, 0 runNo job yet.")


def test_a_picture_that_is_gone_leaves_an_empty_place_until_it_is_there(
    page: Page, server: Stand
) -> None:
    show(page, server, samples.with_jobs(samples.healthy(1)))
    pictures = page.locator("#jobs img")
    expect(pictures).to_have_count(2)
    for n in range(2):
        expect(pictures.nth(n)).to_have_css("visibility", "hidden")
    server.pictures |= dict.fromkeys((samples.THUMBNAIL, samples.PREVIEW), PICTURE)
    for n in range(2):
        expect(pictures.nth(n)).to_have_css("visibility", "visible")


def test_without_jobs_there_is_nothing_of_them(page: Page, server: Stand) -> None:
    show(page, server, samples.healthy(1))
    expect(page.locator("#gpus, [aria-labelledby=gpus-title]")).to_have_count(1)
    assert page.locator("#jobs").count() == 0
    assert "jobs" not in samples.healthy(1)["overview"].model_dump()


EVIL = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&amp;{{7*7}}`${alert(3)}"
OURS = {"status", "state", "code"}
"""The fields that have one of a few words."""
OPEN = {"instances", "missing_nodes", "failed_nodes", "wrong", "listed"}
"""The fields whose keys come from outside."""


def hostile(value: Any, field: str = "") -> Any:
    """The same with markup in every text from outside."""
    if isinstance(value, dict):
        ending = EVIL if field in OPEN else ""
        return {f"{key}{ending}": hostile(one, key) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one, field) for one in value]
    return f"{value}{EVIL}" if isinstance(value, str) and value and field not in OURS else value


def outside(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """Every text from outside, by its field."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from [(field, key)] if field in OPEN else []
            yield from outside(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from outside(one, field)
    elif isinstance(value, str) and value.endswith(EVIL):
        yield field, value


def test_whatever_comes_from_outside_stays_text(page: Page, server: Stand) -> None:
    tasks = [*samples.FAILED, *samples.RUNNING, *samples.FINISHED]
    services = [answers.Service(name="queue", running=False, waits_for=["redis"], reason="none")]
    run = samples.run("running", tasks, seconds_left=10.0)
    harmless = samples.with_jobs(samples.unhealthy(run=run, services=services))
    show(page, server, harmless)
    tags = "all => all.map(one => one.tagName)"
    before = Counter(page.locator("html *").evaluate_all(tags))

    told = {name: hostile(topic.model_dump()) for name, topic in harmless.items()}
    server.say(**{name: type(harmless[name]).model_validate(body) for name, body in told.items()})
    expect(page.locator("#machine")).to_contain_text(EVIL)
    expect(page.locator("#models")).to_contain_text(EVIL)
    assert Counter(page.locator("html *").evaluate_all(tags)) == before
    shown = page.locator("#page").text_content() or ""
    told_texts = [pair for body in told.values() for pair in outside(body)]
    hidden = {field for field, text in told_texts if text not in shown}
    assert hidden == {"uuid", "id", "picture", "thumbnail", "preview"}, (
        "shown in part, as an address or not at all"
    )


READABLE = """() => {
  const numbers = (colour) => colour.match(/[0-9.]+/g).map(Number);
  const light = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map((of) => of / 255).map((of) =>
      of <= 0.04045 ? of / 12.92 : ((of + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let one = node; one; one = one.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(one).backgroundColor);
      if (alpha === 1) return [r, g, b];
    }
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest(".unseen")) continue;
    seen += 1;
    const both = [light(numbers(getComputedStyle(node).color)), light(ground(node))];
    const ratio = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
    if (ratio < 4.5) poor.push(`${walk.currentNode.data}: ${ratio.toFixed(2)}`);
  }
  return [seen, poor];
}"""
"""WCAG 2.2, 1.4.3: the contrast of every visible text with what is behind it."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_readable_on_a_phone(page: Page, server: Stand, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": 360, "height": 740})
    show(page, server, samples.unhealthy())
    grounds = {"light": "rgb(245, 246, 248)", "dark": "rgb(14, 17, 21)"}
    expect(page.locator("body")).to_have_css("background-color", grounds[scheme])
    for topics in (
        samples.unhealthy(),
        samples.installing(),
        samples.broken_off("failed"),
        samples.disabled(),
        samples.healthy(2),
        samples.with_jobs(samples.healthy(2), paused=True),
    ):
        server.say(**topics)
        status = topics["overview"].status
        expect(page.locator("h1")).to_contain_text(status)
        expect(page.locator("#progress")).to_have_count(int(status in ("installing", "failed")))
        page.locator("details:not([open]) > summary").evaluate_all(
            "all => all.map(one => one.click())"
        )
        seen, poor = page.evaluate(READABLE)
        assert (seen > 20, poor) == (True, []), status
        assert page.evaluate("document.documentElement.scrollWidth") == 360, status
        moving = "() => document.getAnimations().length"
        assert page.evaluate(moving) == 0


def test_a_lost_connection_is_said_and_made_again(page: Page, server: Stand) -> None:
    show(page, server, samples.healthy(2))
    assert page.locator(".lost").count() == 0
    server.stop()
    lost = page.locator(".lost")
    expect(lost).to_contain_text("Connection to the health server lost.")
    expect(lost).to_have_text(re.compile(r"What is shown is [1-9]\d* s old\. Trying again\."))
    expect(page.locator("#said")).to_have_text("Connection to the health server lost.")
    assert page.title() == "not connected · comfy-machine"
    expect(page.locator(".card")).to_have_count(2)
    server.say(**samples.unhealthy())
    server.start()
    expect(lost).to_have_count(0)
    expect(page.locator("h1")).to_contain_text("unhealthy")
    server.say(**samples.healthy(3))
    expect(page.locator(".card")).to_have_count(3)


def test_where_there_are_no_events_it_asks(page: Page, server: Stand) -> None:
    server.has_events = False
    show(page, server, samples.healthy(2))
    server.say(**samples.unhealthy())
    expect(page.locator("h1")).to_contain_text("unhealthy")
    assert page.locator(".lost").count() == 0


def test_where_events_are_held_up_on_their_way_it_asks(page: Page, server: Stand) -> None:
    server.holds_up = True
    page.clock.install()
    show(page, server, samples.healthy(2))
    server.say(**samples.unhealthy())
    page.clock.fast_forward(10_000)
    expect(page.locator("h1")).to_contain_text("unhealthy")
    assert server.asked.count("/health/comfyui/events") == 1


def test_an_answer_that_is_none_is_said_and_the_rest_is_shown(page: Page, server: Stand) -> None:
    refusal = answers.Refusal(
        status="error",
        code="Refused",
        since=0,
        reason="too many questions",
        advice="Wait a minute.",
    )
    server.say(**samples.healthy(2) | {"models": refusal})
    page.goto(server.url)
    banner = page.locator(".lost")
    expect(banner).to_have_text(
        "/health/comfyui/models can't be shown: too many questions. Wait a minute."
    )
    expect(page.locator("h1")).to_contain_text("healthy")
    server.say(**samples.healthy(2))
    expect(banner).to_have_count(0)
    expect(page.locator("#models .rows > li")).to_have_count(2)


def test_old_samples_are_said_to_be_old(page: Page, server: Stand) -> None:
    topics = samples.machine("healthy", [samples.instance(0, age=70.0)])
    old = topics["overview"].model_copy(update={"age": 70.0})
    server.say(**topics | {"overview": old})
    page.goto(server.url)
    expect(page.locator(".link.warn")).to_have_text(re.compile(r"sampled 1 min 1\d s ago"))
    expect(page.locator("#gpu0")).to_have_text(re.compile(r"sampled 1 min 1\d s ago"))


def test_times_are_the_servers(page: Page, server: Stand) -> None:
    server.ahead = 3600.0
    show(page, server, samples.healthy(1))
    expect(page.locator("#gpu0 .place")).to_contain_text("(4 h 12 min)")


def test_what_was_opened_selected_and_scrolled_stays_so(page: Page, server: Stand) -> None:
    show(page, server, samples.installing())
    waiting = page.locator("details", has_text="6 waiting")
    waiting.locator("summary").click()
    expect(waiting).to_have_attribute("open", "")
    server.say(**samples.installing(percent=80.0))
    expect(page.locator(".whole")).to_contain_text("80 %")
    expect(waiting).to_have_attribute("open", "")

    server.say(**samples.unhealthy())
    log = page.locator("#gpu1 pre")
    page.locator("#gpu3 summary").click()
    page.locator("#gpu1 summary").focus()
    log.evaluate("pre => { pre.scrollTop = 20; getSelection().selectAllChildren(pre); }")
    page.evaluate("window.before = document.querySelector('#gpu1 pre')")
    sick = samples.sick(1, reason="another reason", age=1.0)
    server.say(**samples.machine("unhealthy", [samples.instance(0), sick, samples.CRASHING]))
    expect(page.locator("#gpu1 .why")).to_contain_text("another reason")
    assert page.evaluate("window.before === document.querySelector('#gpu1 pre')")
    assert log.evaluate("pre => pre.scrollTop") == 20
    assert "CUDA error" in page.evaluate("getSelection().toString()")
    assert page.evaluate("document.activeElement.closest('article').id") == "gpu1"
    assert page.locator("#gpu3 details").get_attribute("open") is None


def test_it_shows_what_the_health_server_sees_to_one_who_has_the_token(
    browser: Browser, scene: SceneMaker
) -> None:
    real = scene(token="not-for-everybody")
    real.serve()
    process = real.start().process
    stranger = browser.new_context()
    answer = stranger.new_page().request.get(real.url)
    assert (answer.status, answer.json()["reason"]) == (401, "the token is missing or wrong")
    stranger.close()

    known = browser.new_context(
        http_credentials={"username": "me", "password": "not-for-everybody"}
    )
    opened, wrong = known.new_page(), list[str]()
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(real.url)
    card = opened.locator("article", has_text="comfyui-gpu0")
    expect(card).to_contain_text(f"pid {process.pid}")
    process.send_signal(signal.SIGSTOP)
    expect(card).to_contain_text("it hangs: no answer since")
    expect(card).to_contain_text("doit restart comfyui-gpu0")
    process.send_signal(signal.SIGCONT)
    expect(card).not_to_contain_text("it hangs")
    assert wrong == []
    known.close()
