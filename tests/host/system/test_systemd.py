"""The unit file, as systemd itself reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from comfy_machine.host.system import systemd
from comfy_machine.host.system.failure import Failure

AWKWARD = [
    "plain", "two words", "50% off %h %n", "$HOME ${HOME} $$", 'a "quote" \'s', "back\\slash\\n",
    "semi ; colon", "#hash", "ünï 漢", "-dash", "a=b", "@x !y :z +w", "{brace}", "\\x41",
]  # fmt: skip
VARIABLES = {"HOME": "/replaced"}


def render(folder: Path, *, user_unit: bool = False) -> str:
    """The unit of a machine whose everything lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("python", "doit"):
        shutil.copy("/bin/true", folder / name)
    (folder / "machine.yaml").touch()
    return systemd.render(
        folder / "machine.yaml",
        folder / "ws",
        folder,
        [folder / "python", "-I", folder / "boot.py"],
        folder / "doit",
        user_unit=user_unit,
    )


def value(unit: str, key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", unit, re.M)
    return str(found)


def split(line: str) -> list[str]:
    """Words by the rules of systemd.service(5): quotes, C escapes, then `%%`."""
    words: list[str] = []
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"(?=\s|$)|([^\s"\'\\]+)', line):
        text = match[1] if match[1] is not None else match[2]
        text = re.sub(r"\\(.)", lambda m: {"\\": "\\", '"': '"'}[m[1]], text)
        assert not re.search(r"(?<!%)(?:%%)*%(?!%)", text), "a specifier"
        words.append(text.replace("%%", "%"))
    return words


def command(line: str) -> list[str]:
    """The arguments that a command line of a unit is executed with."""
    first, *rest = split(line)
    assert first == "/usr/bin/env"

    def replaced(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else VARIABLES.get(match[1] or match[2], "")

    return [first, *(re.sub(r"\$\$|\$\{(\w+)\}|\$(\w+)", replaced, word) for word in rest)]


@pytest.mark.parametrize("name", AWKWARD)
def test_every_path_arrives_as_it_is(tmp_path: Path, name: str) -> None:
    here = tmp_path / name
    unit = render(here)
    doit, machine = str(here / "doit"), f"machine={here / 'machine.yaml'}"
    boot = ["/usr/bin/env", str(here / "python"), "-I", str(here / "boot.py")]
    assert command(value(unit, "ExecStart")) == [*boot, doit, machine]
    assert command(value(unit, "ExecStop")) == ["/usr/bin/env", doit, "down", machine]
    stop = command(value(unit, "ExecStopPost"))
    assert stop == [*boot, "--stop", "/usr/bin/env", doit, "down", machine]
    assert value(unit, "WorkingDirectory").replace("%%", "%") == str(here)
    assert split(value(unit, "RequiresMountsFor")) == [str(here / "ws"), str(here)]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
@pytest.mark.parametrize("scope", ["system", "user"])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, scope: str) -> None:
    units = tmp_path / "units"
    units.mkdir()
    for number, name in enumerate(AWKWARD):
        text = render(tmp_path / name, user_unit=scope == "user")
        (units / f"comfy-machine-{number}.service").write_text(text)
    verified = subprocess.run(
        ["systemd-analyze", "verify", f"--{scope}", "--man=no", *sorted(units.iterdir())],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    ours = [line for line in verified.stderr.splitlines() if "comfy-machine-" in line]
    assert ours == []
    (units / "comfy-machine-0.service").write_text("[Service]\nExecStart=/nowhere\nNo=1\n")
    wrong = subprocess.run(
        ["systemd-analyze", "verify", f"--{scope}", "--man=no", units / "comfy-machine-0.service"],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert "comfy-machine-0.service" in wrong.stderr, "and it does look"


def test_a_unit_of_the_system_has_an_owner_and_waits_for_the_network(tmp_path: Path) -> None:
    unit = render(tmp_path)
    assert value(unit, "User") == tmp_path.owner()
    assert "network-online.target" in value(unit, "After")
    assert value(unit, "WantedBy") == "multi-user.target"
    of_user = render(tmp_path, user_unit=True)
    assert "User=" not in of_user
    assert value(of_user, "WantedBy") == "default.target"


@pytest.mark.parametrize("name", ["new\nline", "tab\tin", "ends\\", "space "])
def test_a_path_that_no_unit_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(Failure, match="a systemd unit can't contain the path"):
        systemd.render(
            tmp_path / "machine.yaml", tmp_path, tmp_path / name, [], tmp_path, user_unit=True
        )


@pytest.mark.parametrize(
    ("file", "readable"),
    [
        ("/srv/Studio A/machine.yaml", "studio-a-"),
        ("/opt/studio-a/machine.yaml", "studio-a-"),
        ("/srv/b/night.yaml", "b-night-"),
        ("/machine.yaml", ""),
        ("/漢/machine.yaml", ""),
    ],
)
def test_a_unit_has_a_name_that_tells_which_machine_it_is(file: str, readable: str) -> None:
    name = systemd.unit_name(Path(file))
    assert re.fullmatch(rf"comfy-machine-{readable}[0-9a-f]{{6}}\.service", name)
    assert name == systemd.unit_name(Path(file))
    assert name != systemd.unit_name(Path(f"{file}.yaml"))
