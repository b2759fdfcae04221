"""The .env of a custom node: there when instances start, in no image, and nobody else's."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from comfy_machine.host.system import private_folder
from tests.conftest import MachineMaker
from tests.forge import NODE, Forge, Repository
from tests.rig import Rig

RESTARTED = {"pm2:gpu0", "instances:start", "health:gpu0", "collection"}
#: Whichever comes first finds the .env; see `dotenv:.proof`.
PROVED = {"validation", "dotenv:.proof"}
READER = (
    NODE.format(name="Reader")
    + """
import os
path = os.path.join(os.path.dirname(os.path.realpath(__file__)), ".env")
Reader.CATEGORY = open(path).read() if os.path.exists(path) else "no file"
"""
)


@pytest.fixture
def reader(forge: Forge) -> Repository:
    """A custom node that shows what its .env says as its category."""
    return forge.repository("reader", {"__init__.py": READER, ".gitignore": "__pycache__/\n"})


@pytest.fixture
def rig(machine: MachineMaker, reader: Repository) -> Rig:
    return machine(custom_nodes=[{"url": reader.url, "env": {"TOKEN": "${TOKEN}"}}])


def file_of(rig: Rig) -> Path:
    return rig.layout.dotenv("reader")


def link_of(rig: Rig) -> Path:
    return rig.comfyui / "custom_nodes" / "reader" / ".env"


def seen(rig: Rig) -> str:
    """What the node of the running instance read."""
    return str(rig.client().get("/object_info/Reader")["Reader"]["category"])


def pid(rig: Rig) -> int:
    return rig.running()["comfyui-gpu0"].pid


def holding(rig: Rig, secret: bytes) -> list[Path]:
    """The files below .machine that hold a secret."""
    return [
        path
        for path in rig.layout.machine.rglob("*")
        if path.is_file() and not path.is_symlink() and secret in path.read_bytes()
    ]


def test_a_build_writes_no_file_and_up_writes_one_that_the_node_reads(rig: Rig) -> None:
    rig.doit("build", TOKEN="canary-1")
    assert link_of(rig).is_symlink()
    assert not file_of(rig).exists()
    assert holding(rig, b"canary-1") == []
    rig.doit(TOKEN="canary-1")
    assert link_of(rig).resolve() == file_of(rig)
    assert file_of(rig).read_text() == "TOKEN=canary-1\n"
    assert file_of(rig).stat().st_mode & 0o777 == 0o600
    assert seen(rig) == "TOKEN=canary-1\n"
    assert Repository(link_of(rig).parent).git("status", "--porcelain") == ""
    assert rig.doit(TOKEN="canary-1").executed == set()


def test_a_rotated_token_restarts_the_instances_and_nothing_is_built(rig: Rig) -> None:
    rig.doit(TOKEN="old")
    generation = rig.comfyui
    assert rig.doit(TOKEN="new").executed == {"dotenv:reader", *RESTARTED}
    assert seen(rig) == "TOKEN=new\n"
    assert rig.comfyui == generation
    assert rig.doit(TOKEN="new").executed == set()


def test_the_secret_is_in_its_file_and_nowhere_else(rig: Rig) -> None:
    rig.doit(TOKEN="canary-1")
    rig.doit(TOKEN="canary-2")
    assert holding(rig, b"canary-") == [file_of(rig)]
    assert "canary-" not in rig.pm2("jlist")
    rig.pm2("save", "--force")
    dump = private_folder.folder(rig.workspace) / "dump.pm2"
    assert "canary-" not in dump.read_text()


def test_when_env_goes_the_link_and_the_file_go(rig: Rig) -> None:
    rig.doit(TOKEN="canary")
    del rig.spec["custom_nodes"][0]["env"]
    run = rig.doit()
    moved = {"generation:assemble", "validation", "collection"}
    assert run.executed == {*moved, "dotenv:.prune", *RESTARTED}
    assert not link_of(rig).is_symlink()
    assert not file_of(rig).exists()
    assert seen(rig) == "no file"
    assert rig.doit().executed == set()


def test_a_variable_that_is_not_set_is_named_before_anything_restarts(rig: Rig) -> None:
    rig.doit(TOKEN="canary")
    before = pid(rig)
    rig.spec["instances"]["args"] = ["--preview-method", "none"]
    run = rig.doit(code=2)
    assert run.failed == {"variables"}
    assert (
        "custom_nodes[0].env.TOKEN: the variable TOKEN isn't set: "
        f"set it, or put it into {rig.folder / '.env.local'}"
    ) in run.output
    assert pid(rig) == before
    assert file_of(rig).read_text() == "TOKEN=canary\n"
    (rig.folder / ".env.local").write_text("TOKEN=local\n")
    rig.doit()
    assert seen(rig) == "TOKEN=local\n"


def test_an_optional_node_goes_without_a_variable_with_a_warning(rig: Rig) -> None:
    rig.spec["custom_nodes"][0]["optional"] = True
    rig.doit(TOKEN="canary")
    for executed in ({"dotenv:reader", *RESTARTED}, set[str]()):
        run = rig.doit()
        assert run.executed == executed
        assert "! custom node reader: the variable TOKEN isn't set" in run.output
    assert not file_of(rig).exists()
    assert seen(rig) == "no file"


def test_what_starts_nothing_or_not_this_node_needs_no_variable(rig: Rig, forge: Forge) -> None:
    rig.spec["custom_nodes"].append({"url": forge.node("other").url})
    rig.doit(COMFYUI_CUSTOM_NODES="other")
    rig.doit(ENABLE_COMFYUI="false")
    assert not file_of(rig).exists()


def test_a_file_changed_by_hand_is_written_anew_and_a_half_written_one_removed(rig: Rig) -> None:
    rig.doit(TOKEN="canary")
    before = pid(rig)
    file_of(rig).chmod(0o644)
    assert rig.doit(TOKEN="canary").executed == {"dotenv:reader"}
    assert file_of(rig).stat().st_mode & 0o777 == 0o600
    file_of(rig).write_text("TOKEN=mine\n")
    assert rig.doit(TOKEN="canary").executed == {"dotenv:reader"}
    assert file_of(rig).read_text() == "TOKEN=canary\n"
    part = file_of(rig).with_name(".reader.env.1.part")
    part.write_text("TOKEN=can")
    assert rig.doit(TOKEN="canary").executed == {"dotenv:.prune"}
    assert not part.exists()
    assert pid(rig) == before


def test_a_link_removed_by_hand_is_damage_of_the_generation(rig: Rig) -> None:
    rig.doit("build")
    damaged = link_of(rig)
    damaged.unlink()
    rig.doit("build")
    assert link_of(rig) != damaged
    assert link_of(rig).is_symlink()


def test_a_dotenv_that_the_repository_tracks_is_not_replaced(rig: Rig, reader: Repository) -> None:
    reader.commit({".env": "MODE=fast\n"})
    run = rig.doit("build", code=2)
    assert run.failed == {"generation:assemble"}
    assert "the repository of custom node reader has its own .env" in run.output
    assert "remove env, or use a fork without that file" in run.output
    del rig.spec["custom_nodes"][0]["env"]
    rig.doit("build")
    assert link_of(rig).read_text() == "MODE=fast\n"


def test_a_node_that_opens_its_dotenv_is_proved_by_up(rig: Rig, reader: Repository) -> None:
    reader.commit({"__init__.py": READER.replace('if os.path.exists(path) else "no file"', "")})
    built = rig.doit("build", TOKEN="canary")
    assert "! custom node reader can't be validated here, only by `doit up`" in built.output
    # Validation may look before the file is there or after it; once it is proved, all the same.
    run = rig.doit("validation", "dotenv", TOKEN="canary")
    assert run.executed - PROVED == {"dotenv:reader"}
    assert len(run.executed & PROVED) == 1
    rig.doit(TOKEN="canary")
    assert seen(rig) == "TOKEN=canary\n"
    assert rig.doit(TOKEN="canary").executed == set()


def test_a_node_that_ends_comfyui_without_its_dotenv_runs_with_it(
    rig: Rig, reader: Repository
) -> None:
    text = READER.replace('"no file"', "sys.exit('no .env')")
    reader.commit({"__init__.py": "import sys\n" + text})
    assert "can't be validated here" in rig.doit("build").output
    rig.doit(TOKEN="canary")
    assert seen(rig) == "TOKEN=canary\n"


def test_a_node_that_fails_in_spite_of_its_dotenv_is_stopped_before_it_starts(
    rig: Rig, reader: Repository
) -> None:
    text = READER.replace('if os.path.exists(path) else "no file"', "")
    reader.commit({"__init__.py": text + "raise OSError('TOKEN is of no use')\n"})
    rig.doit("build", TOKEN="canary")
    run = rig.doit(code=2, TOKEN="canary")
    assert run.failed & PROVED
    assert "custom node reader doesn't import: OSError: TOKEN is of no use" in run.output
    assert rig.running() == {}


def test_a_node_that_wants_the_variable_is_proved_by_a_build_that_has_it(
    rig: Rig, reader: Repository
) -> None:
    reader.commit({"prestartup_script.py": "import os\nos.environ['TOKEN']\n"})
    assert "can't be validated here" not in rig.doit("build", TOKEN="canary").output
    reader.commit({"more.py": ""}, tag="v2")
    rig.spec["custom_nodes"][0]["ref"] = "v2"
    assert "can't be validated here" in rig.doit("build").output


def test_a_node_that_says_its_secret_is_not_repeated(rig: Rig, reader: Repository) -> None:
    reader.commit({"__init__.py": "import os\nraise OSError('refused: ' + os.environ['TOKEN'])\n"})
    rig.doit(code=2, TOKEN="canary")
    run = rig.doit("build", code=2, TOKEN="canary")
    assert "custom node reader doesn't import: OSError: refused: ${TOKEN}" in run.output
    assert "canary" not in run.output


def test_a_node_that_says_its_secret_in_an_instance_only_is_not_repeated(
    rig: Rig, reader: Repository
) -> None:
    late = READER + "import sys\nif '--port' in sys.argv: raise OSError(Reader.CATEGORY.strip())\n"
    reader.commit({"__init__.py": late})
    run = rig.doit(code=2, TOKEN="canary")
    assert "comfyui-gpu0: custom node reader doesn't import: OSError: TOKEN=${TOKEN}" in run.output
    assert "canary" not in run.output


VALUES = {
    "EMPTY": "",
    "PLAIN": "hf_abc-DEF.123/+=",
    "SPACES": "two words",
    "PADDED": " padded ",
    "HASH": "a #b#c",
    "DOLLAR": "pa$$word$HOME",
    "SINGLE": "it's",
    "DOUBLE": 'say "yes"',
    "BOTH": "'it's\" #",
    "BACKSLASH": "C:\\new\\",
    "BACKSLASHES": "\\\\ '#\\",
    "KEY": "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
    "CRLF": "one\r\ntwo",
    "TAB": "a\tb",
    "UNICODE": "schlüssel 🔑",
}


def test_python_dotenv_reads_every_value_exactly_and_a_simple_reader_most(
    rig: Rig, reader: Repository
) -> None:
    reader.commit({"requirements.txt": "python-dotenv==1.0.1\n"})
    rig.spec["custom_nodes"][0]["env"] = VALUES | {"BRACES": "${TOKEN}", "OTHER": "last"}
    rig.doit(TOKEN="a${HOME}b${")
    code = "import dotenv, json, sys; print(json.dumps(dotenv.dotenv_values(sys.argv[1])))"
    said = subprocess.check_output(
        [str(rig.environment / "bin" / "python"), "-c", code, str(link_of(rig))]
    )
    assert json.loads(said) == VALUES | {"BRACES": "a${HOME}b${", "OTHER": "last"}
    lines = [line.partition("=") for line in file_of(rig).read_text().splitlines()]
    simple = {name: value[1:-1] if value[:1] in ("'", '"') else value for name, _, value in lines}
    differing = {name for name in VALUES if simple[name] != VALUES[name]}
    assert differing == {"BOTH", "BACKSLASHES", "KEY", "CRLF"}
