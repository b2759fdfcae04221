"""uv's commands for Python environments."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..system import process


def binary() -> Path:
    """The uv that is installed with this project. Raises FileNotFoundError."""
    from uv import find_uv_bin

    return Path(find_uv_bin())


def environment() -> dict[str, str]:
    """The environment of uv and its builds. uv never downloads an interpreter.

    It copies files, as reflinks if the file system has them. Its default mode, `clone`, makes hard
    links to its cache if not (seen with 0.13).
    """
    return process.allowed_environment(os.environ, installer=True) | {
        "UV_LINK_MODE": "copy",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }


@cache
def torch_backends() -> frozenset[str]:
    """The torch builds that this uv knows, by its --help; empty: not known."""
    try:
        text = process.run([binary(), "pip", "compile", "--help"], env=environment())
    except process.CommandFailed:
        return frozenset()
    block = re.search(r"^ +--torch-backend .*?\[possible values: ([^]]*)\]", text, re.M | re.S)
    return frozenset(re.findall(r"[\w.]+", block[1])) if block else frozenset()


def make_environment(folder: Path, python: Path, log: Path, *, see_base: bool = False) -> None:
    """Make `folder` a relocatable virtual environment of the interpreter `python`.

    With `see_base`, the packages of the interpreter are importable too.
    """
    argv = [binary(), "venv", "--relocatable", "--no-project", "--python", python, folder]
    if see_base:
        argv.append("--system-site-packages")
    process.run(argv, env=environment(), log=log)


def resolve(
    pylock: Path, arguments: Sequence[str | Path], places: Mapping[str, str], log: Path
) -> None:
    """Resolve the requirements in `arguments` into `pylock`; prefers versions that it has.

    The result fits all patch releases of this Python, because an image's may differ. `places` are
    the variables of `indexes`. Raises CommandFailed with uv's explanation as its output.
    """
    _compile(["--format", "pylock.toml", "--output-file", pylock, *arguments], places, log)


def explain(
    file: Path, arguments: Sequence[str | Path], places: Mapping[str, str], log: Path
) -> None:
    """Resolve `arguments` into `file`, with the parents of each package: `a==1  # via b`."""
    style = ("--format", "requirements.txt", "--annotation-style", "line")
    _compile([*style, "--output-file", file, *arguments], places, log)


def _compile(words: Sequence[str | Path], places: Mapping[str, str], log: Path) -> None:
    argv = [binary(), "pip", "compile", "--quiet", "--no-header", "--python", sys.executable,
            "--python-version", "{}.{}".format(*sys.version_info), *words]  # fmt: skip
    process.run(argv, env={**environment(), **places}, log=log)


def sync(
    folder: Path, requirements: Path, backend: Sequence[str], places: Mapping[str, str], log: Path
) -> None:
    """Install exactly what the file lists into `folder`, checked by hash; remove other packages."""
    _install(folder, ["sync", requirements, *backend], places, log)


def install(
    folder: Path,
    requirements: Path,
    backend: Sequence[str],
    places: Mapping[str, str],
    log: Path,
    *,
    anew: Collection[str] = (),
    cached: bool = True,
) -> None:
    """Install what the file lists into `folder`, checked by hash, without dependencies.

    Listed packages that are installed already stay, except those to install `anew`. Without
    `cached`, everything is downloaded.
    """
    options = [word for name in sorted(anew) for word in ("--reinstall-package", name)]
    options += [] if cached else ["--no-cache"]
    words: list[str | Path] = ["install", "--no-deps", "--requirements", requirements]
    _install(folder, [*words, *backend, *options], places, log)


def cache_folder() -> Path:
    """The cache of this user, for all programs that use uv."""
    return Path(process.run([binary(), "cache", "dir"], env=environment()).strip())


def forget(names: Collection[str], log: Path) -> None:
    """Remove these packages from uv's cache."""
    process.run([binary(), "cache", "clean", *sorted(names)], env=environment(), log=log)


def build(
    folder: Path, requirements: Path, backend: Sequence[str], places: Mapping[str, str], log: Path
) -> None:
    """Build what the file lists, without dependencies, into uv's cache.

    `folder` receives an installation that isn't needed. Raises CommandFailed with the build's log
    as its output.
    """
    argv = [binary(), "pip", "install", "--no-deps", "--python", sys.executable,
            "--target", folder, "--requirements", requirements, *backend]  # fmt: skip
    process.run(argv, env={**environment(), **places}, log=log)


def uninstall(folder: Path, names: Sequence[str], log: Path) -> None:
    argv = [binary(), "pip", "uninstall", "--python", folder / "bin" / "python", *names]
    process.run(argv, env=environment(), log=log)


def _install(
    folder: Path, words: Sequence[str | Path], places: Mapping[str, str], log: Path
) -> None:
    """Install offline if the cache has everything, so that no index needs to be reachable."""
    argv = [binary(), "pip", words[0], "--python", folder / "bin" / "python", *words[1:]]
    env = {**environment(), **places}
    try:
        process.run([*argv, "--offline"], env=env, log=log)
    except process.CommandFailed:
        process.run(argv, env=env, log=log)
    with suppress(FileNotFoundError):
        # uv lets everyone write into it.
        (folder / ".lock").chmod(0o600)


def site_packages(folder: Path) -> Path:
    """The environment's site-packages. Raises FileNotFoundError if it has none."""
    for path in sorted((folder / "lib").glob("python3.*/site-packages")):
        return path
    raise FileNotFoundError(folder / "lib" / "python3.*" / "site-packages")
