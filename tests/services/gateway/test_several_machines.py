"""Two machines on one queue: a gateway on the near one, an instance on the far one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from blake3 import blake3
from websockets.sync.client import connect

from comfy_machine.services.gateway.file_answers import STREAMS
from comfy_machine.services.jobs import job_files
from comfy_machine.services.jobs.distant_file import Absent
from comfy_machine.services.jobs.job_settings import Bucket
from comfy_machine.services.jobs.object_files import ObjectFiles
from comfy_machine.services.jobs.record import Record
from comfy_machine.services.jobs.shared_inputs import SharedInputs
from comfy_machine.services.jobs.worker_protocol import ANNOUNCED, Announcement
from comfy_machine.spec.layout import Layout
from tests.contract.client import until
from tests.contract.conftest import installation_of
from tests.services.gateway.conftest import Gateway
from tests.services.jobs.conftest import Server
from tests.services.jobs.object_store import KEYS, ObjectStore
from tests.services.jobs.site import Site, kill

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with closing(ObjectStore(tmp_path_factory.mktemp("store"))) as it:
        yield it


@pytest.fixture
def store() -> dict[str, Any]:
    """The settings of both; a test with an object store has others."""
    return {}


@pytest.fixture
def near(server: Server, tmp_path: Path, store: dict[str, Any]) -> Iterator[Gateway]:
    folder = tmp_path / "near"
    folder.mkdir()
    it = Gateway(folder, server.url, machine="near", shared=True, env=KEYS, **store)
    try:
        yield it
    finally:
        it.end()
        assert "Traceback" not in it.log, it.log[-3000:]


@pytest.fixture
def far(server: Server, near: Gateway, tmp_path: Path, store: dict[str, Any]) -> Iterator[Site]:
    folder = tmp_path / "far"
    folder.mkdir()
    installation = installation_of("simulator-2026", tmp_path / "comfyui")
    it = Site(server, installation, folder, "far", KEYS)
    it.settings(shared=True, **store)
    with closing(installation), closing(it):
        it.begin()
        until(lambda: "Work" in near.ask("GET", "/object_info").json(), 30, "the instance")
        yield it


@contextmanager
def busy(far: Site) -> Iterator[None]:
    """The instance has a job meanwhile, and others wait."""
    gate = far.folder / "gate"
    gate.unlink(missing_ok=True)
    before = far.runs()
    far.submit(far.work(gate=gate))
    far.until_run(before + 1)
    yield
    gate.touch()


def inputs(machine: Gateway | Site) -> Path:
    workspace = machine.workspace if isinstance(machine, Gateway) else machine.layout.workspace
    return Layout(workspace).inputs


def upload(near: Gateway, content: str, **fields: str) -> str:
    files = {"image": ("notes.txt", content.encode(), "text/plain")}
    answer = near.ask("POST", "/upload/image", files=files, data=fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["name"])


def done(near: Gateway, job: str, status: str = "succeeded") -> Any:
    found = near.job(job, wait=60)
    assert found["status"] == status, found
    return found


def run(near: Gateway, workflow: Any) -> Any:
    return done(near, near.submit(workflow)["id"])


def said(far: Site, job: str) -> tuple[str, str]:
    """What a job read, and what it called the file."""
    shown = far.read(job).outputs["1"]
    return shown["text"][0], shown["named"][0]


def content(near: Gateway, output: dict[str, Any], **headers: str) -> requests.Response:
    return near.ask("GET", f"/api/v2/assets/{output['id']}/content", headers=headers)


def test_what_the_far_machine_made_is_shown_here(near: Gateway, far: Site) -> None:
    job = run(near, far.pictures())
    assert far.read(job["id"]).machine == "far"
    for output in job["outputs"]:
        whole = content(near, output)
        assert whole.status_code == 200
        assert whole.content.startswith(PNG)
        assert len(whole.content) == output["size_bytes"]
        assert whole.headers["content-type"] == "image/png"
        about = near.ask("GET", f"/api/v2/assets/{output['id']}").json()
        assert about["size_bytes"] == output["size_bytes"]
        head = near.ask("HEAD", f"/api/v2/assets/{output['id']}/content")
        assert (head.headers["content-length"], head.content) == (str(len(whole.content)), b"")
    output = job["outputs"][0]
    whole = content(near, output)
    for asked, expected in (
        ("bytes=1-3", whole.content[1:4]),
        ("bytes=5-", whole.content[5:]),
        ("bytes=-4", whole.content[-4:]),
        ("bytes=1-999999", whole.content[1:]),
    ):
        part = content(near, output, Range=asked)
        assert (part.status_code, part.content) == (206, expected)
        assert part.headers["content-range"].endswith(f"/{output['size_bytes']}")
    assert content(near, output, Range="bytes=999999-").status_code == 416
    assert content(near, output, Range="nonsense").status_code == 200


def test_comfyuis_own_clients_see_it_too_also_as_a_smaller_picture(
    near: Gateway, far: Site
) -> None:
    record = far.read(run(near, far.pictures())["id"])
    for node in ("2", "3"):
        (image,) = record.outputs[node]["images"]
        assert near.ask("GET", "/view", params=image).content.startswith(PNG)
        small = near.ask("GET", "/view", params={**image, "preview": "webp;50"})
        assert small.headers["content-type"] == "image/png", "no instance here makes another"
    with_own_instance(near, far)
    small = near.ask("GET", "/view", params={**image, "preview": "webp;50"})
    assert small.headers["content-type"] == "image/webp"
    assert [*(inputs(near) / ".uploads").iterdir()] == []


def with_own_instance(near: Gateway, far: Site) -> None:
    """The near machine has one too from now on: it announces itself as a worker does."""
    instance = far.instance(1, inputs=inputs(near))
    said = Announcement(
        instance="near_gpu0", machine="near", url=instance.url, session="1", number=1,
        state="away",
    )  # fmt: skip
    far.publish(ANNOUNCED, said.model_dump_json().encode())

    def is_heard() -> bool:
        devices = near.ask("GET", "/system_stats").json()["devices"]
        return "near_gpu0" in [each["name"] for each in devices]

    until(is_heard, 30, "the announcement")


def test_a_picture_of_a_job_that_still_runs_is_shown(
    near: Gateway, far: Site, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    workflow = {**far.pictures(), "4": far.work(gate=gate)["1"]}
    with connect(near.url.replace("http", "ws") + "/ws?clientId=me", proxy=None) as socket:
        near.ask("POST", "/prompt", json={"prompt": workflow, "client_id": "me"})
        image = None
        while image is None:
            told = socket.recv(timeout=60)
            message = json.loads(told) if isinstance(told, str) else {}
            if message.get("type") == "executed" and message["data"]["node"] == "2":
                (image,) = message["data"]["output"]["images"]
    assert near.ask("GET", "/view", params=image).content.startswith(PNG)
    gate.touch()


def test_an_output_there_is_an_input_of_another_job(near: Gateway, far: Site) -> None:
    (output, _) = run(near, far.pictures())["outputs"]
    reference = {"__type": "core/ASSET", "info": {"id": output["id"]}}
    again = {"images": ["1", 0], "filename_prefix": "again"}
    run(near, {
        "1": {"class_type": "LoadImage", "inputs": {"image": reference}},
        "2": {"class_type": "SaveImage", "inputs": again},
    })  # fmt: skip


def test_what_is_uploaded_here_is_read_there(near: Gateway, far: Site) -> None:
    upload(near, "ours", subfolder="sub")
    for value in ("sub/notes.txt", "sub/notes.txt [input]"):
        job = run(near, far.reading(value))["id"]
        assert said(far, job) == ("ours", value)
    assert (inputs(far) / "sub" / "notes.txt").read_text() == "ours"


def test_an_asset_too(near: Gateway, far: Site) -> None:
    files = {"file": ("x", b"an asset", "text/plain")}
    asset = near.ask("POST", "/api/v2/assets", files=files, data={"file_path": "x.txt"}).json()
    reference = {"__type": "core/ASSET", "info": {"id": asset["id"]}}
    job = run(near, {"1": {"class_type": "Read", "inputs": {"file": reference}}})["id"]
    assert said(far, job) == ("an asset", asset["id"])


def test_a_file_of_the_same_name_there_is_left_alone(near: Gateway, far: Site) -> None:
    (inputs(far) / "notes.txt").write_text("theirs")
    upload(near, "ours")
    digest = blake3(b"ours").hexdigest()
    job = run(near, far.reading("notes.txt"))["id"]
    assert said(far, job) == ("ours", f"{digest}.txt")
    assert (inputs(far) / "notes.txt").read_text() == "theirs"
    upload(near, "theirs", overwrite="true")
    assert said(far, run(near, far.reading("notes.txt"))["id"]) == ("theirs", "notes.txt")


def test_a_job_reads_what_was_there_when_it_was_submitted(near: Gateway, far: Site) -> None:
    with busy(far):
        upload(near, "first")
        job = near.submit(far.reading("notes.txt"))["id"]
        upload(near, "second", overwrite="true")
    done(near, job)
    assert said(far, job)[0] == "first"


def test_an_input_that_is_nowhere_any_more_is_said(near: Gateway, far: Site) -> None:
    with busy(far):
        upload(near, "ours")
        job = near.submit(far.reading("notes.txt"))["id"]
        for path in SharedInputs(Layout(near.workspace)).folder.iterdir():
            path.unlink()
    error = done(near, job, "failed")["error"]
    assert error["code"] == "missing_input"
    assert error["message"] == "notes.txt isn't on near any more"


def test_an_input_that_was_changed_in_place_is_said(near: Gateway, far: Site) -> None:
    with busy(far):
        upload(near, "ours")
        job = near.submit(far.reading("notes.txt"))["id"]
        (inputs(near) / "notes.txt").write_text("other")
    error = done(near, job, "failed")["error"]
    assert error["message"] == "notes.txt was changed on near after the job was submitted"


def test_a_job_waits_for_the_machine_that_has_its_inputs(near: Gateway, far: Site) -> None:
    with busy(far):
        upload(near, "ours")
        job = near.submit(far.reading("notes.txt"))["id"]
        near.end()
    try:
        until(lambda: far.read(job).rested, 30, "the job to rest")
    except AssertionError:
        raise AssertionError(f"{far.read(job)} {far.logs()}") from None
    record = far.read(job)
    assert (record.state, record.counted) == ("waiting", 0)
    assert far.ends(far.submit(far.work())).state == "succeeded", "the instance is free meanwhile"
    near.start()
    done(near, job)
    assert said(far, job)[0] == "ours"
    assert far.read(job).rested < 10, "it isn't tried all the time"


def test_a_file_that_is_gone_there_is_gone(near: Gateway, far: Site) -> None:
    job = run(near, far.pictures())
    job_files.drop(far.layout, job["id"])
    answer = content(near, job["outputs"][0])
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "output_unavailable")
    assert "isn't on far any more" in answer.json()["error"]["message"]
    (image,) = far.read(job["id"]).outputs["2"]["images"]
    assert near.ask("GET", "/view", params=image).status_code == 410


def test_a_machine_that_was_there_a_moment_ago_may_answer_again(near: Gateway, far: Site) -> None:
    (output, _) = run(near, far.pictures())["outputs"]
    kill(far.workers[0])
    answer = content(near, output)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"]["message"].startswith("far, which has the file, doesn't answer")
    far.worker(0)
    until(lambda: content(near, output).status_code == 200, 30, "the machine")


def is_stored(store: dict[str, Any], record: Record) -> bool:
    """Whether the object store has the inputs of a job."""
    files = ObjectFiles(Bucket(**store["store"]), *KEYS.values())

    async def finding() -> bool:
        try:
            for digest in record.inputs.values():
                await files.find(files.input_key(digest))
        except Absent:
            return False
        return True

    return asyncio.run(finding())


def test_only_so_many_are_sent_at_once_as_memory_allows(near: Gateway, far: Site) -> None:
    (output, _) = run(near, far.pictures())["outputs"]
    for file in job_files.files_of(far.layout, output["job_id"]):
        file.write_bytes(bytes(50 << 20))
    path = f"/api/v2/assets/{output['id']}/content"
    with ExitStack() as opened:
        for _ in range(STREAMS):
            answer = opened.enter_context(near.ask("GET", path, stream=True))
            assert answer.status_code == 200
        refused = near.ask("GET", path)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert refused.json()["error"]["code"] == "too_many_streams"
    until(lambda: near.ask("GET", path, stream=True).status_code == 200, 30, "a place")


def test_what_breaks_off_is_cut(near: Gateway, far: Site) -> None:
    (output, _) = run(near, far.pictures())["outputs"]
    (file,) = [each for each in job_files.files_of(far.layout, output["job_id"])
               if each.name == output["name"]]  # fmt: skip
    file.write_bytes(bytes(100 << 20))
    path = f"/api/v2/assets/{output['id']}/content"
    with near.ask("GET", path, stream=True) as answer:
        pieces = answer.iter_content(1 << 20)
        next(pieces)
        kill(far.workers[0])
        with pytest.raises(requests.RequestException):
            list(pieces)
    assert not near.log


class TestWithAnObjectStore:
    @pytest.fixture
    def store(self, object_store: ObjectStore, tmp_path: Path) -> dict[str, Any]:
        return {"store": object_store.bucket(tmp_path.name)}

    def test_outputs_outlive_their_machine(self, near: Gateway, far: Site) -> None:
        job = run(near, far.pictures())
        assert far.read(job["id"]).stored
        kill(far.workers[0])
        for output in job["outputs"]:
            whole = content(near, output).content
            assert whole.startswith(PNG)
            assert content(near, output, Range="bytes=1-3").content == whole[1:4]

    def test_inputs_outlive_the_machine_where_they_were_uploaded(
        self, near: Gateway, far: Site, store: dict[str, Any]
    ) -> None:
        with busy(far):
            upload(near, "ours")
            job = near.submit(far.reading("notes.txt"))["id"]
            until(lambda: is_stored(store, far.read(job)), 30, "the input in the store")
            near.end()
        assert far.ends(job).state == "succeeded"
        assert said(far, job)[0] == "ours"
        near.start()


class TestWithAnObjectStoreThatIsAway:
    @pytest.fixture
    def store(self) -> dict[str, Any]:
        return {"store": {"url": "s3://bucket/folder", "endpoint": "http://127.0.0.1:1"}}

    def test_files_go_from_machine_to_machine(self, near: Gateway, far: Site) -> None:
        upload(near, "ours")
        assert said(far, run(near, far.reading("notes.txt"))["id"])[0] == "ours"
        job = run(near, far.pictures())
        assert not far.read(job["id"]).stored
        assert content(near, job["outputs"][0]).content.startswith(PNG)
        assert "s3://bucket/folder doesn't" in far.logs()
        assert KEYS["JOBS_STORE_SECRET_KEY"] not in far.logs()
