"""An archive as a commit in git's cache, so that all that works with checkouts works with it.

git writes the files into its own objects, so nothing is unpacked outside of a repository, whatever
an archive names. Author and date are fixed: the same content gives the same commit.
"""

from __future__ import annotations

import stat
import subprocess
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ...spec.problems import has_control, shown
from ..system.failure import Failure
from ..system.units import size
from . import git

if TYPE_CHECKING:
    from git import Git

MOST_FILES = 50_000
LARGEST = 4 << 30
"""Bytes of all files, unpacked."""
BLOCK = 1 << 20
REF = "refs/comfy-machine/archive"


def write(repository: Git, archive: Path, label: str) -> str:
    """Make a commit of an archive's files in a bare repository, and return it.

    Raises Failure for an archive that is damaged, too large, or names what isn't a plain file
    inside; `label` begins its message.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            commit = _import(repository, opened, _members(opened, label))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Failure(f"{label}: its archive is damaged: {error}") from None
    except (NotImplementedError, RuntimeError) as error:
        raise Failure(f"{label}: its archive can't be read: {error}") from None
    except git.error_type() as error:
        raise Failure(f"{label}: git can't keep its archive: {git.gist(error)}") from error
    repository.update_ref("-d", REF)
    return commit


def _members(opened: zipfile.ZipFile, label: str) -> list[zipfile.ZipInfo]:
    """The files of an archive, sorted by name. Raises Failure."""
    found = [each for each in opened.infolist() if not each.is_dir()]
    total = sum(each.file_size for each in found)
    if len(found) > MOST_FILES or total > LARGEST:
        raise Failure(
            f"{label}: its archive is refused: it has {len(found)} files of {size(total)}, and at "
            f"most {MOST_FILES} of {size(LARGEST)} are allowed"
        )
    names = [each.filename for each in found]
    for each in found:
        if problem := _problem(each):
            raise Failure(f"{label}: its archive is refused: {shown(each.filename)} {problem}")
    for name in _clashing(names):
        raise Failure(f"{label}: its archive is refused: {shown(name)} is in it twice")
    if not found:
        raise Failure(f"{label}: its archive is empty")
    return sorted(found, key=lambda each: each.filename)


def _problem(member: zipfile.ZipInfo) -> str | None:
    """Why a file of an archive can't be one of a custom node."""
    parts = member.filename.split("/")
    if member.filename.startswith("/") or ".." in parts:
        return "lies outside of it"
    if "" in parts or "." in parts or "\\" in member.filename or has_control(member.filename):
        return "isn't a name of a file"
    if any(part.casefold() == ".git" for part in parts):
        return "belongs to a git repository"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link" if kind == stat.S_IFLNK else "is no plain file"
    return "is encrypted" if member.flag_bits & 1 else None


def _clashing(names: Sequence[str]) -> Iterator[str]:
    """Names that are there twice, or are a folder of others too."""
    folders = {name[:at] for name in names for at in range(len(name)) if name[at] == "/"}
    seen: set[str] = set()
    for name in names:
        if name in seen or name in folders:
            yield name
        seen.add(name)


def _import(repository: Git, opened: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> str:
    """https://git-scm.com/docs/git-fast-import#_input_format. Raises what zipfile does."""
    work: Any = repository.fast_import(
        "--quiet", "--force", "--done", as_process=True, istream=subprocess.PIPE, with_stdout=False
    )
    try:
        _send(work.stdin, opened, members)
        work.stdin.close()
    except BrokenPipeError:
        pass  # Its own message says why it ended.
    except BaseException:
        work.proc.kill()
        raise
    work.wait()
    return str(repository.rev_parse("--verify", REF))


def _send(stream: IO[bytes], opened: zipfile.ZipFile, members: list[zipfile.ZipInfo]) -> None:
    who, message = f"comfy-machine <{git.SNAPSHOTS}> {git.SNAPSHOT_TIME} +0000", b"content"
    stream.write(f"commit {REF}\nauthor {who}\ncommitter {who}\n".encode())
    stream.write(b"data %d\n%s\n" % (len(message), message))
    for each in members:
        mode = "100755" if each.external_attr >> 16 & stat.S_IXUSR else "100644"
        stream.write(f"M {mode} inline {_quoted(each.filename)}\n".encode())
        stream.write(b"data %d\n" % each.file_size)
        left = each.file_size
        with opened.open(each) as content:
            while block := content.read(BLOCK):
                left -= len(block)
                stream.write(block)
        if left:
            raise zipfile.BadZipFile(f"{each.filename} is shorter than it says")
        stream.write(b"\n")
    stream.write(b"done\n")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '\\"') + '"'
