"""The tests that Comfy-Org publishes with its SDK and its proxy, run against the gateway from their
source distributions of the versions that are installed here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.contract.client import until
from tests.contract.conftest import installation_of
from tests.rig import PROJECT
from tests.services.gateway.conftest import Gateway
from tests.services.jobs.conftest import Server
from tests.services.jobs.site import Site

LONGEST = 600.0
"""Seconds that one of the suites may take on a busy machine."""
OF_THE_PROXY = (
    "test_endpoints.py", "test_batch_feedback.py", "test_schema_conformance.py",
    "test_upload_validation.py",
)  # fmt: skip
"""Its files that ask over HTTP; the others are about its own insides."""
INSIDE = """
    on_text_drops save_text_outputs realtime_parsers reconcile_outputs status_of get_job_maps
    legacy_asset_id key_held_when asset_content_upstream list_jobs_scan state_ server_argv
    converter_handles small_upload
""".split()
"""Tests of its own functions and options."""
OTHERWISE = {
    "extra_data_absent": "a node without class_type is refused, as ComfyUI refuses it",
    "extra_data_empty": "the same",
    "extra_data_rejects": "the same",
    "extra_data_api_key": "the same",
    "ignores_differing_api_key": "the same",
    "never_includes_extra_data": "the same",
    "metadata_and_advisory": "metadata is an object of labels, as the SDK sends it, and no text",
    "metadata_rejects": "the same",
    "returns_asset_shape": "an asset's id is its digest and ending, no UUID",
    "id_has_no_dot": "the same",
    "expires_at": "jobs and assets are kept `jobs.keep` days",
    "url_expires_at": "the same",
    "sse_stream_cap": "1,024 clients may follow jobs, and not 8",
    "model": "models are declared in machine.yaml, not uploaded",
    "traversal_fix": "the same",
    "from_path": "files of the machine are no assets before they are uploaded",
    "reserved_fields": "webhook_url is taken",
    "outputs_reused": "not in the contract, and not known",
    "cheap_and_unauthenticated": "health names no upstream: there are many",
    "outside_reload_window": "of its own options",
    "exceeding_max": "of its own options",
}
"""Part of a test's name → why we answer otherwise."""


@pytest.fixture
def site(server: Server, gateway: Gateway, tmp_path: Path) -> Iterator[Site]:
    installation = installation_of("simulator-2026", tmp_path / "comfyui")
    it = Site(server, installation, tmp_path)
    with closing(installation), closing(it):
        it.begin(instances=2)
        until(lambda: "SaveImage" in gateway.ask("GET", "/object_info").text, 60, "the instances")
        yield it


@pytest.mark.timeout(LONGEST)
def test_those_of_the_sdk_pass(site: Site, gateway: Gateway, tmp_path: Path) -> None:
    tests = unpacked("comfy-sdk", tmp_path) / "tests" / "integration" / "test_gateway_e2e.py"
    told = run(tests, COMFY_BASE_URL=gateway.url, COMFY_API_KEY="none")
    require_passed(told, 3)


@pytest.mark.timeout(LONGEST)
def test_those_of_the_proxy_pass(tmp_path: Path) -> None:
    suite = unpacked("comfy-api-proxy", tmp_path)
    files = [suite / "tests" / each for each in OF_THE_PROXY]
    but = " and ".join(f"not {each}" for each in (*INSIDE, *OTHERWISE))
    told = run(*files, "--noconftest", "-p", "tests.services.gateway.published_stack", "-k", but)
    require_passed(told, 38)


def require_passed(told: str, least: int) -> None:
    """All, and not fewer than there were."""
    last = told.splitlines()[-1]
    assert not re.search(r"failed|error|skipped", last), told
    found = re.search(r"^(\d+) passed", last)
    assert int(found[1] if found else 0) >= least, told


def unpacked(project: str, folder: Path) -> Path:
    """The source distribution of a project that is installed here."""
    wanted = f"{project}=={version(project)}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary",
               ":all:", "--no-build-isolation", "--dest", str(folder), wanted]  # fmt: skip
    loaded = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST)
    if loaded.returncode:
        pytest.skip(f"the package index gives no source distribution of {wanted}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def run(*tests: Path | str, **env: str) -> str:
    """What pytest says of them, without our settings and theirs."""
    folder = Path(tests[0]).parent
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=short", "-n", "3", "-p", "no:cacheprovider",
        "-c", os.devnull, "--rootdir", str(folder), *map(str, tests),
    ]  # fmt: skip
    here = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    ended = subprocess.run(
        command, env={**here, "PYTHONPATH": str(PROJECT), **env}, cwd=folder,
        capture_output=True, text=True, check=False, timeout=LONGEST,
    )  # fmt: skip
    return (ended.stdout + ended.stderr).strip()
