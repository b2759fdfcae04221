"""What to do about a custom node's exception, where its values tell."""

from __future__ import annotations

import errno
import re
import sys

from ..system import debian
from .load_report import Error

STDLIB = sys.stdlib_module_names
DRIVER = re.compile(r"lib(cuda|nvcuvid|nvoptix|nvidia-[\w-]+)\.so")
"""Libraries of NVIDIA's driver; an image doesn't contain them."""
CUDA = re.compile(
    r"lib(?:(?:cudart|cublas(?:Lt)?|cupti|nvrtc[\w-]*|nvJitLink)\.so(?:\.(?P<version>\d+))?"
    r"|(?:cudnn\w*|cufft\w*|curand|cusolver\w*|cusparse\w*|nccl|npp\w+|nvToolsExt|nvjpeg|nvinfer\w*)\.so)"
)
"""Libraries of the CUDA toolkit; the first group has CUDA's version, the others have their own."""
TORCH = re.compile(r"lib(torch|c10)\w*\.so")


def mend(error: Error) -> str | None:
    """Advice, as half a sentence; None: none is known."""
    if error.library:
        return _library(error.library)
    if error.module and error.module.isidentifier() and error.module not in STDLIB:
        return (
            f"no installed package provides {error.module}: add the package that does to "
            f"python.packages, often {error.module} too"
        )
    if error.errno == errno.EADDRINUSE:
        port = f"port {error.address.rpartition(':')[2]}" if error.address else "its port"
        return (
            f"{port} is taken, and only one instance can have it: give each its own where "
            "the node reads it (env or args in instances.overrides), or run one instance"
        )
    if error.errno == errno.ENOENT and "subprocess" in error.modules and error.file:
        return _program(error.file)
    return None


def _library(soname: str) -> str | None:
    if DRIVER.match(soname):
        return f"{soname} belongs to the NVIDIA driver: a container needs --gpus all"
    if found := CUDA.match(soname):
        which = f"CUDA {found['version']}" if found["version"] else "CUDA"
        return (
            f"{soname} belongs to {which}: a package was built for another CUDA than that of "
            "python.torch, if that has CUDA at all"
        )
    if TORCH.match(soname):
        return f"{soname} belongs to torch: a package was built for another torch"
    package = debian.package_of_library(soname)
    return f"apt install {package}" if package else f"this system lacks {soname}"


def _program(name: str) -> str | None:
    if "/" in name:
        return None
    package = debian.package_of_program(name)
    return f"apt install {package}" if package else f"this system lacks the program {name}"
