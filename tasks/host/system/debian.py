"""Debian's and Ubuntu's packages: which one provides a missing library or program.

A library's package is named after its soname (Debian Policy 8.1). Names differ between releases, so
apt's lists, where this system has them, decide whether a package exists.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

LISTS = Path("/var/lib/apt/lists")
"""Absent in most container images."""
OS_RELEASE = Path("/etc/os-release")
TIMEOUT = 20.0
"""Seconds for apt-cache; it takes 2 with a cold disk."""
#: Packages that are not named after the soname; Debian's and Ubuntu's where those differ.
LIBRARIES = {
    "libz.so.1": ("zlib1g",),
    "libjpeg.so.62": ("libjpeg62-turbo",),
    "libjpeg.so.8": ("libjpeg-turbo8",),
    "libGLU.so.1": ("libglu1-mesa",),
    "libOpenCL.so.1": ("ocl-icd-libopencl1",),
    "libjack.so.0": ("libjack-jackd2-0",),
    "libze_loader.so.1": ("libze1",),
    "libtcmalloc.so.4": ("libgoogle-perftools4",),
    "libmysqlclient.so.21": ("libmysqlclient21",),
    **dict.fromkeys(
        (f"lib{part}-2.0.so.0" for part in ("glib", "gthread", "gobject", "gio", "gmodule")),
        ("libglib2.0-0",),
    ),
}
#: Programs whose package has another name.
PROGRAMS = {
    "ffprobe": "ffmpeg",
    "ffplay": "ffmpeg",
    "node": "nodejs",
    "convert": "imagemagick",
    "magick": "imagemagick",
    "identify": "imagemagick",
    "7z": "p7zip-full",
    "exiftool": "libimage-exiftool-perl",
    "Xvfb": "xvfb",
    "xvfb-run": "xvfb",
    "cc": "build-essential",
    "c++": "build-essential",
    "pdftoppm": "poppler-utils",
    "rsvg-convert": "librsvg2-bin",
    "nvcc": "nvidia-cuda-toolkit",
}
_SONAME = re.compile(r"(?P<name>lib[\w.+-]+?)\.so(?:\.(?P<version>[\w.]+))?")
_PYTHON = re.compile(r"libpython(\d+\.\d+)")


def package_of_library(soname: str) -> str | None:
    """The package of a shared library; None: not known, or not a Debian system."""
    return _first_existing(library_candidates(soname))


def package_of_program(name: str) -> str | None:
    """The package of a program; None: not known, or not a Debian system."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
        return None
    package = PROGRAMS.get(name, name.lower().replace("_", "-"))
    # Without apt's lists, a package of the same name may not exist or be unrelated.
    is_certain = name in PROGRAMS or name == "ffmpeg"
    return _first_existing([package]) if is_certain or _has_lists() else None


def library_candidates(soname: str) -> list[str]:
    """Possible names of a shared library's package, the likeliest first."""
    if soname in LIBRARIES:
        named = list(LIBRARIES[soname])
    elif python := _PYTHON.match(soname):
        named = [f"libpython{python[1]}"]
    elif found := _SONAME.fullmatch(soname):
        name, version = found["name"].lower().replace("_", "-"), found["version"] or ""
        named = [name + ("-" if version and name[-1].isdigit() else "") + version]
        # libgstreamer-1.0.so.0 is in libgstreamer1.0-0.
        if bare := re.sub(r"-(?=\d+(\.\d+)*$)", "", name):
            named += [f"{bare}-{version}"] if bare != name and version else []
    else:
        return []
    # Since the 64-bit time_t of 2024 many packages have this suffix, and provide the old name.
    return [name + ending for name in named for ending in ("", "t64")]


def is_debian() -> bool:
    """Whether this is Debian or a derivative of it."""
    try:
        text = OS_RELEASE.read_text(errors="replace")
    except OSError:
        return False
    kinds = re.findall(r"^ID(?:_LIKE)?=\"?([\w. -]*)", text, re.M)
    return not {"debian", "ubuntu"}.isdisjoint(" ".join(kinds).split())


def _first_existing(candidates: Iterable[str]) -> str | None:
    """The first candidate that apt knows; without apt's lists the first of all."""
    names = tuple(candidates)
    if not names or not is_debian():
        return None
    if not _has_lists():
        return names[0]
    known = _known(names)
    return next((name for name in names if name in known), None)


def _has_lists() -> bool:
    return any(LISTS.glob("*_Packages*")) and shutil.which("apt-cache") is not None


@functools.cache
def _known(names: tuple[str, ...]) -> frozenset[str]:
    """The packages that are in apt's lists. Cached: this takes seconds."""
    try:
        result = subprocess.run(
            ["apt-cache", "show", "--no-all-versions", *names],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return frozenset(names[:1])
    return frozenset(re.findall(r"^Package: (\S+)$", result.stdout, re.M))
