"""Start scripts as people have them: which line runs ComfyUI, and with what."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine.adoption import start_scripts
from comfy_machine.adoption.start_scripts import Start


def parsed(name: str, text: str) -> Start:
    found = start_scripts.parse(Path(name), text)
    assert found
    return found


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("run_nvidia_gpu.bat",
         ".\\python_embeded\\python.exe -s ComfyUI\\main.py --fast\r\npause\r\n", ("--fast",)),
        ("start.sh", "python main.py --listen >> log.txt 2>&1 &\n", ("--listen",)),
        ("start.sh", "# python main.py --old\nexec python main.py \\\n  --port 1 && echo done\n",
         ("--port", "1")),
        ("start.sh", 'ARGS="--lowvram --fast"\nsource x/bin/activate; python main.py $ARGS "$@"\n',
         ("--lowvram", "--fast")),
        ("run.bat", "set ARGS=--lowvram\r\npython main.py ^\r\n %ARGS% --port 1 %*\r\n",
         ("--lowvram", "--port", "1")),
        ("start.sh", "python main.py --port ${PORT:-8190}\n", ("--port", "8190")),
        ("start.sh", "python main.py --fast; echo ended\n", ("--fast",)),
        ("a.service", "[Service]\nExecStart=/opt/venv/bin/python /opt/ComfyUI/main.py --fast\n",
         ("--fast",)),
        ("start.sh", "python main.py --preview-method 'auto'\n", ("--preview-method", "auto")),
    ],
)  # fmt: skip
def test_the_arguments_are_what_follows_main_py(
    name: str, text: str, words: tuple[str, ...]
) -> None:
    assert parsed(name, text).words == words


@pytest.mark.parametrize(
    ("name", "text", "python"),
    [
        ("a.sh", "source ../venv/bin/activate\npython main.py\n", "../venv"),
        ("a.sh", "/opt/conda/bin/python3 main.py\n", "/opt/conda/bin/python3"),
        ("a.bat", ".\\python_embeded\\python.exe -s ComfyUI\\main.py\n",
         "./python_embeded/python.exe"),
        ("a.bat", "call venv\\Scripts\\activate.bat\npython main.py\n", "venv"),
        ("a.sh", "python main.py\n", ""),
    ],
)  # fmt: skip
def test_its_python_is_the_one_that_runs_it_or_whose_environment_is_active(
    name: str, text: str, python: str
) -> None:
    assert parsed(name, text).python == python


def test_variables_are_known_by_name_and_what_is_not_known_is_said() -> None:
    text = "export HF_TOKEN=a\nexport ARGS=--fast\nCUDA=1 python main.py $ARGS $MORE\n"
    found = parsed("start.sh", text)
    assert set(found.variables) == {"HF_TOKEN", "CUDA"}
    assert (found.words, found.unknown) == (("--fast",), ("$MORE",))


def test_a_secret_is_not_put_in_the_place_of_its_variable() -> None:
    found = parsed("start.sh", "MY_KEY=secret\npython main.py --fast $MY_KEY\n")
    assert (found.words, found.unknown) == (("--fast",), ("$MY_KEY",))


def test_a_script_that_starts_something_else_is_none() -> None:
    assert start_scripts.parse(Path("a.sh"), "echo main.py\npython other.py\n") is None


def test_a_script_for_the_gpu_comes_before_one_for_the_cpu(tmp_path: Path) -> None:
    for name, flag in (("run_cpu.bat", " --cpu"), ("run_nvidia_gpu.bat", "")):
        (tmp_path / name).write_text(f"python main.py{flag}\n")
    found = start_scripts.find([tmp_path], tmp_path)
    assert [each.file.name for each in found] == ["run_nvidia_gpu.bat", "run_cpu.bat"]


def test_a_unit_of_the_user_counts_where_it_names_the_folder(tmp_path: Path) -> None:
    units = tmp_path / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    comfyui = tmp_path / "ComfyUI"
    for name, folder in (("mine", comfyui), ("other", tmp_path / "Other")):
        (units / f"{name}.service").write_text(
            f'[Service]\nEnvironment="A=1" B=2\nExecStart=python {folder}/main.py --fast\n'
        )
    (found,) = start_scripts.find([comfyui], tmp_path)
    assert found.file.name == "mine.service"
    assert found.variables == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    "service",
    [
        "command: python main.py --fast --port 1",
        "command: [python, main.py, --fast, --port, 1]",
        "environment: {CLI_ARGS: --fast --port 1}",
        "environment: ['CLI_ARGS=--fast --port 1']",
    ],
)
def test_a_compose_file_has_them_as_its_command_or_a_variable(tmp_path: Path, service: str) -> None:
    text = f"services:\n  comfyui:\n    image: comfyui\n    {service}\n"
    (tmp_path / "docker-compose.yml").write_text(text)
    (found,) = start_scripts.find([tmp_path], tmp_path)
    assert found.words == ("--fast", "--port", "1")


def test_what_comfy_launch_adds_counts_for_its_own_workspace(tmp_path: Path) -> None:
    settings = tmp_path / ".config" / "comfy-cli" / "config.ini"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        f"[DEFAULT]\ndefault_workspace = {tmp_path}/ComfyUI\n"
        "default_launch_extras = --listen --port 8200\n"
    )
    (found,) = start_scripts.find([tmp_path / "ComfyUI"], tmp_path)
    assert found.words == ("--listen", "--port", "8200")
    assert start_scripts.find([tmp_path / "Other"], tmp_path) == []
