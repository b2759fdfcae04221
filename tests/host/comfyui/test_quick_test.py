"""The proof: ComfyUI really loads every custom node, and its process tells what became of each."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.comfyui import load_result
from comfy_machine.host.comfyui.load_report import Error
from comfy_machine.host.comfyui.load_result import Outcome, Result, read, receipt_of
from comfy_machine.host.comfyui.quick_test import Proof
from comfy_machine.host.python import pth_hook, uv
from comfy_machine.host.system import files, process
from comfy_machine.host.system.failure import Failure
from comfy_machine.spec.layout import Layout
from tests.contract.client import until
from tests.rig import SIMULATOR

Maker = Callable[..., Proof]
GOOD = "NODE_CLASS_MAPPINGS = {}\n"
ALL_DAY = "import time\nwhile True: time.sleep(0.1)\n"


@pytest.fixture
def proof(tmp_path: Path, built: Layout) -> Maker:
    """A copy of the simulator with the given custom nodes: name → `__init__.py`."""

    def make(nodes: dict[str, str], prestartup: dict[str, str] | None = None) -> Proof:
        comfyui = tmp_path / "ComfyUI"
        shutil.copytree(SIMULATOR, comfyui, ignore=shutil.ignore_patterns("__pycache__"))
        for name, source in nodes.items():
            file = comfyui / "custom_nodes" / name / "__init__.py"
            file.parent.mkdir()
            file.write_text(textwrap.dedent(source))
        for name, source in (prestartup or {}).items():
            (comfyui / "custom_nodes" / name / "prestartup_script.py").write_text(source)
        return Proof(
            python=built.current.resolve() / "environment" / "bin" / "python",
            comfyui=comfyui,
            scratch=tmp_path / "scratch",
            env=process.allowed_environment(os.environ),
            args=["--cpu"],
            log=tmp_path / "log",
            timeout=60,
        )

    return make


def outcomes(found: dict[str, Result]) -> dict[str, Outcome]:
    return {name: result.outcome for name, result in found.items()}


def test_each_node_is_really_imported_and_its_failure_told(proof: Maker) -> None:
    found = (
        proof(
            {
                "good": GOOD,
                "bad": "import time; time.sleep(0.2); import no_such_module",
                "early": GOOD,
                "silent": "x = 1",
                "entry": "def comfy_entrypoint():\n    return None\n",
                "stumbles": "def comfy_entrypoint():\n    raise RuntimeError('no luck')\n",
                "odd": "NODE_CLASS_MAPPINGS = 5\n",
                "modern": """\
                from comfy_api.latest import ComfyExtension, io
                class Modern(io.ComfyNode):
                    @classmethod
                    def define_schema(cls):
                        return io.Schema(node_id='ModernNode', inputs=[], outputs=[])
                class E(ComfyExtension):
                    async def get_node_list(self):
                        return [Modern]
                async def comfy_entrypoint():
                    return E()
                """,
                "classic": """\
                class B:
                    INPUT_TYPES = classmethod(lambda cls: {'required': {}})
                    RETURN_TYPES = ()
                class Mute: pass
                class Newer(B):
                    INPUT_TYPES = classmethod(lambda cls: 1 / 0)
                NODE_CLASS_MAPPINGS = {'Z z': B, 'B': B, 'Mute': Mute, 'Newer': Newer}
                """,
            },
            {"early": "raise RuntimeError('no luck')", "good": "x = 1"},
        )
        .run()
        .results
    )
    loaded = {name for name, outcome in outcomes(found).items() if outcome is Outcome.LOADED}
    assert loaded == {"good", "modern", "classic", "websocket_image_save.py"}
    assert found["modern"].classes == ("ModernNode",)
    assert found["classic"].classes == ("B", "Z z"), "those of which ComfyUI can tell"
    assert found["websocket_image_save.py"].classes == ("SaveImageWebsocket",)
    assert (found["good"].classes, found["bad"].classes) == ((), None)
    bad = found["bad"].error
    assert bad
    assert (bad.type, bad.message) == ("ModuleNotFoundError", "No module named 'no_such_module'")
    assert bad.module == "no_such_module"
    assert 'custom_nodes/bad/__init__.py", line 1, in <module>' in bad.trace
    assert found["bad"].seconds >= 0.2
    assert found["silent"].outcome is Outcome.EMPTY
    assert str(found["early"]) == "doesn't import: RuntimeError: no luck"
    assert str(found["stumbles"]) == "doesn't import: RuntimeError: no luck"
    assert (found["entry"].outcome, found["entry"].error) == (Outcome.FAILED, None)
    assert str(found["odd"]).startswith("doesn't import: AttributeError:")
    assert not any(result.fatal for result in found.values())


def test_comfyui_and_nodes_find_everything_as_with_python_main_py(proof: Maker) -> None:
    look = (
        "import __main__, inspect, json, os, sys\n"
        "names = [vars(__main__).get(n) for n in ('__name__', '__doc__', '__file__', '__spec__')]\n"
        "with open(os.environ['SEEN'], 'a') as seen:\n"
        "    print(json.dumps([names, sys.argv[:2], sys.path, os.getcwd(), "
        "len(inspect.getsource(__main__))]), file=seen)\n"
    )
    test = proof({"look": look + GOOD})
    seen = test.scratch.parent / "seen"
    test = replace(test, env={**test.env, "SEEN": str(seen)})
    test.run()
    subprocess.run(
        [test.python, "main.py", "--cpu", "--quick-test-for-ci"],
        cwd=test.comfyui, env=test.env, check=True, capture_output=True,
    )  # fmt: skip
    ours, plain = map(json.loads, seen.read_text().splitlines())
    ours[1][1] = plain[1][1]
    assert ours == plain


RUDE = (
    """
import logging; logging.getLogger().setLevel(logging.CRITICAL)
import logging; logging.disable(logging.CRITICAL)
import logging; logging.getLogger().handlers.clear()
import logging; logging.warning = logging.error = lambda *a, **k: None
import logging; logging.basicConfig(force=True, format='%(levelname)s')
import sys, io; sys.stderr = sys.stdout = io.StringIO()
import logging; logging.shutdown(); import nodes; nodes.logging = logging
import logging, nodes, types; nodes.logging = types.ModuleType('mute'); \
nodes.logging.debug = nodes.logging.info = nodes.logging.warning = lambda *a, **k: None
""".strip()
    .replace("\\\n", "")
    .splitlines()
)


def test_what_nodes_do_to_logging_changes_no_verdict(proof: Maker) -> None:
    others = {"bad": "1/0", "good": GOOD, "silent": "x = 1"}
    # In any order of the disk some come after a rude one.
    copies = {f"{name}{n}": text for n in range(4) for name, text in others.items()}
    rude = {f"rude{n}": f"{text}\n{GOOD}" for n, text in enumerate(RUDE)}
    found = proof({**copies, **rude}).run().results
    expected = {"bad": Outcome.FAILED, "good": Outcome.LOADED, "silent": Outcome.EMPTY}
    for name in copies:
        assert found[name].outcome is expected[name[:-1]], (name, found[name])
    assert all(found[name].loaded for name in rude)
    assert {str(found[f"bad{n}"].error) for n in range(4)} == {
        "ZeroDivisionError: division by zero"
    }


def test_only_the_first_load_counts(proof: Maker) -> None:
    again = """\
        import asyncio, os, threading
        import nodes
        def load(path):
            loop = asyncio.new_event_loop()
            thread = threading.Thread(
                target=lambda: loop.run_until_complete(nodes.load_custom_node(path)))
            thread.start()
            thread.join()
        here = os.path.dirname(__file__)
        for name in ("part", "good", "bad"):
            load(os.path.join(here, "..", name) if name != "part" else os.path.join(here, name))
        NODE_CLASS_MAPPINGS = {}
        """
    test = proof({"zoo": again, "bad": "1/0", "good": GOOD})
    (test.comfyui / "custom_nodes" / "zoo" / "part").mkdir()
    found = test.run().results
    assert (found["good"].outcome, found["bad"].outcome) == (Outcome.LOADED, Outcome.FAILED)
    assert found["zoo"].loaded


ENDS = {
    "sys.exit(7)": 7,
    "os._exit(0)": 0,
    "os.kill(os.getpid(), 9)": -9,
}


def test_a_node_that_ends_the_process_in_any_way_is_named_and_all_others_load(
    proof: Maker,
) -> None:
    deadly = {f"deadly{n}": f"import os, sys; {how}" for n, how in enumerate(ENDS)}
    found = proof({**deadly, "good": GOOD, "bad": "1/0"}).run().results
    assert {name for name, result in found.items() if result.fatal} == set(deadly)
    for number, code in enumerate(ENDS.values()):
        result = found[f"deadly{number}"]
        assert result.outcome is Outcome.ENDED
        assert result.code == code
    assert str(found["deadly1"]) == "ends ComfyUI (exit code 0)"
    assert str(found["deadly2"]) == "ends ComfyUI (signal 9)"
    assert (found["good"].outcome, found["bad"].outcome) == (Outcome.LOADED, Outcome.FAILED)


def test_a_prestartup_script_that_ends_the_process_is_its_nodes(proof: Maker) -> None:
    found = (
        proof({"good": GOOD, "deadly": GOOD}, {"deadly": "import sys; sys.exit(9)"}).run().results
    )
    assert str(found["deadly"]) == "ends ComfyUI (exit code 9)"
    assert found["good"].loaded


def test_blamed_is_the_node_whose_thread_ends_the_process_not_the_one_that_is_loaded_then(
    proof: Maker,
) -> None:
    killer = """\
        import os, threading, time
        def end():
            while not os.path.exists(os.environ["NOW"]): time.sleep(0.01)
            os._exit(3)
        threading.Thread(target=end, daemon=True).start()
        NODE_CLASS_MAPPINGS = {}
        """
    slow = """\
        import os, time
        open(os.environ["NOW"], "w").close()
        for _ in range(100): time.sleep(0.01)
        NODE_CLASS_MAPPINGS = {}
        """
    names = ["killer", *(f"innocent{n}" for n in range(4))]
    test = proof(dict.fromkeys(names, slow) | {"killer": killer, "good": GOOD})
    # Which is loaded first is a matter of the disk: the thread waits for one that is loaded later.
    test = replace(test, env={**test.env, "NOW": str(test.scratch.parent / "now")})
    found = test.run().results
    assert {name for name, result in found.items() if result.fatal} == {"killer"}
    assert found["good"].loaded


@pytest.mark.parametrize("hang", [ALL_DAY, "input('continue? ')\n" + ALL_DAY])
def test_a_node_that_never_finishes_is_named_with_the_seconds_that_it_had(
    proof: Maker, hang: str
) -> None:
    hang = hang.replace("input(", "import io, sys; sys.stdin = io.StringIO('y'); input(")
    found = replace(proof({"endless": hang, "good": GOOD}), timeout=15).run().results
    assert found["endless"].outcome is Outcome.HUNG
    assert str(found["endless"]) == "didn't finish its import in 15 s (comfyui.proof_timeout)"
    assert found["good"].loaded


def test_what_is_known_to_hang_is_not_waited_for_again(proof: Maker) -> None:
    known = Result(Outcome.HUNG, 600.0)
    test = proof({"endless": "open(__file__ + '.tried', 'w')\n" + ALL_DAY, "good": GOOD})
    found = replace(test, excluded={"endless": known, "gone": known}).run().results
    assert found["endless"] == known
    assert found["good"].loaded
    assert "gone" not in found
    assert not (test.comfyui / "custom_nodes" / "endless" / "__init__.py.tried").exists()


def test_a_thread_that_keeps_the_process_from_ending_is_named_and_its_node_is_loaded(
    proof: Maker,
) -> None:
    stays = "import threading, time\nthreading.Thread(target=lambda: time.sleep(3000)).start()\n"
    test = proof({"nondaemon": stays + GOOD, "good": GOOD})
    found = test.run().results
    assert (found["nondaemon"].outcome, found["good"].outcome) == (Outcome.LOADED, Outcome.LOADED)
    assert found["nondaemon"].threads
    assert "custom node nondaemon kept ComfyUI from ending" in test.log.read_text()


MARK = "left-by-the-proof"


def left(folder: Path) -> list[psutil.Process]:
    """Processes that have this folder in their command line."""
    found = []
    for each in psutil.process_iter():
        try:
            if f"{folder}/{MARK}" in each.cmdline():
                found.append(each)
        except psutil.Error:
            continue
    return found


STARTS = """
subprocess.Popen(argv)
subprocess.Popen(argv, start_new_session=True)
subprocess.Popen(argv, start_new_session=True, env={})
os.system(f'nohup {shlex.join(argv)} >/dev/null 2>&1 &')
subprocess.Popen(['setsid', '-f', *argv], env={'PATH': os.environ['PATH']})
""".strip().splitlines()


def test_nothing_that_the_proof_starts_outlives_it(proof: Maker, tmp_path: Path) -> None:
    source = (
        "import os, shlex, subprocess, sys\n"
        f"argv = [sys.executable, '-c', 'import time; time.sleep(3000)', '{tmp_path}/{MARK}']\n"
    )
    test = proof({f"starts{n}": f"{source}{how}\n{GOOD}" for n, how in enumerate(STARTS)})
    found = test.run().results
    assert all(found[f"starts{n}"].loaded for n in range(len(STARTS)))
    until(lambda: not left(tmp_path), 10, "the left-over processes to be gone")
    assert test.log.read_text().count("ended a process that was left behind:") >= len(STARTS)


def test_what_a_node_that_runs_out_of_time_had_started_is_ended_too(
    proof: Maker, tmp_path: Path
) -> None:
    source = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3000)', "
        f"'{tmp_path}/{MARK}'], start_new_session=True, env={{}})\n"
    )
    found = replace(proof({"hangs": source + ALL_DAY}), timeout=15).run().results
    assert found["hangs"].outcome is Outcome.HUNG
    until(lambda: not left(tmp_path), 10, "the left-over processes to be gone")


SERVE = [
    "import http.server as h; s = h.ThreadingHTTPServer(('127.0.0.1', {port}), None)",
    "import socket; s = socket.create_server(('127.0.0.1', {port}))",
    "import asyncio; from concurrent.futures import ThreadPoolExecutor\n"
    "async def serve(): await asyncio.start_server(print, '127.0.0.1', {port})\n"
    "ThreadPoolExecutor().submit(asyncio.run, serve()).result()",
]


def test_a_fixed_port_that_an_instance_has_already_fails_no_proof(proof: Maker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        nodes = {f"port{n}": f"{how.format(port=port)}\n{GOOD}" for n, how in enumerate(SERVE)}
        found = proof(nodes).run().results
    assert all(found[name].loaded for name in nodes), found


def test_what_a_node_asks_for_that_only_run_time_has_is_noted(proof: Maker) -> None:
    test = proof(
        {
            "item": "import os; os.environ['TOKEN']",
            "get": "import os\nif not os.environ.get('TOKEN'): raise ValueError('say who you are')",
            "getenv": "import os, sys\nif not os.getenv('TOKEN'): sys.exit(4)",
            "inside": "import os\nassert 'TOKEN' in os.environ",
            "file": "import os; open(os.path.join(os.path.dirname(__file__), '.env'))",
            "other": "import os; os.environ['ANOTHER']",
            "good": GOOD,
        }
    )
    found = replace(test, later=["TOKEN", ".env"]).run().results
    assert {name: result.asked for name, result in found.items() if result.asked} == {
        "item": ("TOKEN",), "get": ("TOKEN",), "getenv": ("TOKEN",), "inside": ("TOKEN",),
        "file": (".env",),
    }  # fmt: skip
    assert found["getenv"].outcome is Outcome.ENDED
    error = found["other"].error
    assert error
    assert error.key == "ANOTHER"


def test_a_missing_library_and_the_modules_on_the_way_are_values(proof: Maker) -> None:
    test = proof(
        {
            "library": "import ctypes; ctypes.CDLL('libnosuch.so.7')",
            "chain": "try:\n    {}['k']\nexcept KeyError as e:\n    raise RuntimeError('x') from e",
            "long": "raise RuntimeError('first\\nsecond' + 'x' * 10000)",
        }
    )
    found = test.run().results
    library, chain, long = (found[name].error for name in ("library", "chain", "long"))
    assert library and chain and long  # noqa: PT018
    assert library.library == "libnosuch.so.7"
    assert "ctypes" in library.modules
    assert (chain.type, chain.root, chain.key) == ("RuntimeError", "KeyError: 'k'", "k")
    assert long.message == "first"
    assert len(long.trace) < 10000


def test_where_the_loader_cannot_be_found_nothing_is_known_and_nothing_fails(proof: Maker) -> None:
    test = proof({"good": GOOD, "bad": "1/0"})
    main, nodes = test.comfyui / "main.py", test.comfyui / "nodes.py"
    for file in (main, nodes):
        text = file.read_text().replace("load_custom_node", "load_pack")
        file.write_text(text.replace("init_extra_nodes", "init_packs"))
    found = replace(test, declared=["good", "bad", "third"]).run().results
    assert set(outcomes(found).values()) == {Outcome.UNKNOWN}
    assert not any(result.failed for result in found.values())


def test_an_environment_without_the_line_tells_nothing_and_nothing_fails(
    proof: Maker, tmp_path: Path
) -> None:
    test = proof({"good": GOOD, "bad": "1/0"})
    home = test.python.parent.parent.resolve()
    files.copy_tree(home, tmp_path / "environment")
    (uv.site_packages(tmp_path / "environment") / pth_hook.FILE).unlink()
    test = replace(test, python=tmp_path / "environment" / "bin" / "python", declared=["good"])
    assert test.run().results == {"good": Result(Outcome.UNKNOWN)}


def test_what_comfyui_passes_over_is_told_apart_from_what_failed(proof: Maker) -> None:
    test = proof({"good": GOOD, "away.disabled": GOOD})
    found = replace(test, declared=["good", "away"]).run().results
    assert str(found["away"]) == "was not loaded: ComfyUI skipped it"
    assert found["good"].loaded


def test_its_folders_are_scratch_and_gone_after(proof: Maker) -> None:
    note = "import folder_paths; print('temp is', folder_paths.get_temp_directory())\n"
    test = proof({"note": note + GOOD})
    for name in ("temp", "user", "output", "input"):
        (test.comfyui / name).mkdir(exist_ok=True)
        (test.comfyui / name / "kept").write_text("")
    test.run()
    assert f"temp is {test.scratch}/" in test.log.read_text()
    assert list(test.scratch.iterdir()) == []
    for name in ("temp", "user", "output", "input"):
        assert (test.comfyui / name / "kept").is_file()
        assert len(list((test.comfyui / name).glob("*"))) <= 2


def test_it_leaves_the_bytecode_that_a_start_needs(proof: Maker) -> None:
    test = proof({"good": "from . import more\n" + GOOD})
    (test.comfyui / "custom_nodes" / "good" / "more.py").write_text("")
    test.run()
    assert list((test.comfyui / "custom_nodes" / "good" / "__pycache__").glob("more.*.pyc"))


def test_a_comfyui_that_cannot_start_is_a_failure_with_its_last_words(proof: Maker) -> None:
    test = proof({"good": GOOD})
    (test.comfyui / "execution.py").write_text("raise RuntimeError('no torch')\n")
    with pytest.raises(
        Failure, match=r"doesn't start \(code 1\): RuntimeError: no torch"
    ) as caught:
        test.run()
    assert caught.value.log == test.log
    assert list(test.scratch.iterdir()) == []


def test_an_extra_of_comfyuis_own_that_fails_is_told_apart(proof: Maker) -> None:
    test = proof({"good": GOOD})
    extra = next(iter(sorted((test.comfyui / "comfy_extras").glob("nodes_*.py"))))
    extra.write_text("raise RuntimeError('no luck')\n")
    found = test.run().results
    assert str(found[f"comfy_extras/{extra.name}"]) == "doesn't import: RuntimeError: no luck"
    assert {name for name in found if load_result.is_own(name)} == {f"comfy_extras/{extra.name}"}


def test_receipts_of_other_versions_and_damaged_ones_are_read_as_far_as_they_go(
    tmp_path: Path,
) -> None:
    error = Error("ImportError", "no cv2", modules=("a", "b"))
    results = {
        "good": Result(Outcome.LOADED, 0.1, classes=("A",)),
        "bad": Result(Outcome.FAILED, 0.2, error, asked=("TOKEN",)),
    }
    load_result.write(tmp_path / "g", results, ["bad"])
    assert read(tmp_path / "g") == results
    assert load_result.unproved(tmp_path / "g") == {"bad"}
    older = {"old": {"imported": True, "seconds": 0.1, "reason": "", "fatal": False}, "wrong": 5}
    files.write_receipt(receipt_of(tmp_path / "g"), {"nodes": older})
    assert read(tmp_path / "g") == {}
    receipt_of(tmp_path / "g").write_text("{")
    assert read(tmp_path / "g") == {}


def test_the_process_tells_all_node_classes_and_what_is_chosen_from_a_list(proof: Maker) -> None:
    test = proof(
        {
            "own": """\
                class Pick:
                    INPUT_TYPES = classmethod(lambda cls: {
                        'required': {'model': (['a', 'b'],), 'text': ('STRING', {})},
                        'optional': {'late': ('COMBO', {'options': []})},
                    })
                    RETURN_TYPES = ()
                import folder_paths
                class Newer(Pick):
                    INPUT_TYPES = classmethod(lambda cls: 1 / 0)
                class First(Pick):
                    INPUT_TYPES = classmethod(lambda cls: {'required': {
                        'all': (folder_paths.get_filename_list('checkpoints'),
                                {'default': ['x', *folder_paths.get_filename_list('vae')][0]}),
                        'one': ([open('here').read()],),
                    }})
                class Full(Pick):
                    INPUT_TYPES = classmethod(lambda cls: {'required': {
                        'a': ([folder_paths.get_filename_list('checkpoints')[0]],),
                    }})
                NODE_CLASS_MAPPINGS = {
                    'Pick': Pick, 'Newer': Newer, 'First': First, 'Full': Full,
                }
                """
        }
    )
    (test.comfyui / "here").touch()
    (test.comfyui / "models" / "checkpoints").mkdir(parents=True, exist_ok=True)
    (test.comfyui / "models" / "checkpoints" / "a.safetensors").touch()
    assert test.run().catalogue is None, "nobody asked"
    test = replace(test, describe=True)
    found = test.run().catalogue
    assert found is not None
    assert found.choices["First"] == ("all", "one")
    assert found.choices["Full"] == ("a",), "one that needs the files is asked again with them"
    assert found.choices["Pick"] == ("model", "late")
    assert "Newer" not in found.choices, "ComfyUI can't tell of it"
    assert found.choices["CheckpointLoaderSimple"] == ("ckpt_name",)
    load_result.write(test.comfyui, {}, [])
    assert not load_result.asked_for_catalogue(test.comfyui)
    load_result.write(test.comfyui, {}, [], asked=True)
    assert load_result.asked_for_catalogue(test.comfyui)
    assert load_result.catalogue(test.comfyui) is None
    load_result.write(test.comfyui, {}, [], found, asked=True)
    assert load_result.catalogue(test.comfyui) == found
    files.write_receipt(receipt_of(test.comfyui), {"nodes": {}, "catalogue": {"choices": 3}})
    assert load_result.catalogue(test.comfyui) is None
    assert not load_result.asked_for_catalogue(test.comfyui.with_name("other"))
