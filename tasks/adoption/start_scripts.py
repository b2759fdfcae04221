"""How somebody starts their ComfyUI: the line of a script, a unit or a compose file that runs
main.py. Nothing is run; a script that computes its arguments is only read as far as its plain
assignments go.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from ..host.system import files
from ..imports.model_paths import SECRET

SCRIPTS = ("*.sh", "*.bat", "*.cmd", "*.service")
COMPOSE = ("compose.y*ml", "docker-compose.y*ml")
COMPOSE_ARGUMENTS = ("CLI_ARGS", "COMFYUI_ARGS", "COMMANDLINE_ARGS", "COMFY_ARGS")
"""Variables in which images of ComfyUI take its arguments."""
LONGEST = 1 << 20
"""Bytes of a script."""
MAIN = "main.py"
_SET = re.compile(r'^\s*(?:export\s+|set\s+)?"?([A-Za-z_]\w*)=(.*?)"?\s*$', re.I)
_UNIT_SET = re.compile(r'"?([A-Za-z_]\w*)=([^"]*)"?')
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*)(?::?-([^}]*))?\}|\$([A-Za-z_]\w*)|%([A-Za-z_]\w*)%")
_END = re.compile(r"&&|\|\||[;|&]|\d?>>?.*|<.*")
_ACTIVATED = re.compile(r"(?:source|\.|call)\s+(\S+)[/\\](?:bin|Scripts)[/\\]activate", re.I)


@dataclass(frozen=True)
class Start:
    """One way in which it is started."""

    file: Path
    words: tuple[str, ...]
    """What follows main.py."""
    python: str = ""
    """The Python that runs it, or the folder of its environment, as the script has it."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables that are set for it; a value may be a secret."""
    unknown: tuple[str, ...] = ()
    """Words that can't be known before it runs."""

    @property
    def on_cpu(self) -> bool:
        return "--cpu" in self.words


def find(folders: Sequence[Path], home: Path) -> list[Start]:
    """All that are found in these folders and among the user's units, the likeliest first: what
    runs in the background, then scripts; and one without --cpu before one with it."""
    comfyui = folders[0]
    found = [*_units(comfyui, home)]
    for folder in dict.fromkeys(folders):
        found += _composed(folder)
    for folder in dict.fromkeys(folders):
        found += [each for file in _matching(folder, SCRIPTS) for each in _scripted(file)]
    found += _comfy_cli(comfyui, home)
    return sorted(found, key=lambda start: start.on_cpu)


def parse(file: Path, text: str) -> Start | None:
    """The last line of a script that runs main.py, since what is tried first may be an update."""
    is_unit, is_batch = file.suffix == ".service", file.suffix in (".bat", ".cmd")
    assigned: dict[str, str] = {}
    exported: dict[str, str] = {}
    used: set[str] = set()
    activated, found = "", None
    for line in re.sub(r"[\\^]\r?\n" if is_batch else r"\\\r?\n", " ", text).splitlines():
        plain = line.strip()
        if plain.startswith(("#", "::", "rem ", "REM ", "echo ", "@REM ")):
            continue
        if match := _ACTIVATED.search(plain):
            activated = _expanded(match[1].strip("\"'"), assigned)[0]
        if is_unit and plain.startswith("Environment="):
            exported |= dict(_UNIT_SET.findall(plain.partition("=")[2]))
        elif match := _SET.match(plain) if MAIN not in plain else None:
            value = _expanded(match[2].strip().strip("\"'"), assigned)[0]
            assigned[match[1]] = value
            if is_batch or plain.startswith("export "):
                exported[match[1]] = value
        elif MAIN in plain:
            used |= {match[1] or match[3] or match[4] for match in _REFERENCE.finditer(plain)}
            found = _line(file, plain.partition("=")[2] if is_unit else plain, assigned) or found
    if found is None:
        return None
    variables = {name: value for name, value in exported.items() if name not in used}
    return Start(file, found.words, found.python or activated,
                 {**variables, **found.variables}, found.unknown)  # fmt: skip


def _line(file: Path, line: str, assigned: Mapping[str, str]) -> Start | None:
    """A line of a shell that runs main.py."""
    text, unknown = _expanded(line, assigned)
    # A backslash is a separator in a batch file, and in no path that we find anywhere else.
    words = _split(text.replace("\\", "/") if file.suffix in (".bat", ".cmd") else text)
    at = next((n for n, word in enumerate(words) if word.rpartition("/")[2] == MAIN), None)
    if at is None:
        return None
    before, after = words[:at], words[at + 1 :]
    python = next((w for w in reversed(before) if re.search(r"python[\d.]*(\.exe)?$", w)), "")
    pairs = (word.partition("=") for word in before if re.match(r"\w+=", word))
    variables = {name: value for name, _, value in pairs}
    named = tuple(name for name in unknown if name in text.partition(MAIN)[2])
    words = [w for w in _until_its_end(after) if w not in ("$@", "$*", "%*") and w not in named]
    return Start(file, tuple(words), python if "/" in python else "", variables, named)


def _until_its_end(words: Sequence[str]) -> Iterator[str]:
    """The words of a command, without what a shell does after it or with its output."""
    for word in words:
        if _END.fullmatch(word):
            return
        yield word.rstrip(";&")
        if word.endswith((";", "&")):
            return


def _expanded(text: str, assigned: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """The text with what is assigned, and the references that stay."""
    left: list[str] = []

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[3] or match[4]
        if name in assigned and not SECRET.search(name):
            return assigned[name]
        if match[2] is not None:
            return match[2]
        left.append(match[0])
        return match[0]

    return _REFERENCE.sub(value, text), tuple(left)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        # An apostrophe in a batch file, or an open quote.
        return text.split()


def _scripted(file: Path) -> list[Start]:
    found = parse(file, text) if (text := _text(file)) else None
    return [found] if found else []


def _text(file: Path) -> str:
    """Empty for what can't be read or isn't a script's size."""
    try:
        return files.read_bytes(file).decode() if file.stat().st_size < LONGEST else ""
    except (OSError, ValueError):
        return ""


def _matching(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(path for path in folder.glob(pattern) if path.is_file())


def _units(comfyui: Path, home: Path) -> Iterator[Start]:
    """The units of systemd that name this folder."""
    for folder in (home / ".config/systemd/user", Path("/etc/systemd/system")):
        for file in _matching(folder, ("*.service",)):
            if str(comfyui) in _text(file):
                yield from _scripted(file)


def _comfy_cli(comfyui: Path, home: Path) -> Iterator[Start]:
    """What `comfy launch` adds, where this is comfy-cli's own installation (1.5)."""
    file = home / ".config/comfy-cli/config.ini"
    settings = configparser.ConfigParser(interpolation=None)
    try:
        settings.read_string(_text(file))
    except configparser.Error:
        return
    own = settings.defaults()
    extras = own.get("default_launch_extras", "")
    if extras and os.path.realpath(own.get("default_workspace", "")) == os.path.realpath(comfyui):
        yield Start(file, tuple(_split(extras)))


def _composed(folder: Path) -> Iterator[Start]:
    """The services of a compose file that run main.py, or an image that takes its arguments."""
    import yaml

    for file in _matching(folder, COMPOSE):
        try:
            document = yaml.safe_load(_text(file))
        except (yaml.YAMLError, ValueError, RecursionError):
            continue
        services = document.get("services") if isinstance(document, dict) else None
        for service in services.values() if isinstance(services, dict) else ():
            if isinstance(service, dict) and (found := _of_service(file, service)):
                yield found


def _of_service(file: Path, service: Mapping[str, Any]) -> Start | None:
    given = service.get("environment") or {}
    if isinstance(given, list):
        given = dict(str(each).partition("=")[::2] for each in given)
    variables = {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    command = service.get("command") or ""
    line = shlex.join(map(str, command)) if isinstance(command, list) else str(command)
    if MAIN in line and (found := _line(file, line, {})):
        return Start(file, found.words, "", variables, found.unknown)
    for name in COMPOSE_ARGUMENTS:
        if name in variables:
            words = tuple(_split(_expanded(variables.pop(name), {})[0]))
            return Start(file, words, "", variables)
    return None


def place(text: str, base: Path) -> Path:
    """A path of a script, which may be one of Windows, below this folder if it is relative."""
    plain = PureWindowsPath(text).as_posix() if "\\" in text else text
    return Path(os.path.normpath(base / os.path.expanduser(plain)))  # noqa: PTH111
