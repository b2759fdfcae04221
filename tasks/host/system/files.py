"""Files that are written whole or not at all: receipts, links, digests, trees."""

from __future__ import annotations

import ctypes
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
"""Bytes of a file that is read at once; no receipt is that long."""


def digest(value: object) -> str:
    """A short digest of a JSON-like value: the first 16 hex digits of its sha256."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str | None:
    """sha256 of a file; None: there is no file."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    return total.hexdigest()


def open_regular(path: Path) -> IO[bytes]:
    """Open a file for reading. Raises OSError if it isn't a regular file: opening a pipe waits for
    a writer, and a device may be endless."""
    opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(opened).st_mode
    if not stat.S_ISREG(mode):
        os.close(opened)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(opened, "rb")


def read_bytes(path: Path) -> bytes:
    """A file's content. Raises OSError, also when it is longer than LONGEST."""
    with open_regular(path) as file:
        content = file.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def write_text(path: Path, text: str, mode: int = 0o644, *, durable: bool = True) -> None:
    """Replace a file atomically: a reader sees the old content or the new, never a part.

    Creates the folder if it is missing. Without `durable` the write doesn't wait for the disk, and
    may be lost in a power failure. Raises OSError, UnicodeError.
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


def sync(path: Path) -> None:
    """Write the whole file system that `path` is on to its disk, in one call: 11,000 new files
    took 0.7 s, and one by one 1.0 s. Raises OSError.

    After a power cut a file that was not written has its name and no content.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(descriptor)


def _part(path: Path) -> Path:
    """This thread's temporary file for `path`; its name is short, whatever that of `path`."""
    return path.with_name(f".{os.getpid()}.{threading.get_ident()}.part")


def _create(part: Path, mode: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(part, flags, mode)
    except FileNotFoundError:
        part.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        # A killed process with the same ids left it, perhaps with another mode.
        part.unlink()
    return os.open(part, flags, mode)


def open_log(path: Path) -> IO[bytes]:
    """Open a log for appending and reading; a new one is for its owner only (0600).

    Raises OSError.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "ab+")


def empty_log(path: Path) -> None:
    """Create or empty a log, for its owner only (0600). Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_log(path) as log:
        os.fchmod(log.fileno(), 0o600)
        log.truncate(0)


def write_receipt(path: Path, receipt: dict[str, Any], *, durable: bool = True) -> None:
    """Write readable JSON; otherwise like `write_text`."""
    write_text(path, json.dumps(receipt, indent=1, sort_keys=True) + "\n", durable=durable)


def clear_way(path: Path) -> None:
    """Remove what damage put where a file is to be written: a folder in its place, or something
    else than a folder in its folder's. Raises OSError."""
    if not path.parent.is_dir():
        remove(path.parent)
    if path.is_dir():
        remove(path)


def in_the_way(place: Path, top: Path) -> Path | None:
    """What lies where `place` needs a folder below `top`; None: nothing."""
    above = place.relative_to(top).parents
    found = (top / each for each in [*above][-2::-1])
    return next((each for each in found if os.path.lexists(each) and not each.is_dir()), None)


def read_receipt(path: Path, **types: type) -> dict[str, Any]:
    """A receipt's content; `types` are the keys that it must have.

    A missing or damaged receipt is empty, so the work is done again.
    """
    try:
        value = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError):
        return {}
    is_valid = isinstance(value, dict) and all(
        isinstance(value.get(key), kind) for key, kind in types.items()
    )
    return value if is_valid else {}


def link_target(link: Path | str) -> str | None:
    """The text of a symbolic link; None: it isn't a link."""
    try:
        return os.readlink(link)  # noqa: PTH115  the text as written, not as a Path
    except OSError:
        return None


def real(path: Path) -> Path:
    """The path without links. A link to itself stays: Path.resolve() raises RuntimeError there."""
    return Path(os.path.realpath(path))


def point(link: Path, target: str | Path, mend: str = "move it away") -> None:
    """Point `link` at `target`, atomically. Raises Failure, which says how to `mend` it, if a real
    file or folder is there."""
    if link_target(link) == str(target):
        return
    if link.exists() and not link.is_symlink():
        raise Failure(f"{link} must be a link to {target}, but a file or folder is there: {mend}")
    link.parent.mkdir(parents=True, exist_ok=True)
    part = _part(link)
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def remove(path: Path) -> None:
    """Remove a file, a link (not its target) or a tree, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_make_writable)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def removed_on_failure(path: Path) -> Iterator[None]:
    """Remove `path` before the body, and again if it fails; create its folder."""
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        remove(path)
        raise


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """The temporary path of a file or folder that the body creates and that then replaces `target`.

    If the body fails, the temporary path is removed and `target` is unchanged. What it made is on
    the disk before it has its name.
    """
    part = target.with_name(f".{target.name}.part")
    with removed_on_failure(part):
        yield part
        sync(part)
        replace(part, target)


def replace(path: Path, target: Path) -> None:
    """Rename a file or folder to `target`, replacing what is there."""
    # rename(2) replaces a folder only by a folder, and only an empty one.
    if path.is_dir() or (target.is_dir() and not target.is_symlink()):
        remove(target)
    path.replace(target)


def _make_writable(function: Any, path: str, error: Any) -> None:
    """Some packages contain read-only folders, at which rmtree stops; others lost their mode."""
    if isinstance(error[1], FileNotFoundError):
        return
    Path(path).parent.chmod(0o700)
    if function in (os.unlink, os.rmdir):
        function(path)
    elif stat.S_IMODE(os.lstat(path).st_mode) & stat.S_IRWXU == stat.S_IRWXU:
        raise error[1]
    else:
        # It could not be opened or listed.
        Path(path).chmod(0o700)
        shutil.rmtree(path, onerror=_make_writable)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file or link with its time, without a subprocess: fast for many small files.

    Raises OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a tree with its links and times, by reflinks where the file system has them.

    Raises OSError, of which `strerror` is cp's first complaint.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["cp", "-a", "--reflink=auto", "--", str(source), str(target)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    if done.returncode:
        is_full = shutil.disk_usage(target.parent).free == 0
        why = done.stderr.decode(errors="replace").partition("\n")[0].removeprefix("cp: ")
        raise OSError(errno.ENOSPC if is_full else errno.EIO, why, str(source))


def walk(top: Path, skip: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Every file and link below `top`, sorted, relative to it.

    Leaves out bytecode, `.git`, and the names in `skip` directly below `top`.
    """
    for folder, folders, files in os.walk(top):
        here = Path(folder)
        excluded = {BYTECODE, ".git"} | (skip if here == top else frozenset())
        linked = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(set(folders) - excluded - set(linked))
        for name in sorted({*files, *linked} - excluded):
            if not name.endswith((".pyc", ".pyo")):
                yield (here / name).relative_to(top)


def tree_digest(top: Path, names: Iterable[Path]) -> str:
    """sha256 over the names, executable bits and contents of files below `top`."""
    total = hashlib.sha256()
    for relative in names:
        path = top / relative
        target = link_target(path)
        content = target if target is not None else file_digest(path)
        executable = target is None and os.access(path, os.X_OK)
        total.update(os.fsencode(f"{relative}\0{content}\0{executable}\0"))
    return total.hexdigest()
