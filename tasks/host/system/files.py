"""Files that are whole or not there: receipts, links, digests, trees."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .failure import Failure

BYTECODE = "__pycache__"
LONGEST = 64 << 20
"""Bytes of a file that is read whole; no receipt has as many."""


def digest(value: object) -> str:
    """A short name for JSON-like `value`: the first 16 hex digits of its sha256."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str | None:
    """sha256 of a file, None if it isn't there."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return total.hexdigest()


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading. Raises OSError when it can't be, or is no regular file: to open a
    pipe waits for whoever writes into it, and a device may never come to its end."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return file


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises OSError when it can't be read or is longer than LONGEST."""
    with open_regular(path) as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def write_text(path: Path, text: str, mode: int = 0o644, *, durable: bool = True) -> None:
    """Write beside and replace: a reader sees the old file or the new one, never half of it.

    Makes the folder when it is missing. What isn't `durable` may be lost with the machine's power,
    and costs no wait for the disk. Raises OSError, UnicodeError.
    """
    part = _part(path)
    try:
        with os.fdopen(_create(part, mode), "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _part(path: Path) -> Path:
    """Where this thread writes what replaces `path`; its own name may be as long as one can be."""
    return path.with_name(f".{os.getpid()}.{threading.get_ident()}.part")


def _create(part: Path, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(part, flags, mode)
    except FileNotFoundError:
        part.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        # Left by a killed process that had our numbers; its mode may be another.
        part.unlink()
    return os.open(part, flags, mode)


def write_receipt(path: Path, receipt: dict[str, Any], *, durable: bool = True) -> None:
    """`receipt` as JSON for people too; the rest as `write_text`."""
    write_text(path, json.dumps(receipt, indent=1, sort_keys=True) + "\n", durable=durable)


def read_receipt(path: Path, **types: type) -> dict[str, Any]:
    """A receipt's content; `types` says which keys it must have.

    A missing or damaged one reads as empty: do the work again.
    """
    try:
        value = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    whole = isinstance(value, dict) and all(
        isinstance(value.get(key), kind) for key, kind in types.items()
    )
    return value if whole else {}


def link_target(link: Path | str) -> str | None:
    """What a symbolic link says, None if there is no link."""
    try:
        return os.readlink(link)  # noqa: PTH115  the text as written, not a Path made of it
    except OSError:
        return None


def point(link: Path, target: str | Path) -> None:
    """Make `link` point at `target` in one step. A real file or folder in the way is a Failure."""
    if link_target(link) == str(target):
        return
    if link.exists() and not link.is_symlink():
        raise Failure(f"{link} is in the way: move it aside, a link to {target} belongs there")
    link.parent.mkdir(parents=True, exist_ok=True)
    part = _part(link)
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def remove(path: Path) -> None:
    """Remove a file, a link (never what it points to) or a tree; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_make_writable)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """Nothing is at `path` when the body begins, nor after it fails; its folder is made."""
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        remove(path)
        raise


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """The path beside `target` of a file or folder that the body makes, and that then replaces it.

    When the body fails, what it made is removed and `target` stays as it was.
    """
    part = target.with_name(f".{target.name}.part")
    with removed_on_failure(part):
        yield part
        replace(part, target)


def replace(path: Path, target: Path) -> None:
    """Rename a file or folder to `target`, in the place of what is there."""
    # rename(2) puts a folder in the place of an empty folder alone, and a file in that of none.
    if path.is_dir() or (target.is_dir() and not target.is_symlink()):
        remove(target)
    path.replace(target)


def _make_writable(function: Any, path: str, error: Any) -> None:
    """Some packages hold read-only folders, which rmtree stops at."""
    if isinstance(error[1], FileNotFoundError):
        return
    Path(path).parent.chmod(0o700)
    function(path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file or link, its time kept, without a process: for the many small ones of a source.

    Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree with links and times kept, by reflinks where the file system has them.

    Raises subprocess.CalledProcessError (disk full, …).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["cp", "-a", "--reflink=auto", "--", str(source), str(target)],
        check=True,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def walk(top: Path, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Every file and link below `top`, sorted, relative to it.

    Bytecode, `.git` and what `skip` names directly below `top` are left out.
    """
    for folder, folders, files in os.walk(top):
        here = Path(folder)
        away = {BYTECODE, ".git"} | (skip if here == top else frozenset())
        linked = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(set(folders) - away - set(linked))
        for name in sorted({*files, *linked} - away):
            if not name.endswith((".pyc", ".pyo")):
                yield (here / name).relative_to(top)


def tree_digest(top: Path, names: Iterable[Path]) -> str:
    """sha256 over the names, executable bits and contents of files below `top`."""
    total = hashlib.sha256()
    for relative in names:
        path = top / relative
        linked = link_target(path)
        what = linked if linked is not None else file_digest(path)
        executable = linked is None and os.access(path, os.X_OK)
        total.update(os.fsencode(f"{relative}\0{what}\0{executable}\0"))
    return total.hexdigest()
