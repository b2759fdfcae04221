"""What custom nodes change in the generation they are loaded from: their process tells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.host.generations import manifest, reported_changes
from comfy_machine.host.generations.reported_changes import Changes
from comfy_machine.host.python import pth_hook
from comfy_machine.host.repositories import git
from comfy_machine.host.storage import digest_folders
from comfy_machine.host.system import files
from tests.forge import Forge
from tests.rig import PROJECT

SHIM = PROJECT / "tasks" / "services" / "shim.py"
LOADER = """
import asyncio, importlib.util, logging, os, traceback
NODE_CLASS_MAPPINGS = {}
async def load_custom_node(module_path, ignore=set(), module_parent="custom_nodes"):
    try:
        file = os.path.join(module_path, "__init__.py")
        spec = importlib.util.spec_from_file_location(module_path, file)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
        return True
    except Exception as e:
        logging.warning(traceback.format_exc())
        return False
async def init_extra_nodes():
    here = os.path.join(os.path.dirname(os.path.realpath(__file__)), "custom_nodes")
    for name in sorted(os.listdir(here)):
        await load_custom_node(os.path.join(here, name))
"""
MAIN = """
import asyncio, nodes, os, runpy
asyncio.run(nodes.init_extra_nodes())
if os.path.exists("serving.py"):
    runpy.run_path("serving.py")
print("it served")
"""
HEAD = "import os, subprocess, sys\nhere = os.path.dirname(__file__)\n"
GIT = "git = ['git', '-c', 'user.name=n', '-c', 'user.email=e', '-C', here]\n"
Load = Callable[..., Changes]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the line in it."""
    folder = tmp_path_factory.mktemp("python") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pth_hook.write(next((folder / "lib").glob("python*/site-packages")))
    return folder / "bin" / "python"


@pytest.fixture
def generation(tmp_path: Path) -> Path:
    return tmp_path / "generations" / "0123"


@pytest.fixture
def load(generation: Path, python: Path) -> Load:
    """Assemble a small ComfyUI of these custom nodes, once, and run it as an instance is run."""
    comfyui = generation / "ComfyUI"

    def load(packs: dict[str, str], serving: str = "", harmed: bool = False) -> Changes:
        if not comfyui.exists():
            assemble(generation, packs)
        (comfyui / "serving.py").write_text(serving)
        ended = subprocess.run(
            [sys.executable, "-I", str(SHIM), "--report", str(generation.parent / "reports"),
             "--changes", str(reported_changes.file_of(generation)), "--", str(python), "main.py"],
            cwd=comfyui, env={"PATH": os.environ["PATH"]}, timeout=30, text=True,
            capture_output=True,
        )  # fmt: skip
        assert (ended.returncode, ended.stdout) == (0, "it served\n"), ended.stderr
        assert ("inside/changes.py" in ended.stderr) == harmed
        return reported_changes.read(generation)

    return load


def assemble(generation: Path, packs: dict[str, str]) -> None:
    own = {"nodes.py": LOADER, "main.py": MAIN, ".gitignore": "custom_nodes/\nserving.py\n"}
    forge = Forge(generation)
    heads = {"ComfyUI": forge.repository("ComfyUI", {**own, "web/index.html": "x"}).folder}
    for name, text in packs.items():
        code = HEAD + GIT + text
        nodes = Forge(generation / "ComfyUI" / "custom_nodes")
        made_of = {"__init__.py": code, "settings.json": "{}", "sub/a.txt": "a", "sub/b.txt": "b"}
        heads[f"ComfyUI/custom_nodes/{name}"] = nodes.repository(name, {**made_of}).folder
    commits = {place: git.head(folder) for place, folder in heads.items()}
    files.point(generation / "environment", generation)
    digest_folders.finish(
        generation,
        {"digest": "0123", "heads": commits, "links": {}, "nodes": [*packs], "scripts": {}},
    )
    manifest.stamp(generation)


def place(name: str, file: str = "") -> str:
    return f"ComfyUI/custom_nodes/{name}" + (f"/{file}" if file else "")


@pytest.mark.parametrize(
    "code",
    [
        "open(here + '/settings.json', 'w').write('{\"a\": 1}')",
        "os.chdir(here); open('settings.json', 'a').write(' ')",
        "import pathlib; pathlib.Path(here, 'settings.json').write_text('{ }')",
        "open(here + '/new', 'w').write('{ }'); os.replace(here + '/new', here + '/settings.json')",
        "os.remove(here + '/settings.json')",
        "os.symlink('/tmp', here + '/l'); os.rename(here + '/l', here + '/settings.json')",
        "from pathlib import Path; Path(here, 'settings.json').unlink()",
        "os.chmod(here + '/sub', 0o700); os.chdir(here)\n"
        "with open('settings.json', 'r+') as f: f.truncate(0)",
        "import shutil; shutil.copy(here + '/sub/a.txt', here + '/settings.json')",
        "subprocess.run(['sh', '-c', 'echo 1 > settings.json'], cwd=here)",
        "os.system(f'echo 1 > {here}/settings.json')",
        "import sqlite3; os.truncate(here + '/settings.json', 0)\n"
        "sqlite3.connect(here + '/settings.json').execute('create table t (a)')",
    ],
)
def test_a_custom_node_that_rewrites_a_tracked_file_of_its_own(
    load: Load, generation: Path, code: str
) -> None:
    found = load({"selfsame": code, "well": "open(here + '/settings.json').read()"})
    assert found == Changes(files={place("selfsame", "settings.json"): "selfsame"})
    assert manifest.edited(generation) == {}
    assert (
        digest_folders.damaged(generation, digest_folders.read(generation), manifest.damage) is None
    )


def test_what_is_no_change_of_the_generation_is_not_noted(load: Load, tmp_path: Path) -> None:
    code = (
        "open(here + '/cache.bin', 'w').write('untracked')\n"
        "open(here + '/settings.json').read(); open(here + '/settings.json', 'rb').read()\n"
        f"open({str(tmp_path / 'outside')!r}, 'w').write('x')\n"
        "subprocess.run([*git, 'status'], check=True, capture_output=True)\n"
        "subprocess.run([sys.executable, '-I', '-c', ''], check=True)\n"
    )
    assert load({"well": code}) == Changes()


def test_the_files_of_others_are_laid_to_whoever_writes_them(load: Load) -> None:
    code = (
        "open(here + '/../beta/settings.json', 'w').write('1')\n"
        "open(here + '/../../web/index.html', 'w').write('1')\n"
        "import shutil; shutil.rmtree(here + '/../beta/sub')\n"
    )
    changed = [place("beta", "settings.json"), "ComfyUI/web/index.html",
               place("beta", "sub/a.txt"), place("beta", "sub/b.txt")]  # fmt: skip
    assert load({"alpha": code, "beta": ""}).files == dict.fromkeys(changed, "alpha")


def test_a_folder_that_is_moved_takes_its_files_along(load: Load, generation: Path) -> None:
    found = load({"alpha": "os.rename(here + '/sub', here + '/moved')"})
    assert found.files == dict.fromkeys(
        [place("alpha", "sub/a.txt"), place("alpha", "sub/b.txt")], "alpha"
    )
    assert (
        digest_folders.damaged(generation, digest_folders.read(generation), manifest.damage) is None
    )


def test_what_a_custom_node_rewrites_while_it_serves_is_its_own(
    load: Load, generation: Path
) -> None:
    code = "sys.modules['alpha'] = sys.modules.get('x') or type(sys)('alpha')\n"
    code += "def save():\n    open(here + '/settings.json', 'w').write('{\"by\": \"its page\"}')\n"
    code += "sys.modules['alpha'].save = save\n"
    assert load({"alpha": code}) == Changes()
    serving = "import sys, threading\nt = threading.Thread(target=sys.modules['alpha'].save)\n"
    found = load({}, serving + "t.start(); t.join()\n")
    assert found.files == {place("alpha", "settings.json"): "alpha"}
    assert manifest.edited(generation) == {}
    noted = reported_changes.file_of(generation).read_text()
    load({}, serving + "t.start(); t.join()\n")
    assert reported_changes.file_of(generation).read_text() == noted, "it doesn't grow"


@pytest.mark.parametrize(
    "code",
    [
        "subprocess.run([*git, 'commit', '-q', '-a', '--allow-empty', '-m', 'x'], check=True)",
        "os.system(' '.join([*git, 'commit', '-q', '--allow-empty', '-m', 'x']))",
        "subprocess.run(['sh', '-c', 'git rm -q sub/a.txt && git -c user.name=n -c user.email=e "
        "commit -q -m x'], cwd=here, check=True)",
        "ref = open(here + '/.git/HEAD').read().split()[1]\n"
        "open(here + '/.git/' + ref, 'w').write('5' * 40)",
    ],
)
def test_a_custom_node_that_moves_its_own_checkout(load: Load, generation: Path, code: str) -> None:
    found = load({"alpha": code, "beta": ""})
    now = git.head(generation / place("alpha"))
    assert found.moved(place("alpha"), now)
    assert not found.moved(place("beta"), "5" * 40)
    assert set(found.heads.values()) == {"alpha"}
    assert (
        digest_folders.damaged(generation, digest_folders.read(generation), manifest.damage) is None
    )


def test_one_that_leaves_git_behind_is_rebuilt_no_more(load: Load, generation: Path) -> None:
    load({"alpha": "import shutil; shutil.rmtree(here + '/.git')"})
    assert (
        digest_folders.damaged(generation, digest_folders.read(generation), manifest.damage) is None
    )


def test_one_that_pulls_others_or_later_is_known_by_the_git_it_started(
    load: Load, generation: Path
) -> None:
    code = (
        "import threading\nwork = threading.Thread(target=lambda: subprocess.run(\n"
        "    [*git[:-1], here + '/../beta', 'commit', '-q', '--allow-empty', '-m', 'x']))\n"
        "work.start()\n"
    )
    found = load({"alpha": code, "beta": "", "gamma": ""})
    assert found.led == {place("beta"): "alpha"}
    assert (
        digest_folders.damaged(generation, digest_folders.read(generation), manifest.damage) is None
    )


def test_what_goes_from_and_comes_into_the_environment(load: Load, python: Path) -> None:
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    (site / "idna-3.7.dist-info").mkdir()
    code = (
        "import sysconfig; site = sysconfig.get_path('purelib')\n"
        "os.rename(site + '/idna-3.7.dist-info', site + '/idna-3.6.dist-info')\n"
        "os.mkdir(here + '/../friend')\n"
    )
    try:
        found = load({"alpha": code, "beta": ""})
    finally:
        (site / "idna-3.6.dist-info").rmdir()
    assert (found.gone, found.new) == (
        {"idna-3.7.dist-info": "alpha"},
        {"idna-3.6.dist-info": "alpha"},
    )
    assert found.nodes == {"friend": "alpha"}


def test_an_install_that_goes_on_after_the_import_is_told_once_it_shows(
    load: Load, python: Path, tmp_path: Path
) -> None:
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    # Started like pip, it ends after the import.
    code = (
        "code = 'import os, sys; sys.stdin.read(); os.mkdir(sys.argv[2])'\n"
        f"made = {str(site / 'late-1.0.dist-info')!r}\n"
        "child = subprocess.Popen([sys.executable, '-c', code, 'pip', made], stdin=-1)\n"
        "sys.modules['alpha'] = type(sys)('alpha')\n"
        "sys.modules['alpha'].child = child\n"
    )
    serving = (
        "import sys\nsys.modules['alpha'].child.communicate()\n"
        f"open({str(tmp_path / 'an output')!r}, 'w')\n"
    )
    try:
        found = load({"alpha": code, "beta": ""}, serving)
    finally:
        (site / "late-1.0.dist-info").rmdir()
    assert found.new == {"late-1.0.dist-info": "alpha"}


@pytest.mark.parametrize(
    "harm",
    [
        "import builtins, json; json.dumps = None; open(here + '/settings.json', 'w')",
        "os.path.realpath = None; open(here + '/settings.json', 'w')",
        "[setattr(m, 'stamp', None) for n, m in list(sys.modules.items()) "
        "if n == 'comfy_machine_inside.folders']; os.system('true')",
    ],
)
def test_what_harms_our_module_harms_nothing_else(load: Load, harm: str) -> None:
    load({"alpha": harm, "beta": "open(here + '/settings.json', 'w')"}, harmed=True)


def test_where_nothing_can_be_noted_all_goes_on(load: Load, generation: Path) -> None:
    reported_changes.file_of(generation).mkdir(parents=True)
    load({"alpha": "open(here + '/settings.json', 'w')"}, harmed=True)
