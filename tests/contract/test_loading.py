"""What a process may hold on to that wants to know how each pack was loaded."""

from __future__ import annotations

import json

from tests.contract.installation import Installation, node

# Wraps the loader once ComfyUI's `nodes` was executed, and what it logs with; and what executes
# prestartup scripts.
WATCHING = """
    import importlib.machinery, importlib.util, json, logging, os, sys

    def tell(**entry):
        with open(os.environ["TOLD"], "a") as file:
            file.write(json.dumps(entry) + "\\n")

    class Logging:
        def __getattr__(self, name):
            problem = sys.exc_info()[1]
            if problem is not None and name in ("warning", "error"):
                tell(logs=name, type=type(problem).__name__)
            return getattr(logging, name)

    def wrap(nodes):
        load = nodes.load_custom_node
        nodes.logging = Logging()

        async def load_custom_node(module_path, *args, **named):
            tell(begun=module_path)
            ok = await load(module_path, *args, **named)
            tell(done=module_path, parent=named.get("module_parent"), ok=ok)
            return ok

        nodes.load_custom_node = load_custom_node

    class Finder:
        def find_spec(self, name, path, target=None):
            if name != "nodes" or path is not None:
                return None
            sys.meta_path.remove(self)
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                wrap(module)

            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Finder())

    find = importlib.util.spec_from_file_location

    def spec_from_file_location(name, location=None, **named):
        if str(location).endswith("prestartup_script.py"):
            tell(script=str(location), caller=sys._getframe(1).f_globals["__name__"])
        return find(name, location, **named)

    importlib.util.spec_from_file_location = spec_from_file_location
"""


def test_all_that_is_loaded_goes_through_what_can_be_wrapped(comfyui: Installation) -> None:
    base = comfyui.base()
    good, bad = base.add_node("good", node("return (value,)")), base.add_node("bad", "1 / 0\n")
    lacking = base.add_node("lacking", "x = 1\n")
    script = base.add("custom_nodes/good/prestartup_script.py")
    base.add("site/sitecustomize.py", WATCHING)
    environment = {"PYTHONPATH": str(base.path / "site"), "TOLD": str(base.path / "told")}
    ended = comfyui.run(base, "--quick-test-for-ci", env=environment)
    assert ended.process.returncode == 0, ended.log
    told = [json.loads(line) for line in (base.path / "told").read_text().splitlines()]

    (started,) = (entry for entry in told if "script" in entry)
    assert started == {"script": str(script), "caller": "__main__"}
    packs = {str(good): True, str(bad): False, str(lacking): False}
    own = {entry["done"]: entry["ok"] for entry in told if entry.get("parent") == "custom_nodes"}
    assert own == packs
    extras = [entry for entry in told if entry.get("parent") == "comfy_extras"]
    assert extras
    assert all(entry["ok"] for entry in extras)
    # Each is begun and done before the next, and what failed says why while it is handled.
    steps = [entry for entry in told if entry.get("logs") or str(bad) in entry.values()]
    names = [next(iter(entry)) for entry in steps]
    assert names[0] == "begun"
    assert names[-1] == "done"
    assert {entry["type"] for entry in steps[1:-1]} == {"ZeroDivisionError"}
