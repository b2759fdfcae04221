"""Finds in a package's build log what this system lacks.

Compilers and build tools report it in no other way. The Debian packages are those of bookworm and
Ubuntu 24.04; `apt-file`, if installed, knows others.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..system import process
from ..system.failure import Failure

Kind = Literal["header", "library", "program", "module"]

#: The first match wins: a missing header explains more than a failed compiler.
PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("header", r"fatal error: '?([\w./+-]+\.(?:h|hpp|hh|cuh))'?(?::| file not found)"),
    ("library", r"ld(?:\.\w+)?: cannot find -l([\w.+-]+)"),
    ("library", r"(?:Package|Dependency) '?\"?([\w.+-]+)'?\"? (?:was )?not found"),
    ("library", r"No package '([\w.+-]+)' found"),
    ("program", r"\[Errno 2\] No such file or directory: '([\w+-]+)'"),
    ("program", r"(?:unable to execute|error: command) '([\w.+-]+)'(?: failed)?: No such file"),
    ("program", r"(?:/bin/)?(?:ba|da)?sh: (?:line \d+: |\d+: )?([\w.+-]+): (?:command )?not found"),
    ("program", r"Program '?([\w.+-]+)'? not found"),
    ("program", r"\b(nvcc|cargo|rustc|cmake|ninja|pkg-config|gfortran|swig)\b[^\n]{0,40}"
                r"(?:not found|not installed|isn't installed|could not be found)"),
    ("program", r"Unknown compiler\(s\): \[\['(\w+)'"),
    ("module", r"ModuleNotFoundError: No module named '(\w+)"),
)  # fmt: skip
OTHERWISE: tuple[tuple[str, str], ...] = (
    (r"CUDA_HOME environment variable is not set", "nvcc"),
    (r"can't find Rust compiler|Cargo, the Rust package manager, is not installed", "cargo"),
    (r"CMAKE_C(?:XX)?_COMPILER not set|No CMAKE_C(?:XX)?_COMPILER could be found", "g++"),
    (r"Could not find PkgConfig", "pkg-config"),
)
"""Messages that don't contain the name of the missing program."""
DEBIAN = {
    **dict.fromkeys(["gcc", "cc", "g++", "c++", "make", "x86_64-linux-gnu-gcc"], "build-essential"),
    **{name: name for name in ("cmake", "pkg-config", "gfortran", "swig", "git", "cargo")},
    "ninja": "ninja-build", "rustc": "rustc", "clang": "clang", "nvcc": "nvidia-cuda-toolkit",
    "Python.h": "python3-dev", "portaudio.h": "portaudio19-dev", "cairo": "libcairo2-dev",
    "cairo.h": "libcairo2-dev", "zlib.h": "zlib1g-dev", "jpeglib.h": "libjpeg-dev",
    "ft2build.h": "libfreetype-dev", "ffi.h": "libffi-dev", "openssl/ssl.h": "libssl-dev",
    "libxml/xpath.h": "libxml2-dev", "libxml/xmlversion.h": "libxml2-dev",
    "libxslt/xslt.h": "libxslt1-dev", "sndfile.h": "libsndfile1-dev",
    "asoundlib.h": "libasound2-dev",
    "alsa/asoundlib.h": "libasound2-dev", "libavcodec": "libavcodec-dev",
    "libavformat": "libavformat-dev", "libavdevice": "libavdevice-dev",
    "libavcodec/avcodec.h": "libavcodec-dev", "libavformat/avformat.h": "libavformat-dev",
    "GL/gl.h": "libgl1-mesa-dev", "GL/glu.h": "libglu1-mesa-dev", "EGL/egl.h": "libegl1-mesa-dev",
    "X11/Xlib.h": "libx11-dev", "sox.h": "libsox-dev", "espeak-ng/speak_lib.h": "libespeak-ng-dev",
    "espeak/speak_lib.h": "libespeak-dev", "mysql.h": "default-libmysqlclient-dev",
    "libpq-fe.h": "libpq-dev", "sqlite3.h": "libsqlite3-dev", "yaml.h": "libyaml-dev",
    "lzma.h": "liblzma-dev", "bzlib.h": "libbz2-dev", "curl/curl.h": "libcurl4-openssl-dev",
    "gmp.h": "libgmp-dev", "hdf5.h": "libhdf5-dev", "sentencepiece": "libsentencepiece-dev",
    "girepository-1.0": "libgirepository1.0-dev", "gobject-introspection-1.0":
    "libgirepository1.0-dev", "dbus-1": "libdbus-1-dev", "opencv4": "libopencv-dev",
    "uuid/uuid.h": "uuid-dev", "magic.h": "libmagic-dev", "enchant.h": "libenchant-2-dev",
    "blas": "libopenblas-dev", "openblas": "libopenblas-dev", "lapack": "liblapack-dev",
    "portaudio": "portaudio19-dev",
}  # fmt: skip
"""Header, program, library or .pc file → its Debian package. For CUDA, NVIDIA's are better."""


@dataclass(frozen=True)
class Missing:
    """Something that a build needs; `str()` is a clause."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        if self.kind == "module":
            return (
                f"its build needs {self.name} and doesn't declare it: take a wheel of it "
                "(python.find_links), or install it by its node's script with "
                "pip install --no-build-isolation"
            )
        package = debian(self)
        return f"{self.name} is missing" + (f" (apt install {package})" if package else "")

    @property
    def there(self) -> bool:
        """Whether it is installed now; False for libraries and modules, which are slow to find."""
        if self.kind == "program":
            return shutil.which(self.name) is not None
        folders = (Path("/usr/include"), Path("/usr/local/include"))
        return self.kind == "header" and any(
            (folder / self.name).exists() or any(folder.glob(f"*/{self.name}"))
            for folder in folders
        )


def missing(log: str) -> Missing | None:
    """What a build lacked; None if its log doesn't say."""
    for kind, pattern in PATTERNS:
        if match := re.search(pattern, log):
            return Missing(kind, match[1])
    return next((Missing("program", name) for p, name in OTHERWISE if re.search(p, log)), None)


def debian(what: Missing) -> str | None:
    """The Debian package that has it; None if unknown."""
    if package := DEBIAN.get(what.name):
        return package
    if shutil.which("apt-file") is None:
        return None
    pattern = {
        "header": rf"/{re.escape(what.name)}$",
        "program": rf"/s?bin/{re.escape(what.name)}$",
        "library": rf"/(?:lib{re.escape(what.name)}\.so|{re.escape(what.name)}\.pc)$",
    }.get(what.kind)
    if pattern is None:
        return None
    argv = ["apt-file", "search", "--package-only", "--regexp", pattern]
    try:
        output = process.run(argv, env=process.allowed_environment(os.environ), timeout=60)
    except Failure:
        return None
    return next(iter(output.split()), None)
