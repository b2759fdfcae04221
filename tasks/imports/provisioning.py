"""vast.ai's provisioning manifest.

Source of the format: vast-ai/base-image, provisioner/schema.py and its examples, version 1 (2026).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ..spec.urls import parse_remote, repository_name
from .entries import Line, ModelFile, Node
from .values import below_models, expanded, mapping, text, texts
from .wanted import Wanted

SIGNS = frozenset(
    "git_repos pip_packages downloads conditional_downloads apt_packages extensions".split()
)
TORCH = re.compile(r"(torch|torchvision|torchaudio)\b", re.I)
MAIN = "main.py"
REQUIREMENTS = re.compile(r"\bpip\b.*\binstall\b.*\s-r\s+\S*requirements\S*\.txt")
"""What a run does by itself."""
ELSEWHERE = {
    "apt_packages": "install Debian packages in your image",
    "conda_packages": "packages come from Python's index here: name them in python.packages",
    "write_files": "write them in your image",
    "write_files_late": "write them in your image",
    "post_commands": "a custom node's script: runs a command, after it was installed",
    "env_merge": "models are named in models.files",
}
"""Parts that machine.yaml has no place for → why."""


def is_manifest(document: Any) -> bool:
    if not isinstance(document, dict) or document.get("version") != 1:
        return False
    return not SIGNS.isdisjoint(document)


def of_manifest(document: Mapping[str, Any]) -> Wanted:
    left_out: list[str] = []
    remarks: list[str] = []
    comfyui: tuple[str, str] | None = None
    nodes: list[Node] = []
    for each in map(mapping, _items(document, "git_repos")):
        url = text(each.get("url"))
        place = PurePosixPath(expanded(text(each.get("dest"))))
        ref = expanded(text(each.get("ref")))
        try:
            parse_remote(url)
        except ValueError as error:
            left_out.append(f"{url!r}: {error}")
            continue
        if place.parent.name == "custom_nodes":
            nodes.append(_node(each, url, ref, place.name))
        elif repository_name(url).casefold() == "comfyui":
            comfyui = (url, ref)
        else:
            left_out.append(f"{url} goes to {place}, which is no custom node")
    left_out += [f"{part}: {why}" for part, why in ELSEWHERE.items() if document.get(part)]
    left_out += _services(document)
    left_out += _workflows(document)
    return Wanted(
        comfyui=comfyui,
        nodes=nodes,
        packages=[*_packages(document, left_out, remarks)],
        models=[*_models(document, left_out)],
        args=_arguments(document, left_out),
        left_out=left_out,
        remarks=remarks,
    )


def _items(document: Mapping[str, Any], name: str) -> list[Any]:
    found = document.get(name)
    return found if isinstance(found, list) else [found] if isinstance(found, dict) else []


def _node(entry: Mapping[str, Any], url: str, ref: str, name: str) -> Node:
    commands = texts(entry.get("post_commands"))
    script = " && ".join(each for each in commands if not REQUIREMENTS.search(each))
    return Node(
        url=url,
        ref=ref,
        name="" if name == repository_name(url) else name,
        requirements=any(REQUIREMENTS.search(each) for each in commands),
        script=script,
    )


def _packages(
    document: Mapping[str, Any], left_out: list[str], remarks: list[str]
) -> Iterator[Line]:
    for block in map(mapping, _items(document, "pip_packages")):
        for package in texts(block.get("packages")):
            if TORCH.match(package):
                remarks.append(f"{package}: python.torch chooses it")
            else:
                yield Line(package)
        for file in texts(block.get("requirements")):
            left_out.append(f"the requirements in {file}: name them in python.packages")


def _models(document: Mapping[str, Any], left_out: list[str]) -> Iterator[ModelFile]:
    entries = [*map(mapping, _items(document, "downloads"))]
    for condition in map(mapping, _items(document, "conditional_downloads")):
        # Those for whoever has a token; a machine without one is told so, file by file.
        entries += map(mapping, _items(condition, "downloads"))
    for entry in entries:
        url, place = text(entry.get("url")), expanded(text(entry.get("dest")))
        target = below_models(place)
        if target and place.endswith("/"):
            name = PurePosixPath(url.partition("?")[0]).name
            target = f"{target}/{name}" if "." in name else ""
        if url and target and "." in PurePosixPath(target).name:
            yield ModelFile(target, url=url)
        else:
            why = "names no file below models/" if place else "has no dest"
            left_out.append(f"the download {url or '?'} {why}")


def _workflows(document: Mapping[str, Any]) -> Iterator[str]:
    for extension in map(mapping, _items(document, "extensions")):
        for address in texts(mapping(extension.get("config")).get("workflows")):
            yield f"the workflow {address}: give it to import as well"


def _arguments(document: Mapping[str, Any], left_out: list[str]) -> list[str]:
    """Of ComfyUI's main.py, as the service that runs it has them."""
    for service in map(mapping, _items(document, "services")):
        words = _words(service)
        if MAIN in words:
            return [*_known(words[words.index(MAIN) + 1 :], left_out)]
    return []


def _known(words: list[str], left_out: list[str]) -> Iterator[str]:
    """Without the arguments whose values are variables."""
    for number, word in enumerate(words):
        following = words[number + 1] if number + 1 < len(words) else ""
        if "$" in word:
            left_out.append(f"the argument {word}: what it is, only its machine knows")
        elif not (word.startswith("-") and "$" in following):
            yield word


def _services(document: Mapping[str, Any]) -> Iterator[str]:
    for service in map(mapping, _items(document, "services")):
        if MAIN not in _words(service):
            name = text(service.get("name"))
            yield f"the service {name or '?'}: what works for instances goes into workers"


def _words(service: Mapping[str, Any]) -> list[str]:
    try:
        return shlex.split(expanded(text(service.get("command"))))
    except ValueError:
        return []
