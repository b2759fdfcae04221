"""What became of custom nodes: read from ComfyUI's log, and from the simulator itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.host import files, process
from tasks.host.failure import Failure
from tasks.host.quick_test import QuickTest, Result, parse, read, receipt_of
from tests.rig import SIMULATOR

Maker = Callable[..., QuickTest]
GOOD = "NODE_CLASS_MAPPINGS = {}\n"

# ComfyUI 0.3.64 with --verbose DEBUG, shortened
LOG = """\
Failed to execute startup-script: /c/custom_nodes/early/prestartup_script.py / no luck

Prestartup times for custom nodes:
   0.1 seconds: /c/custom_nodes/good
   0.1 seconds: /c/custom_nodes/bad
   0.2 seconds (PRESTARTUP FAILED): /c/custom_nodes/early

Total VRAM 15990 MB, total RAM 15990 MB
Device: cpu
Trying to load custom node /c/custom_nodes/good
Trying to load custom node /c/custom_nodes/bad
Traceback (most recent call last):
  File "/c/nodes.py", line 2133, in load_custom_node
    module_spec.loader.exec_module(module)
  File "/c/custom_nodes/bad/__init__.py", line 1, in <module>
    import cv2
ModuleNotFoundError: No module named 'cv2'

Cannot import /c/custom_nodes/bad module for custom nodes: No module named 'cv2'
Trying to load custom node /c/custom_nodes/bad-two
Traceback (most recent call last):
  File "/c/custom_nodes/bad-two/__init__.py", line 1, in <module>
    raise RuntimeError(text)
RuntimeError: first line
second line of the message

Cannot import /c/custom_nodes/bad-two module for custom nodes: first line
second line of the message
Trying to load custom node /c/custom_nodes/empty
Skip /c/custom_nodes/empty module for custom nodes due to the lack of NODE_CLASS_MAPPINGS or\
 NODES_LIST (need one).
Trying to load custom node /c/custom_nodes/early

Import times for custom nodes:
   0.0 seconds: /c/custom_nodes/websocket_image_save.py
   0.0 seconds (IMPORT FAILED): /c/custom_nodes/empty
   0.3 seconds (IMPORT FAILED): /c/custom_nodes/bad
   0.4 seconds (IMPORT FAILED): /c/custom_nodes/bad-two
   0.5 seconds: /c/custom_nodes/early
  12.5 seconds: /c/custom_nodes/good

"""


def test_seconds_and_names_are_read() -> None:
    found = parse(LOG)
    assert set(found) == {"websocket_image_save.py", "empty", "bad", "bad-two", "early", "good"}
    assert found["bad"].seconds == 0.3
    assert found["websocket_image_save.py"] == Result(True, 0.0)


def test_a_failed_import_has_the_last_line_of_its_own_traceback() -> None:
    assert parse(LOG)["bad"] == Result(False, 0.3, "ModuleNotFoundError: No module named 'cv2'")
    assert parse(LOG)["bad-two"].reason == "RuntimeError: first line"


def test_a_node_without_mappings_has_comfyuis_own_words() -> None:
    assert parse(LOG)["empty"].reason.startswith("Skip /c/custom_nodes/empty module")


def test_a_failed_prestartup_counts_although_the_import_went_well() -> None:
    result = parse(LOG)["early"]
    assert not result.imported
    assert result.reason.endswith("no luck")


def test_lines_that_only_look_like_a_table_are_no_nodes() -> None:
    assert parse("   0.0 seconds\nit took 3.0 seconds: long\n 1.0 seconds: relative/x\n") == {}


@pytest.fixture
def quick_test(tmp_path: Path) -> Maker:
    """A copy of the simulator with the given custom nodes: name → `__init__.py`."""

    def make(nodes: dict[str, str], prestartup: dict[str, str] | None = None) -> QuickTest:
        comfyui = tmp_path / "ComfyUI"
        shutil.copytree(SIMULATOR, comfyui, ignore=shutil.ignore_patterns("__pycache__"))
        for name, source in nodes.items():
            file = comfyui / "custom_nodes" / name / "__init__.py"
            file.parent.mkdir()
            file.write_text(source)
        for name, source in (prestartup or {}).items():
            (comfyui / "custom_nodes" / name / "prestartup_script.py").write_text(source)
        return QuickTest(
            python=Path(sys.executable),
            comfyui=comfyui,
            scratch=tmp_path / "scratch",
            env=process.allowed_environment(os.environ),
            args=["--cpu"],
            log=tmp_path / "log",
        )

    return make


def test_each_node_is_really_imported_and_its_failure_told(quick_test: Maker) -> None:
    test = quick_test(
        {
            "good": GOOD,
            "bad": "import time; time.sleep(0.2); import no_such_module",
            "early": GOOD,
            "silent": "x = 1",
            "entry": "def comfy_entrypoint():\n    return None\n",
            "modern": "from comfy_api.latest import ComfyExtension, io\n"
            "class Modern(io.ComfyNode):\n"
            "    @classmethod\n    def define_schema(cls):\n"
            "        return io.Schema(node_id='ModernNode', inputs=[], outputs=[])\n"
            "class E(ComfyExtension):\n"
            "    async def get_node_list(self):\n        return [Modern]\n"
            "async def comfy_entrypoint():\n    return E()\n",
            "classic": "class B:\n    INPUT_TYPES = classmethod(lambda cls: {'required': {}})\n"
            "    RETURN_TYPES = ()\n"
            "class Mute: pass\n"
            "class Newer(B):\n    INPUT_TYPES = classmethod(lambda cls: 1 / 0)\n"
            "NODE_CLASS_MAPPINGS = {'Z z': B, 'B': B, 'Mute': Mute, 'Newer': Newer}\n",
        },
        {"early": "raise RuntimeError('no luck')", "good": "x = 1"},
    )
    found = test.run()
    assert {name for name, result in found.items() if not result.imported} == {
        "bad", "early", "silent", "entry",
    }  # fmt: skip
    assert found["good"].imported
    assert found["modern"].imported, "comfy_entrypoint needs no mappings"
    assert found["modern"].classes == ("ModernNode",)
    assert found["classic"].classes == ("B", "Z z"), "those of which ComfyUI can tell"
    assert found["websocket_image_save.py"].classes == ("SaveImageWebsocket",)
    assert (found["good"].classes, found["bad"].classes) == ((), None)
    assert found["bad"].reason == "ModuleNotFoundError: No module named 'no_such_module'"
    assert found["bad"].seconds >= 0.2
    assert "no luck" in found["early"].reason
    assert "NODE_CLASS_MAPPINGS" in found["silent"].reason
    assert "did not return a ComfyExtension" in found["entry"].reason
    assert not any(result.fatal for result in found.values())


def test_comfyui_and_nodes_find_everything_as_with_python_main_py(quick_test: Maker) -> None:
    look = (
        "import __main__, inspect, json, os, sys\n"
        "names = [vars(__main__).get(n) for n in ('__name__', '__doc__', '__file__', '__spec__')]\n"
        "with open(os.environ['SEEN'], 'a') as seen:\n"
        "    print(json.dumps([names, sys.argv[:2], sys.path, os.getcwd(), "
        "len(inspect.getsource(__main__))]), file=seen)\n"
    )
    test = quick_test({"look": look + GOOD})
    seen = test.scratch.parent / "seen"
    test = replace(test, env={**test.env, "SEEN": str(seen)})
    test.run()
    subprocess.run(
        [sys.executable, "main.py", "--quick-test-for-ci", "--cpu"],
        cwd=test.comfyui, env=test.env, check=True, capture_output=True,
    )  # fmt: skip
    ours, plain = map(json.loads, seen.read_text().splitlines())
    assert ours == plain


def test_classes_are_unknown_when_nothing_can_tell_them(quick_test: Maker) -> None:
    hides = "import sys; sys.modules['nodes'] = None\n"
    found = quick_test({"good": GOOD, "hides": hides + GOOD}).run()
    assert found["good"] == Result(True, found["good"].seconds)


def test_receipts_of_other_versions_and_damaged_ones_are_read_as_far_as_they_go(
    tmp_path: Path,
) -> None:
    nodes = {
        "old": {"imported": True, "seconds": 0.1, "reason": "", "fatal": False},
        "new": {"imported": True, "seconds": 0.1, "classes": ["A"]},
        "later": {"imported": True, "seconds": 0.1, "colour": "red"},
        "wrong": 5,
    }
    files.write_receipt(receipt_of(tmp_path / "g"), {"nodes": nodes})
    assert read(tmp_path / "g") == {
        "old": Result(True, 0.1),
        "new": Result(True, 0.1, classes=("A",)),
    }
    receipt_of(tmp_path / "g").write_text("{")
    assert read(tmp_path / "g") == {}


def test_its_folders_are_scratch_and_gone_after(quick_test: Maker) -> None:
    note = "import folder_paths; print('temp is', folder_paths.get_temp_directory())\n"
    test = quick_test({"note": note + GOOD})
    for name in ("temp", "user", "output", "input"):
        (test.comfyui / name).mkdir(exist_ok=True)
        (test.comfyui / name / "kept").write_text("")
    test.run()
    assert f"temp is {test.scratch}/" in test.log.read_text()
    assert list(test.scratch.iterdir()) == []
    for name in ("temp", "user", "output", "input"):
        assert (test.comfyui / name / "kept").is_file()
        assert len(list((test.comfyui / name).glob("*"))) <= 2


def test_it_leaves_the_bytecode_that_a_start_needs(quick_test: Maker) -> None:
    test = quick_test({"good": "from . import more\n" + GOOD})
    (test.comfyui / "custom_nodes" / "good" / "more.py").write_text("")
    test.run()
    assert list((test.comfyui / "custom_nodes" / "good" / "__pycache__").glob("more.*.pyc"))


def test_a_node_that_ends_the_process_is_fatal_and_the_rest_is_tried_without_it(
    quick_test: Maker,
) -> None:
    found = quick_test(
        {
            "good": GOOD,
            "bad": "1/0",
            "deadly": "import sys; print('farewell'); sys.exit(7)",
            "silent": "import os; os._exit(0 or 5)",
        }
    ).run()
    assert {name for name, result in found.items() if result.fatal} == {"deadly", "silent"}
    assert found["deadly"].reason == "it ends ComfyUI with code 7: farewell"
    assert found["silent"].reason == "it ends ComfyUI with code 5"
    assert not found["deadly"].imported
    assert found["good"].imported
    assert found["bad"].reason == "ZeroDivisionError: division by zero"


def test_a_comfyui_that_cannot_start_is_a_failure_with_its_last_words(quick_test: Maker) -> None:
    test = quick_test({"good": GOOD})
    (test.comfyui / "execution.py").write_text("raise RuntimeError('no torch')\n")
    with pytest.raises(
        Failure, match=r"doesn't start \(code 1\): RuntimeError: no torch"
    ) as caught:
        test.run()
    assert caught.value.log == test.log
    assert list(test.scratch.iterdir()) == []


def test_a_node_that_ends_everything_before_the_start_is_a_failure(quick_test: Maker) -> None:
    test = quick_test(
        {"good": GOOD, "deadly": GOOD},
        {"deadly": "import sys; print('deadly says goodbye'); sys.exit(9)"},
    )
    with pytest.raises(Failure, match=r"\(code 9\): deadly says goodbye"):
        test.run()


def test_a_talkative_node_hides_no_failure(quick_test: Maker) -> None:
    noisy = "for _ in range(3000):\n    print('x' * 99)\n"
    test = quick_test(
        {"early": GOOD, "noisy": noisy + GOOD}, {"early": "raise RuntimeError('no luck')"}
    )
    assert not test.run()["early"].imported
