"""What the documentation says is true: each page's commands work, one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.spec.layout import Layout
from tests.conftest import copy_environments, link_supervisor, uv_cache
from tests.docs import pages
from tests.docs.pages import blocks, script
from tests.forge import Forge
from tests.model_server import ModelServer, model_server, safetensors
from tests.registry import registry
from tests.rig import PROJECT, SIMULATOR, Rig, free_ports

WITH_COMMANDS = [page for page in pages.pages() if any(each.commands for each in blocks(page))]
NOT_RUN = {
    "installs from a package index": 1,
    "the tests run make demo": 1,
    "it fetches from GitHub": 1,
    "it is about a ComfyUI of yours": 1,
    "needs a GPU": 1,
    "needs Docker": 1,
    "needs systemd": 1,
    "needs NFS": 1,
    "needs a second machine and ssh": 1,
    "comfy-cli installs from a package index": 1,
    "it asks osv.dev": 1,
}
"""Why blocks aren't run, and how many."""
PORTS = ("8188", "8189", "8190", "8191", "8300", "9090", "4222", "8180")


class Desk:
    """A folder in which a reader of a page works, with the hosts that it names."""

    def __init__(self, folder: Path, supervisor: Path, environments: Path | None) -> None:
        self.folder = folder / "machine"
        self.folder.mkdir()
        (folder / "home").mkdir()
        self.nas = folder / "nas"
        (self.nas / "models" / "loras").mkdir(parents=True)
        (self.nas / "xl.safetensors").write_bytes(safetensors(1000))
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "UV_CACHE_DIR": uv_cache(),
            "GIT_CONFIG_GLOBAL": str(folder / "gitconfig"),
            "COMFYUI_CPU_ONLY": "true",
            "HF_TOKEN": "secret",
        }
        first = free_ports(len(PORTS))
        self.ports = {port: str(first + at) for at, port in enumerate(PORTS)}
        self._prepared = supervisor, environments

    def write_hosts(self, forge: Forge) -> None:
        """What the pages' addresses lead to."""
        comfyui = forge.copy("comfyui", SIMULATOR)
        comfyui.git("tag", "v0.33.0")
        comfyui.commit({"NEWS": "newer"}, tag="v0.34.0")
        hosts = {"Comfy-Org/ComfyUI.git": comfyui.url}
        for name in ("rgthree/rgthree-comfy", "Kosinkadink/ComfyUI-VideoHelperSuite",
                     "example/private-node"):  # fmt: skip
            hosts[name] = forge.node(name.rpartition("/")[2]).url
        (self.folder.parent / "gitconfig").write_text(
            "".join(
                f'[url "{url}"]\n\tinsteadOf = https://github.com/{name}\n'
                for name, url in hosts.items()
            )
        )

    def adapted(self, text: str, models: ModelServer) -> str:
        """A script for this machine: free ports, and a model server that can be reached."""
        ports = re.compile(rf"\b({'|'.join(self.ports)})\b")
        text = ports.sub(lambda found: self.ports[found[1]], text)
        text = text.replace("/mnt/nas", str(self.nas))
        return re.sub(r"https://huggingface\.co/\S+/(\w+\.safetensors)", rf"{models.url}/\1", text)

    def run(self, text: str) -> tuple[int, str]:
        """The exit code of a script, and what it printed."""
        helper = f'machine_file() {{ {sys.executable} {Path(__file__)} "$PWD"; }}\n'
        for name in ("", "demo", "real"):
            self._prepare(self.folder / name / "workspace")
        ended = subprocess.run(
            ["bash", "-c", helper + text], cwd=self.folder, env=self.env | self._simulation(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return ended.returncode, ended.stdout

    def _simulation(self) -> dict[str, str]:
        return {"PAGE_PORTS": " ".join(self.ports.values())}

    def _prepare(self, workspace: Path) -> None:
        """PM2 and an environment, as made before: what is tested is what the page says."""
        supervisor, environments = self._prepared
        link_supervisor(supervisor, Layout(workspace))
        if environments:
            copy_environments(environments, Layout(workspace).environments)

    def close(self) -> None:
        for file in (self.folder / "machine.yaml", *self.folder.glob("*/machine.yaml")):
            Left(file.parent, {}).close()


class Left(Rig):
    """What a page left running."""

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"


def simulate(folder: Path) -> None:
    """Make a machine.yaml one of the simulator, without a GPU and on free ports."""
    file = folder / "machine.yaml"
    text, ports = file.read_text(), dict(zip(PORTS, os.environ["PAGE_PORTS"].split(), strict=True))
    text = re.sub(rf"\b({'|'.join(ports)})\b", lambda found: ports[found[1]], text)
    text = text.replace("gpus: auto", "gpus: 2")
    jobs = f"jobs: {{port: {ports['4222']}, gateway_port: {ports['8180']}}}"
    text = text.replace("jobs: true", jobs)
    more = {"health:": f"health: {{port: {ports['9090']}}}", "python:": "python: {torch: none}"}
    for part, line in more.items():
        if not re.search(rf"^{part}", text, re.M):
            text = f"{line}\n{text}"
    if not re.search(r"^instances:", text, re.M):
        text = f"instances: {{port_start: {ports['8188']}}}\n{text}"
    elif "port_start" not in text:
        text = text.replace("\ninstances:\n", f"\ninstances:\n  port_start: {ports['8188']}\n")
    file.write_text(text)


@pytest.fixture
def desk(
    tmp_path: Path, supervisor: Path, environments: Path | None, forge: Forge
) -> Iterator[Desk]:
    found = Desk(tmp_path, supervisor, environments)
    found.write_hosts(forge)
    with registry() as nodes:
        nodes.publish("comfyui-impact-pack", "8.22.0")
        found.env["COMFYUI_REGISTRY"] = nodes.url
        yield found
    found.close()


@pytest.fixture
def models() -> Iterator[ModelServer]:
    with model_server() as server:
        server.content = {f"/{name}.safetensors": safetensors(1000, n)
                          for n, name in enumerate(("example", "other"))}  # fmt: skip
        yield server


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(PROJECT)))
def test_the_commands_of_a_page_work(page: Path, desk: Desk, models: ModelServer) -> None:
    code, printed = desk.run(desk.adapted(script(page), models))
    assert code == 0, printed


def test_what_is_not_run_says_why() -> None:
    reasons = [each.says["not run"].partition(";")[0] for page in pages.pages()
               for each in blocks(page) if "not run" in each.says]  # fmt: skip
    assert Counter(reasons) == NOT_RUN


def test_every_page_can_be_reached(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html",
             str(pages.DOCS), str(tmp_path)]  # fmt: skip
    built = subprocess.run(words, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr


def test_the_reference_is_what_the_code_says() -> None:
    words = [sys.executable, "docs/generate.py", "--check"]
    env = os.environ | {"PYTHONPATH": str(PROJECT)}
    found = subprocess.run(words, cwd=PROJECT, env=env, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr + "; run make docs"


if __name__ == "__main__":
    simulate(Path(sys.argv[1]))
