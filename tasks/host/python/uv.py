"""Python environments, made and filled by uv."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..system import process


def binary() -> Path:
    """The uv that was installed with this project. Raises FileNotFoundError."""
    from uv import find_uv_bin

    return Path(find_uv_bin())


def environment() -> dict[str, str]:
    """What uv and its builds may see; it never downloads an interpreter (from GitHub).

    It copies, by reflinks where the file system has them: `clone`, its own way, makes hard links to
    its cache where it has not (seen with 0.13).
    """
    return process.allowed_environment(os.environ, installer=True) | {
        "UV_LINK_MODE": "copy",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }


def make_environment(folder: Path, python: Path, log: Path, *, see_base: bool = False) -> None:
    """Make `folder` a relocatable virtual environment of the interpreter `python`.

    With `see_base` what the interpreter has of its own can be imported too.
    """
    argv = [binary(), "venv", "--relocatable", "--no-project", "--python", python, folder]
    if see_base:
        argv.append("--system-site-packages")
    process.run(argv, env=environment(), log=log)


def resolve(
    pylock: Path, arguments: Sequence[str | Path], places: Mapping[str, str], log: Path
) -> None:
    """Resolve what `arguments` ask for into `pylock`; what stands there already is preferred.

    The set fits every patch release of this Python: an image's is seldom the one that locks.
    `places` are the variables of `indexes`. Raises CommandFailed with uv's explanation as its
    output.
    """
    _compile(["--format", "pylock.toml", "--output-file", pylock, *arguments], places, log)


def explain(
    file: Path, arguments: Sequence[str | Path], places: Mapping[str, str], log: Path
) -> None:
    """Write what `arguments` resolve to into `file`, each with who asks for it: `a==1  # via b`."""
    style = ("--format", "requirements.txt", "--annotation-style", "line")
    _compile([*style, "--output-file", file, *arguments], places, log)


def _compile(words: Sequence[str | Path], places: Mapping[str, str], log: Path) -> None:
    argv = [binary(), "pip", "compile", "--quiet", "--no-header", "--python", sys.executable,
            "--python-version", "{}.{}".format(*sys.version_info), *words]  # fmt: skip
    process.run(argv, env={**environment(), **places}, log=log)


def sync(
    folder: Path, requirements: Path, backend: Sequence[str], places: Mapping[str, str], log: Path
) -> None:
    """Install exactly what the file lists into `folder`, checked by hash; the rest goes."""
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
    """Install what the file lists into `folder`, checked by hash, and nothing for it.

    What is there as it is listed stays, unless it is to be installed `anew`. Without `cached`
    everything is downloaded.
    """
    again = [word for name in sorted(anew) for word in ("--reinstall-package", name)]
    words: list[str | Path] = [
        "install",
        "--no-deps",
        "--requirements",
        requirements,
        *backend,
        *again,
    ]
    _install(folder, [*words, *([] if cached else ["--no-cache"])], places, log)


def forget(names: Collection[str], log: Path) -> None:
    """Have the cache drop what it holds of these packages."""
    process.run([binary(), "cache", "clean", *sorted(names)], env=environment(), log=log)


def build(
    folder: Path, requirements: Path, backend: Sequence[str], places: Mapping[str, str], log: Path
) -> None:
    """Build what the file lists, and nothing for it, into uv's cache, from where it is installed.

    `folder` is made for it and may go. Raises CommandFailed with the build's log as its output.
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
    """From the cache alone if that has everything: an index that is down is then no matter."""
    argv = [binary(), "pip", words[0], "--python", folder / "bin" / "python", *words[1:]]
    env = {**environment(), **places}
    try:
        process.run([*argv, "--offline"], env=env, log=log)
    except process.CommandFailed:
        process.run(argv, env=env, log=log)


def site_packages(folder: Path) -> Path:
    """The environment's site-packages. Raises FileNotFoundError if it has none."""
    for path in sorted((folder / "lib").glob("python3.*/site-packages")):
        return path
    raise FileNotFoundError(folder / "lib" / "python3.*" / "site-packages")
