"""What to do about a custom node's exception, where its values tell."""

from __future__ import annotations

import errno
import re
import sys

from ..system import debian
from .load_report import Error

STDLIB = sys.stdlib_module_names
DRIVER = re.compile(r"lib(cuda|nvcuvid|nvoptix|nvidia-[\w-]+)\.so")
"""NVIDIA's own, which come with its driver: an image has none of them."""
CUDA = re.compile(
    r"lib(?:(?:cudart|cublas(?:Lt)?|cupti|nvrtc[\w-]*|nvJitLink)\.so(?:\.(?P<version>\d+))?"
    r"|(?:cudnn\w*|cufft\w*|curand|cusolver\w*|cusparse\w*|nccl|npp\w+|nvToolsExt|nvjpeg|nvinfer\w*)\.so)"
)
"""Of its toolkit; the first ones have its version, the others their own."""
TORCH = re.compile(r"lib(torch|c10)\w*\.so")


def mend(error: Error) -> str | None:
    """Half a sentence; None where nothing is known that would help."""
    if error.library:
        return _library(error.library)
    if error.module and error.module.isidentifier() and error.module not in STDLIB:
        # One that isn't in a package of its own: that package is not installed.
        return (
            f"no installed package provides {error.module}: add the package that does to "
            f"python.packages, often {error.module} too"
        )
    if error.errno == errno.EADDRINUSE:
        port = f"port {error.address.rpartition(':')[2]}" if error.address else "its port"
        return (
            f"{port} is taken: of several instances one alone can have it; give each its own where "
            "the node reads that from somewhere (env or args in instances.overrides), or run one "
            "instance"
        )
    if error.errno == errno.ENOENT and "subprocess" in error.modules and error.file:
        return _program(error.file)
    return None


def _library(soname: str) -> str | None:
    if DRIVER.match(soname):
        return f"{soname} is of the NVIDIA driver: a container needs --gpus all"
    if found := CUDA.match(soname):
        which = f"CUDA {found['version']}" if found["version"] else "CUDA"
        return (
            f"{soname} is of {which}: something was built for another CUDA than python.torch "
            "brings, which may have none"
        )
    if TORCH.match(soname):
        return f"{soname} is of torch: something was built for another torch"
    package = debian.package_of_library(soname)
    return f"apt install {package}" if package else f"this system lacks {soname}"


def _program(name: str) -> str | None:
    if "/" in name:
        return None
    package = debian.package_of_program(name)
    return f"apt install {package}" if package else f"this system lacks the program {name}"
