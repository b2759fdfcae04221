"""What commands print with --json: one document, as its schema and docs/reference/json.md say."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comfy_machine.commands.shared import documents
from comfy_machine.engine import exit_codes
from comfy_machine.engine.exit_codes import ExitCode
from comfy_machine.host.storage import garbage
from comfy_machine.host.system import files, private_folder
from comfy_machine.host.system.run_lock import RunLock
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.osv import advisory, osv
from tests.registry import registry
from tests.rig import PROJECT, Rig, free_ports

DOCUMENT = PROJECT / "docs" / "reference" / "json.md"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Rig]:
    """A machine file; nothing is installed and nothing runs."""
    instances = {"gpus": 1, "cpu_only": True, "port_start": free_ports(1)}
    spec = {"workspace": "ws", "comfyui": {}, "instances": instances}
    yield Rig(tmp_path, spec)
    files.remove(private_folder.folder(tmp_path / "ws"))


def ask(rig: Rig, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
    """The document on standard output, which holds nothing else."""
    ended = subprocess.run(
        rig.command(*arguments, "--json"),
        cwd=rig.project,
        env=rig.environ(env),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert len(ended.stdout.splitlines()) == 1
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def check(name: str, document: object) -> None:
    """Whether a document is as its schema says, with no key that isn't in it."""
    schema = documents.schema(name)
    for part in (schema, *schema["$defs"].values()) if "$defs" in schema else (schema,):
        part["additionalProperties"] = False
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)


def example(name: str) -> Any:
    heading = "Failures" if name == "error" else f"`doit {name} --json`"
    section = DOCUMENT.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"```json\n(.*?)```", section, re.S)
    assert found, name
    return json.loads(found[1])


def unlike(documented: object, real: object, at: str = "") -> Iterator[str]:
    """Where two documents have other keys or other types; null may stand for anything."""
    if documented is None or real is None:
        return
    if isinstance(documented, dict) and isinstance(real, dict):
        if documented.keys() != real.keys():
            yield f"{at}: {sorted(documented.keys() ^ real.keys())}"
        for key in documented.keys() & real.keys():
            yield from unlike(documented[key], real[key], f"{at}.{key}")
    elif isinstance(documented, list) and isinstance(real, list):
        for one, other in zip(documented, real, strict=False):
            yield from unlike(one, other, f"{at}[]")
    elif type(documented) is not type(real) and {type(documented), type(real)} != {int, float}:
        yield f"{at}: {documented} {real}"


@pytest.fixture
def rig(machine: MachineMaker, forge: Forge) -> Rig:
    """A machine that runs its second generation, and is to go to a third."""
    alpha = forge.node("alpha", {"requirements.txt": "toml==0.10.1\n"})
    alpha.git("tag", "v1.0")
    rig = machine(
        custom_nodes=[{"url": alpha.url, "ref": "v1.0"}],
        workers=[{"name": "worker", "command": ["sleep", "1000"]}],
    )
    rig.spec["jobs"] = {"port": rig.port(1), "gateway_port": rig.port(2)}
    rig.doit()
    alpha.commit({"requirements.txt": "toml==0.10.2\n"}, tag="v1.1")
    rig.spec["custom_nodes"][0]["ref"] = "v1.1"
    rig.doit()
    until(lambda: not garbage.at_work(rig.layout), 20, "the sweeper's end")
    alpha.commit({}, tag="v1.2")
    return rig


@pytest.mark.afresh
def test_every_document_is_as_its_schema_and_its_example_in_the_docs(
    rig: Rig, tmp_path: Path
) -> None:
    found = {"status": ask(rig, "status"), "probe": ask(rig, "probe"),
             "generations": ask(rig, "generations"), "list": ask(rig, "list"),
             "smoke": ask(rig, "smoke")}  # fmt: skip
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"1": {"class_type": "SaveImage", "inputs": {}}}))
    rig.doit("submit", "--wait", str(job), code=1)
    found["jobs"] = ask(rig, "jobs")
    package = {"name": "toml", "ecosystem": "PyPI"}
    toml = advisory("GHSA-1", [{"package": package, "versions": ["0.10.2"]}], aliases=["CVE-1"])
    with registry() as nodes, osv([toml]) as known:
        rig.spec["registry"] = {"url": nodes.url, "advisories": [known.url]}
        found["audit"] = ask(rig, "audit", code=1)
    rig.spec["custom_nodes"][0]["ref"] = "v1.2"
    found["plan"] = ask(rig, "plan")
    found["error"] = ask(rig, "plan", "no-such-task", code=3)
    assert found.keys() == documents.SHAPES.keys()
    for name, document in found.items():
        assert document["format"] == 1
        check(name, document)
        check(name, example(name))
        assert list(unlike(example(name), document)) == [], json.dumps(document)
    planned = {task["name"]: task for task in found["plan"]["tasks"]}
    assert {"nodes:alpha", "generation:assemble", "instances:start"} <= planned.keys()
    assert all(task["reason"] for task in planned.values())
    tasks = {task["name"]: task for task in found["list"]["tasks"]}
    assert (tasks["pm2:gpu0"]["parent"], tasks["pm2"]["parent"]) == ("pm2", None)
    assert "environment" in tasks["generation:assemble"]["after"]
    for task in ask(rig, "list", "--status", "source", "generation:assemble")["tasks"]:
        assert task["up_to_date"] is (task["reason"] == "")
    assert documents.schema("status") == json.loads(rig.doit("schema", "--of", "status").output)


def test_each_command_is_documented_with_its_schema_and_nothing_else_is() -> None:
    named = set(re.findall(r"^## `doit (\w+) --json`$", DOCUMENT.read_text(), re.M))
    assert named == documents.SHAPES.keys() - {"error"}


def test_a_failure_is_a_document_too_with_the_exit_code(bare: Rig) -> None:
    for arguments, code, words in (
        (["status", "--no-such-option"], 3, "no-such-option"),
        (["probe", "comfyui-gpu7"], 3, "no instance comfyui-gpu7"),
        (["list", "no-such-task"], 3, "no-such-task"),
        (["plan", "no-such-task"], 3, "no-such-task"),
        (["generations", "name"], 3, "generations takes no names: name"),
    ):
        document = ask(bare, *arguments, code=code)
        check("error", document)
        assert document["error"]["code"] == code
        assert words in document["error"]["message"]
    bare.lock_file.write_text("<<<<<<< HEAD\n")
    assert "merge conflict" in ask(bare, "plan", code=2)["error"]["message"]
    bare.spec["instances"]["gpus"] = "many"
    for command in set(documents.SHAPES) - {"error"}:
        document = ask(bare, command, code=3)
        check("error", document)
        assert "instances.gpus" in document["error"]["message"]


def test_a_machine_where_nothing_is_yet_has_documents_too(bare: Rig) -> None:
    for command, code in (("status", 1), ("probe", 1), ("generations", 0), ("list", 0)):
        check(command, ask(bare, command, code=code))
    assert ask(bare, "probe", code=1)["ok"] is False


def test_a_plan_whose_tasks_fail_says_which(machine: MachineMaker, tmp_path: Path) -> None:
    rig = machine(comfyui={"path": str(tmp_path / "nowhere")})
    document = ask(rig, "plan", code=2)
    check("plan", document)
    (failed,) = [each for each in document["failures"] if each["name"] == "source"]
    assert "nowhere" in failed["reason"]
    assert document["held_back"] > 0


def test_an_option_may_be_cut_short_as_any(bare: Rig) -> None:
    shown = bare.doit("generations", "--js").output
    assert json.loads(shown) == {"format": 1, "generations": []}


def test_an_unknown_schema_is_refused_with_the_known_ones(bare: Rig) -> None:
    said = bare.doit("schema", "--of", "nothing", code=3).output
    assert "no schema of nothing; known: machine.yaml, status, plan" in said
    for name in documents.SHAPES:
        jsonschema.Draft202012Validator.check_schema(
            json.loads(bare.doit("schema", "--of", name).output)
        )


def test_the_exit_codes_are_documented_as_they_are_in_the_code() -> None:
    document = (PROJECT / "docs" / "reference" / "exit-codes.md").read_text()
    assert exit_codes.table() in document


def test_each_exit_code_is_that_of_what_it_says(bare: Rig) -> None:
    assert bare.doit("generations").code == ExitCode.OK
    assert bare.doit("probe", code=None).code == ExitCode.FAILED
    assert bare.doit("rollback", code=None).code == ExitCode.FAILED
    assert bare.doit("rollback", "x", code=None).code == ExitCode.INVALID
    lock = RunLock(bare.workspace)
    lock.take("models")
    try:
        assert bare.doit("down", code=None).code == ExitCode.REFUSED
        assert bare.doit("directories", code=None).code == ExitCode.REFUSED
    finally:
        lock.give_back()
    reader = subprocess.Popen(
        ["bash", "-c", f'{" ".join(bare.command("schema"))} | true; echo "${{PIPESTATUS[0]}}"'],
        cwd=PROJECT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert int(reader.communicate()[0]) == ExitCode.READER_GONE
    for sent, code in (
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
    ):
        with bare.going("probe", "--wait", "100", "--json") as waiting:
            assert waiting.stdout
            until(lambda: handles(waiting.pid, signal.SIGTERM), 20, "its handlers")
            waiting.send_signal(sent)
            said = waiting.communicate()[0]
            assert waiting.returncode == code, said
            document = json.loads(next(line for line in said.splitlines() if line[:1] == "{"))
            check("error", document)
            assert document["error"]["code"] == code


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = re.search(r"^SigCgt:\s*(\w+)", status, re.M)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)
