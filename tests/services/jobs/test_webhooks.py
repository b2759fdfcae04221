"""The ends of jobs are told, with a real scheduler and real receivers."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from comfy_machine.services.jobs import webhooks
from comfy_machine.services.jobs.job_store import Store, Stored
from comfy_machine.services.jobs.record import Error, Record, Webhook
from comfy_machine.services.jobs.webhooks import AT_ONCE, AT_ONE_HOST, SECRET, WAITS, Webhooks
from tests.contract.client import until
from tests.contract.conftest import installation_of
from tests.rig import free_ports
from tests.services.jobs.conftest import Server
from tests.services.jobs.receiver import Receiver, receiver
from tests.services.jobs.site import PATIENCE, Site, ends, kill

KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Iterator[Site]:
    installation = installation_of("simulator-2026", tmp_path / "comfyui")
    it = Site(server, installation, tmp_path)
    with closing(installation), closing(it):
        yield it


@pytest.fixture
def hears() -> Iterator[Receiver]:
    with receiver() as it:
        yield it


def ended(site: Site, url: str, state: Any = "failed", **about: Any) -> str:
    """A job that has ended so, and whose end is to be told."""
    job = site.submit(site.pictures(), webhook=Webhook(url=url, **about), labels={"order": "7"})
    error = Error(type="ValueError", message="it broke", node="7", node_type="Break")

    async def ending(store: Store) -> None:
        stored = await store.read(job)
        assert stored
        await store.replace(stored, stored.record.next(state, error=error, ended=time.time()))

    site.call(ending)
    return job


def hook(site: Site, job: str) -> Webhook:
    found = site.read(job).webhook
    assert found
    return found


def settled(site: Site, job: str) -> Webhook:
    until(lambda: hook(site, job).state != "pending", PATIENCE, "the end to be told, or not")
    return hook(site, job)


def test_the_end_of_a_job_is_told_and_signed(
    site: Site, hears: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, KEY)
    site.begin()
    job = site.submit(site.work(does="fail"), webhook=Webhook(url=f"{hears.url}/a?b=c"),
                      labels={"order": "7"})  # fmt: skip
    record = site.ends(job)
    assert settled(site, job).state == "delivered"
    (heard,) = hears.heard
    assert heard.path == "/a?b=c"
    said = Verifier(KEY).verify(heard.body, heard.headers)
    assert said["type"] == "job.failed"
    assert (said["data"]["id"], said["data"]["status"]) == (job, "failed")
    assert said["data"]["metadata"] == {"order": "7"}
    assert (said["data"]["instance"], said["data"]["attempt"]) == ("here_comfyui-gpu0", 1)
    assert said["data"]["error"]["message"] == "it can't be done"
    assert said["timestamp"] == said["data"]["completed_at"]
    assert record.started
    with pytest.raises(WebhookVerificationError):
        Verifier(KEY).verify(heard.body.replace(b"failed", b"better"), heard.headers)
    assert KEY not in site.logs() + site.command_of(site.schedulers[0])


def test_it_is_told_again_after_a_while_until_it_is_heard(site: Site, hears: Receiver) -> None:
    hears.codes = [500]
    site.scheduler()
    job = ended(site, hears.url)
    until(lambda: hook(site, job).attempts == 1, PATIENCE, "the first attempt")
    first = hook(site, job)
    assert (first.state, first.error) == ("pending", "it answered with code 500")
    assert 0 < first.due - time.time() <= WAITS[0]
    told = settled(site, job)
    assert (told.state, told.attempts, told.error) == ("delivered", 2, "")
    one, other = hears.heard
    assert one.headers["webhook-id"] == other.headers["webhook-id"]
    assert int(one.headers["webhook-timestamp"]) < int(other.headers["webhook-timestamp"])
    assert "webhook-signature" not in one.headers, "there is no secret"


def test_another_scheduler_goes_on_where_the_first_one_ended(site: Site, hears: Receiver) -> None:
    hears.codes = [500]
    first = site.scheduler()
    job = ended(site, hears.url)
    until(lambda: hook(site, job).attempts == 1, PATIENCE, "the first attempt")
    kill(first)
    site.scheduler()
    assert settled(site, job).attempts == 2
    assert len(hears.heard) == 2


def test_what_was_told_but_not_noted_is_told_again(site: Site, hears: Receiver) -> None:
    hears.answers.clear()
    first = site.scheduler()
    job = ended(site, hears.url)
    until(lambda: hears.heard, PATIENCE, "the request")
    assert ends(first, signal.SIGTERM, PATIENCE) == 0
    hears.answers.set()
    site.scheduler()
    assert settled(site, job).state == "delivered"
    one, other = hears.heard
    assert one.headers["webhook-id"] == other.headers["webhook-id"]


def test_after_the_last_attempt_it_is_given_up_and_says_why(site: Site) -> None:
    site.scheduler()
    nobody = f"http://127.0.0.1:{free_ports(1)}"
    last = settled(site, ended(site, nobody, attempts=len(WAITS), due=time.time() - 1))
    assert (last.state, last.attempts) == ("failed", len(WAITS) + 1)
    assert "Connect call failed" in last.error


@pytest.mark.parametrize(("code", "state"), [(410, "failed"), (307, "pending"), (204, "delivered")])
def test_what_a_receiver_answers(site: Site, hears: Receiver, code: int, state: str) -> None:
    """It may have gone, it leads nobody elsewhere, and what it says is its own affair."""
    hears.codes, hears.headers = [code], {"Location": f"{hears.url}/elsewhere"}
    site.scheduler()
    job = ended(site, hears.url, "cancelled")
    until(lambda: hook(site, job).attempts == 1, PATIENCE, "the attempt")
    assert hook(site, job).state == state
    assert [each.path for each in hears.heard] == ["/"]
    assert hears.heard[0].said["type"] == "job.canceled"


def test_one_that_hangs_delays_no_job_and_no_other(site: Site, hears: Receiver) -> None:
    site.begin()
    with receiver() as hangs:
        hangs.answers.clear()
        for _ in range(AT_ONCE + 1):
            ended(site, hangs.url)
        until(lambda: len(hangs.heard) >= AT_ONE_HOST, PATIENCE, "it to be asked")
        job = site.submit(site.work(), webhook=Webhook(url=hears.url))
        assert site.ends(job).state == "succeeded"
        assert settled(site, job).state == "delivered"
        assert hears.heard[0].said["type"] == "job.succeeded"


class Telling:
    """Webhooks without a store: `steps` are what would be noted."""

    def __init__(self, *urls: str) -> None:
        self.steps: list[Record] = []
        self.webhooks = Webhooks("", self._step)
        for number, url in enumerate(urls):
            record = Record(id=f"{number}", submitted=1.0, state="failed", ended=2.0,
                            webhook=Webhook(url=url))  # fmt: skip
            self.webhooks.note(Stored(record, 1))

    async def _step(self, stored: Stored, record: Record) -> None:
        self.steps.append(record)

    def run_until(self, done: Callable[[], bool]) -> None:
        async def running() -> None:
            telling = asyncio.create_task(self.webhooks.tell(lambda: True))
            deadline = time.monotonic() + PATIENCE
            while not done():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            telling.cancel()
            await asyncio.wait([telling])

        asyncio.run(running())


def test_a_host_has_few_requests_at_once(hears: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "ANSWER", 10 * PATIENCE)
    with receiver() as hangs:
        hangs.answers.clear()
        telling = Telling(*[hangs.url] * (AT_ONCE + 1), hears.url)
        telling.run_until(lambda: bool(telling.steps) and len(hangs.heard) >= AT_ONE_HOST)
        assert len(hangs.heard) == AT_ONE_HOST
        assert [each.webhook.url for each in telling.steps if each.webhook] == [hears.url]


def test_while_the_store_takes_no_note_it_is_told_again_after_a_while(
    hears: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "UNNOTED", 0.1)
    telling = Telling(hears.url)
    telling.run_until(lambda: len(telling.steps) > 1)
    assert {each.webhook.attempts for each in telling.steps if each.webhook} == {1}


def test_nothing_is_told_of_a_job_that_waits_again(site: Site, hears: Receiver) -> None:
    site.scheduler()
    nobody = f"http://127.0.0.1:{free_ports(1)}"
    job = ended(site, nobody)
    until(lambda: hook(site, job).attempts == 1, PATIENCE, "the first attempt")

    async def retrying(store: Store) -> None:
        stored = await store.read(job)
        assert stored
        again = stored.record.next("waiting", ended=0.0, webhook=Webhook(url=hears.url))
        await store.replace(stored, again)

    site.call(retrying)
    later = ended(site, hears.url)
    assert settled(site, later).state == "delivered"
    assert hook(site, job).attempts == 0
    assert len(hears.heard) == 1


def test_a_record_without_a_webhook_has_none() -> None:
    """As older programs wrote it."""
    old = Record(id="x", submitted=1.0).model_dump(exclude={"webhook"})
    assert Record.model_validate(old).webhook is None
