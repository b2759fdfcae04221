"""doit layers: what each layer of an image is made of, and so when it is built anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import SIMULATOR, Rig
from tests.wheels import wheel


def parts(rig: Rig, folder: Path) -> dict[str, tuple[str, str]]:
    """The two files of each layer."""
    rig.doit("layers", str(folder))
    return {
        layer.name: ((layer / "machine.yaml").read_text(), (layer / "machine.lock").read_text())
        for layer in folder.iterdir()
    }


def test_a_layer_changes_with_what_it_is_made_of_alone(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    plain = forge.node("plain", {"requirements.txt": "idna\n"})
    scripted = forge.node("scripted", {"install.py": "", "requirements.txt": "of-our-own\n"})
    rig = machine(custom_nodes=[{"url": plain.url, "env": {"A": "1"}}, {"url": scripted.url}])
    shutil.copytree(SIMULATOR, rig.folder / "comfyui")
    rig.spec["comfyui"] = {"path": "comfyui"}
    wheel(rig.folder / "wheels", "of-our-own", "1.0")
    rig.spec["python"]["find_links"] = ["wheels"]
    rig.doit("lock")
    first = parts(rig, tmp_path / "first")
    assert scripted.url in first["environment"][0]
    assert plain.url not in "".join(first["environment"])
    locked = json.loads(first["environment"][1])["python"]
    assert {"idna", "of-our-own"} <= set(locked["packages"])
    assert locked["asked"]["find_links"] == ["wheels"], "wherever the image has them"
    assert set(locked["asked"]["requirements"]["custom_nodes"]) == {"scripted"}

    plain.commit({"more.py": ""})
    rig.spec["workers"] = [{"name": "worker", "command": ["sleep", "1"]}]
    rig.doit("update", "plain")
    rig.doit("lock")
    second = parts(rig, tmp_path / "second")
    assert second["environment"] == first["environment"]
    assert second["models"] == first["models"]
    assert second["code"][0] == first["code"][0], "a worker is no code"
    assert second["code"][1] != first["code"][1]
    labels = rig.doit("layers", "--labels").output
    assert f"--label comfy-machine.custom-node.plain={plain.git('rev-parse', 'HEAD')}" in labels


def test_a_local_folder_goes_along_unless_it_lies_outside(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "main.py").touch()
    rig = Rig(tmp_path / "machine", {"workspace": "ws", "comfyui": {"path": "../outside"}})
    rig.folder.mkdir()
    said = rig.doit("layers", str(tmp_path / "layers"), code=1).output
    assert f"{tmp_path / 'outside'} is outside of the machine's folder: move it there" in said
    (tmp_path / "outside").rename(rig.folder / "comfyui")
    rig.spec["comfyui"] = {"path": "comfyui"}
    rig.spec["python"] = {"find_links": ["wheels", "https://localhost/wheels"]}
    wheels = rig.folder / "wheels"
    said = rig.doit("layers", str(tmp_path / "layers"), code=1).output
    assert f"{wheels} is missing" in said
    wheels.mkdir(parents=True)
    (wheels / "one.whl").touch()
    rig.doit("layers", str(tmp_path / "layers"))
    for layer in ("environment", "code"):
        assert (tmp_path / "layers" / layer / "comfyui" / "main.py").is_file()
        assert (tmp_path / "layers" / layer / "wheels" / "one.whl").is_file()
    assert not (tmp_path / "layers" / "models" / "wheels").exists()
