"""Overrides of machine.yaml from `.env.local` and the process environment, which wins."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .checks import entries, node_name
from .problems import Loc, Problem, did_you_mean, shown
from .urls import parse_remote, repository_name, same_repository

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r"=\s*['\"]")


@dataclass(frozen=True)
class Origin:
    """Where a variable was set."""

    file: str
    line: int | None
    name: str

    def problem(self, message: str) -> Problem:
        return Problem(self.file, self.line, self.name, message)


@dataclass
class Environment:
    """The merged variables, where each was set, and their problems."""

    values: dict[str, str] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def get(self, name: str) -> str | None:
        """A variable's value; None when unset or empty."""
        return self.values.get(name, "").strip() or None


@dataclass
class Applied:
    """A machine file's data with the overrides applied."""

    data: dict[Any, Any]
    origins: dict[Loc, Origin]
    enabled: bool
    selected: tuple[str, ...] | None
    problems: list[Problem]


def read_environment(folder: Path, environ: Mapping[str, str]) -> Environment:
    """Merge `.env.local` of a folder with the process environment, which wins."""
    environment = Environment()
    file = folder / ".env.local"
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        text = ""
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        environment.problems.append(Problem(".env.local", None, "", f"can't be read: {why}"))
        text = ""
    if text:
        _read_local(environment, text)
    for name, value in environ.items():
        environment.values[name] = value
        environment.origins[name] = Origin("environment", None, name)
    return environment


def _read_local(environment: Environment, text: str) -> None:
    from dotenv.parser import parse_stream

    for binding in parse_stream(io.StringIO(text)):
        written = binding.original.string
        # A binding begins with the blank lines above it.
        number = binding.original.line + written[: -len(written.lstrip()) or None].count("\n")
        name, value = binding.key or "", binding.value
        if value is not None and _NAME.fullmatch(name):
            environment.values[name] = value
            environment.origins[name] = Origin(".env.local", number, name)
        elif name or binding.error:
            why = "the quote is never closed" if _QUOTED.search(written) else "write NAME=value"
            environment.problems.append(Problem(".env.local", number, "", why))


def _integer(text: str) -> Any:
    return int(text) if re.fullmatch(r"0|-?[1-9]\d{0,8}", text) else text


def _boolean(text: str) -> Any:
    words = dict.fromkeys(["true", "1", "yes", "on"], True)
    words |= dict.fromkeys(["false", "0", "no", "off"], False)
    return words.get(text.lower(), text)


_FIELDS: dict[str, tuple[Loc, Callable[[str], Any]]] = {
    "WORKSPACE_PATH": (("workspace",), str),
    "COMFYUI_REPO": (("comfyui", "repo"), str),
    "COMFYUI_INSTALL_PATH": (("comfyui", "install_path"), str),
    "COMFYUI_MODELS_PATH": (("models", "folder"), str),
    "NUM_GPUS": (("instances", "gpus"), _integer),
    "COMFYUI_CPU_ONLY": (("instances", "cpu_only"), _boolean),
    "COMFYUI_PORT_START": (("instances", "port_start"), _integer),
    "COMFYUI_LISTEN": (("instances", "listen"), str),
    "HEALTH_LISTEN": (("health", "listen"), str),
    "COMFYUI_REGISTRY": (("registry", "url"), str),
}

TOKEN = "HEALTH_TOKEN"


def apply(data: dict[Any, Any], environment: Environment) -> Applied:
    """A copy of the data with every override applied."""
    applied = Applied(dict(data), {}, True, None, [])
    for name, (loc, parse) in _FIELDS.items():
        text = environment.get(name)
        if text is not None:
            _put(applied.data, loc, parse(text))
            applied.origins[loc] = environment.origins[name]
    if environment.get(TOKEN) is not None:
        _ask_for_token(applied, environment.origins[TOKEN])
    if ("comfyui", "repo") in applied.origins:
        _replace_repository(applied.data["comfyui"])
    _enable(applied, environment)
    return applied


def _replace_repository(comfyui: dict[Any, Any]) -> None:
    """A repository from the environment replaces `path`, and `ref` if its URL names one."""
    comfyui.pop("path", None)
    try:
        if parse_remote(comfyui["repo"]).ref is not None:
            comfyui.pop("ref", None)
    except ValueError:
        pass  # The model reports it.


def _ask_for_token(applied: Applied, origin: Origin) -> None:
    """A set HEALTH_TOKEN becomes the token, unless the file names another variable."""
    health = applied.data.get("health")
    if not (isinstance(health, dict) and health.get("token")):
        _put(applied.data, ("health", "token"), f"${{{TOKEN}}}")
        applied.origins["health", "token"] = origin


def _put(data: dict[Any, Any], loc: Loc, value: Any) -> None:
    *sections, last = loc
    for name in sections:
        inner = data.get(name)
        data[name] = dict(inner) if isinstance(inner, dict) else {}
        data = data[name]
    data[last] = value


def _enable(applied: Applied, environment: Environment) -> None:
    text = environment.get("ENABLE_COMFYUI")
    if text is None:
        return
    value = _boolean(text)
    if isinstance(value, bool):
        applied.enabled = value
    else:
        origin = environment.origins["ENABLE_COMFYUI"]
        applied.problems.append(origin.problem("must be true or false"))


def select(applied: Applied, environment: Environment) -> None:
    """Apply COMFYUI_CUSTOM_NODES: names select declared nodes, URLs add nodes."""
    text = environment.get("COMFYUI_CUSTOM_NODES")
    if text is None:
        return
    origin = environment.origins["COMFYUI_CUSTOM_NODES"]
    declared = _declared(applied.data)
    names: list[str] = []
    added: list[str] = []
    selects = False
    for item in filter(None, (part.strip() for part in text.split(","))):
        if "/" in item or ":" in item:
            _add(applied, origin, item, declared, added)
            continue
        selects = True
        by_folded = {name.casefold(): name for name in declared}
        if name := by_folded.get(item.casefold()):
            names.append(name)
        else:
            hint = did_you_mean(item, declared) or "; give a declared name or a git URL"
            message = f"no custom node is named {shown(item)!r}{hint}"
            applied.problems.append(origin.problem(message))
    if selects:
        applied.selected = tuple(dict.fromkeys(names + added))


def _add(
    applied: Applied, origin: Origin, item: str, declared: dict[str, str | None], added: list[str]
) -> None:
    try:
        remote = parse_remote(item)
    except ValueError as error:
        applied.problems.append(origin.problem(str(error)))
        return
    for name, url in declared.items():
        if url is not None and same_repository(url, remote.url):
            added.append(name)
            return
    nodes = applied.data.get("custom_nodes")
    nodes = list(nodes) if isinstance(nodes, list) else []
    applied.origins[("custom_nodes", len(nodes))] = origin
    applied.data["custom_nodes"] = [*nodes, {"url": item}]
    name = repository_name(remote.url)
    declared.setdefault(name, remote.url)
    added.append(name)


def _declared(data: dict[Any, Any]) -> dict[str, str | None]:
    """Name → normalised URL (None for a path) of every valid custom node."""
    found: dict[str, str | None] = {}
    for _, node in entries(data, "custom_nodes"):
        name = node_name(node)
        if name is None:
            continue
        try:
            found[name] = parse_remote(node["url"]).url
        except (KeyError, ValueError, AttributeError):
            found[name] = None
    return found
