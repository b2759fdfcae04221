"""What adopt writes of an installation: machine.yaml's contents, machine.lock, and a summary."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...adoption import python_packages
from ...adoption.findings import Findings
from ...adoption.origins import Origin
from ...adoption.python_packages import Installed
from ...host.comfyui.installations import Checkout
from ...imports.entries import Line, ModelFile, Node
from ...spec import Lock, Package, Pin
from ...spec.problems import shown
from ...spec.urls import refuse_url_credentials, repository_name
from .new_machine_file import Contents

WIDE = 300
"""Characters of a path or a name in a comment."""


def contents(found: Findings, digests: Mapping[Path, str]) -> Contents:
    """What goes into machine.yaml; `digests` are the sha256 of files, as far as they are known."""
    comfyui, arguments = found.comfyui, found.arguments
    torch, torch_notes = _torch(found)
    packages, left_packages = _packages(found)
    written = Contents(
        found=shown(str(comfyui.folder), WIDE),
        comfyui_path=str(comfyui.folder) if comfyui.is_folder else "",
        comfyui_notes=comfyui.notes,
        torch=torch,
        torch_notes=torch_notes,
        packages=packages,
        nodes=[_node(each) for each in found.nodes],
        files=[
            ModelFile(each.target, source=str(each.source), sha256=digests.get(each.real, ""))
            for each in found.inventory.models.values()
        ],
        gpus=arguments.gpus,
        cpu_only=arguments.cpu,
        args=arguments.args,
        args_notes=[shown(line, WIDE) for line in _start(found)],
        user=str(found.user or ""),
        left_out=[shown(line, WIDE) for line in (*_left_out(found), *left_packages)],
    )
    if comfyui.url:
        written = replace(written, comfyui=Checkout("", comfyui.url, comfyui.ref))
    if arguments.listen:
        written = replace(written, listen=arguments.listen)
    return replace(written, port=arguments.port) if arguments.port else written


def lock(found: Findings) -> Lock:
    """The commits, and the installed packages as preferences."""
    pins = {each.name: pin for each in found.nodes if (pin := _pin(each))}
    preferred = dict(_preferred(found)[0])
    return Lock(comfyui=_pin(found.comfyui), custom_nodes=pins, preferred=preferred)


def summary(found: Findings, written: Contents) -> Iterator[str]:
    comfyui, environment = found.comfyui, found.environment
    what = "copied as it is" if comfyui.is_folder else comfyui.ref[:12]
    yield f"ComfyUI {what}, in {comfyui.folder}"
    for each in (comfyui, *found.nodes):
        if each.edits:
            names = ", ".join(each.edits)
            yield f"edited, and without the edits here: {shown(f'{each.name}: {names}', WIDE)}"
    folders = sum(each.is_folder for each in found.nodes)
    linked = f", {folders} of them linked" if folders else ""
    yield f"{_counted(len(found.nodes), 'custom node')}{linked}"
    if environment:
        kept = len(_preferred(found)[0])
        yield f"{_counted(kept, 'package')} of {environment.folder} to be preferred"
    else:
        yield "no Python of it is found: name it with --python, and its packages are preferred"
    yield f"{_counted(len(written.files), 'model')}{', linked' if written.files else ''}"
    if found.start:
        yield f"arguments of {found.start.file}"
    if found.user:
        yield f"settings and workflows of {found.user}"
    if lines := [*written.missing, *written.left_out]:
        yield "not taken over:"
        yield from (f"  {line}" for line in lines)


def _pin(origin: Origin) -> Pin | None:
    if not (origin.url and origin.commit):
        return None
    return Pin(url=origin.url, ref=origin.ref, commit=origin.commit)


def _node(origin: Origin) -> Node:
    notes = [shown(line, WIDE) for line in origin.notes]
    if (origin.folder / "install.py").is_file() and not origin.is_folder:
        notes.append("It has an install.py: add script: python install.py if it needs that.")
    if origin.id:
        name = origin.name if origin.name != origin.id else ""
        return Node(id=origin.id, version=origin.version, name=name, notes=notes)
    if origin.url:
        name = origin.name if origin.name != repository_name(origin.url) else ""
        return Node(url=origin.url, ref=origin.ref, name=name, notes=notes)
    name = origin.name if origin.name != origin.folder.name else ""
    return Node(path=str(origin.folder), name=name, notes=notes)


def _torch(found: Findings) -> tuple[str, Sequence[str]]:
    """python.torch, and what to say of it."""
    packages = found.environment.packages if found.environment else {}
    torch = packages.get("torch")
    if torch is None:
        return "", ()
    has = f"It has torch {shown(torch.version, 60)}"
    build = python_packages.torch_build(packages)
    if not build:
        return "", (f"{has}, a build that no index offers: another one is chosen.",)
    if build.startswith(("rocm", "xpu")) and not found.arguments.cpu:
        return "", (f"{has}, for other GPUs than NVIDIA's: another build is chosen.",)
    return build, (f"{has}.",)


def _preferred(found: Findings) -> tuple[Mapping[str, Package], Sequence[str]]:
    if found.environment is None:
        return {}, ()
    return python_packages.preferences(found.environment.packages)


def _packages(found: Findings) -> tuple[list[Line], list[str]]:
    """What was installed by name without being required by anything: there was a reason for it."""
    lines, left = [], []
    packages = found.environment.packages if found.environment else {}
    for each in python_packages.by_hand(packages, found.required):
        text, why = _requirement(each)
        if why:
            left.append(f"the package {each.name} {each.version}: {why}")
        else:
            lines.append(Line(text, ["Installed by itself: nothing else requires it."]))
    return lines, left


def _requirement(package: Installed) -> tuple[str, str]:
    """Its line, and why it can't have one."""
    if package.is_local:
        return "", "built from a folder or file there; put its wheel into python.find_links"
    if "+" in package.version and not package.url:
        return "", "a build of its own; put its wheel or page into python.find_links"
    try:
        refuse_url_credentials(str(package.origin.get("url", "")))
    except ValueError:
        return "", "its address holds credentials, which are kept in ~/.netrc"
    if package.repository:
        url, commit = package.repository
        return f"{package.name} @ git+{url}@{commit}", ""
    return f"{package.name} @ {package.url}" if package.url else package.name, ""


def _start(found: Findings) -> Iterator[str]:
    """What is known of how it is started."""
    start = found.start
    if start is None:
        yield "No start script is found."
        return
    yield f"As in {start.file}."
    if found.other_starts:
        yield f"There are others: {', '.join(path.name for path in found.other_starts)}."


def _left_out(found: Findings) -> Iterator[str]:
    for argument, why in found.arguments.left_out.items():
        yield f"{argument}: {why}"
    if start := found.start:
        if start.variables:
            names = ", ".join(sorted(start.variables))
            yield f"set in {start.file.name}: {names}; see instances.env"
        if start.unknown:
            yield f"in {start.file.name}, known only when it runs: {', '.join(start.unknown)}"
    yield from found.left_out
    yield from found.inventory.left_out
    if found.inputs:
        yield f"{_counted(found.inputs, 'file')} in the input folder; inputs are in shared/inputs"
    if others := _preferred(found)[1]:
        have = f"{sys.version_info.major}.{sys.version_info.minor}"
        python = found.environment.python if found.environment else ""
        named = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        yield (
            f"the versions of {named}: their files are for Python {python or '(not known)'}, this "
            f"is {have} on {sysconfig.get_platform()}"
        )


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
