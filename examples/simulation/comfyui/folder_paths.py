"""Folders of models and files: folder types, their directories and contents.

Custom nodes import this module, so its names are ComfyUI's.
"""

from __future__ import annotations

import logging
import mimetypes
import os
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from simulation.flags import ROOT, SINCE_2026, args

supported_pt_extensions: set[str] = {
    *(".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft")
}
base_path = os.path.abspath(args.base_directory) if args.base_directory else str(ROOT)  # noqa: PTH100
models_dir = str(Path(base_path, "models"))
if SINCE_2026 and args.models_directory:
    models_dir = os.path.abspath(args.models_directory)  # noqa: PTH100

_LEGACY = {"unet": "diffusion_models", "clip": "text_encoders"}
_SUBFOLDERS: dict[str, list[str]] = {
    "checkpoints": ["checkpoints"],
    "configs": ["configs"],
    "loras": ["loras"],
    "vae": ["vae"],
    "text_encoders": ["text_encoders", "clip"],
    "diffusion_models": ["unet", "diffusion_models"],
    "clip_vision": ["clip_vision"],
    "style_models": ["style_models"],
    "embeddings": ["embeddings"],
    "diffusers": ["diffusers"],
    "vae_approx": ["vae_approx"],
    "controlnet": ["controlnet", "t2i_adapter"],
    "gligen": ["gligen"],
    "upscale_models": ["upscale_models"],
    "latent_upscale_models": ["latent_upscale_models"],
    "custom_nodes": [],
    "datasets": [],
    "hypernetworks": ["hypernetworks"],
    "photomaker": ["photomaker"],
    "classifiers": ["classifiers"],
    "model_patches": ["model_patches"],
    "audio_encoders": ["audio_encoders"],
    "background_removal": ["background_removal"],
    "frame_interpolation": ["frame_interpolation"],
    "geometry_estimation": ["geometry_estimation"],
    "optical_flow": ["optical_flow"],
    "detection": ["detection"],
}
_SINCE_2026 = [
    *("latent_upscale_models", "datasets", "background_removal", "frame_interpolation"),
    *("geometry_estimation", "optical_flow", "detection"),
]
_BESIDE_MODELS = ["custom_nodes", "datasets"]
_EXTENSIONS: dict[str, set[str]] = {
    "configs": {".yaml"},
    "diffusers": {"folder"},
    "custom_nodes": set(),
    "datasets": set(),
    "classifiers": {""},
}

folder_names_and_paths: dict[str, tuple[list[str], set[str]]] = {
    name: (
        [str(Path(models_dir, sub)) for sub in subfolders],
        _EXTENSIONS.get(name, supported_pt_extensions),
    )
    for name, subfolders in _SUBFOLDERS.items()
    if SINCE_2026 or name not in _SINCE_2026
}
for _name in _BESIDE_MODELS:
    if _name in folder_names_and_paths:
        folder_names_and_paths[_name][0].append(str(Path(base_path, _name)))

_directories = {kind: str(Path(base_path, kind)) for kind in ("output", "temp", "input", "user")}
_listings: dict[str, tuple[list[str], dict[str, float]]] = {}


def map_legacy(folder_name: str) -> str:
    """The name in use now for a folder type's older one."""
    return _LEGACY.get(folder_name, folder_name)


def get_output_directory() -> str:
    return _directories["output"]


def get_temp_directory() -> str:
    return _directories["temp"]


def get_input_directory() -> str:
    return _directories["input"]


def get_user_directory() -> str:
    return _directories["user"]


def set_directory(kind: str, path: str) -> None:
    """Use path, made absolute, for "output", "temp", "input" or "user"."""
    _directories[kind] = os.path.abspath(path)  # noqa: PTH100
    logging.info("Setting %s directory to: %s", kind, _directories[kind])


def get_directory_by_type(type_name: str) -> str | None:
    """The directory that HTTP clients name so, or None."""
    return _directories[type_name] if type_name in ("output", "temp", "input") else None


def annotated_filepath(name: str) -> tuple[str, str | None]:
    """Split ``name.png [input]`` into the name and the directory it is said to be in."""
    for kind in ("output", "input", "temp"):
        suffix = f"[{kind}]"
        if name.endswith(suffix):
            return name[: -len(suffix) - 1], _directories[kind]
    return name, None


def _escapes(directory: str, path: str) -> bool:
    """Whether a path leads out of a directory, links followed; since 2026 that is refused."""
    return SINCE_2026 and not Path(path).resolve().is_relative_to(Path(directory).resolve())


def get_annotated_filepath(name: str, default_dir: str | None = None) -> str:
    """The path that a name stands for. Raises ValueError where it leads out of its directory."""
    name, directory = annotated_filepath(name)
    directory = directory or default_dir or get_input_directory()
    path = str(Path(directory, name))
    if _escapes(directory, path):
        raise ValueError(f"Invalid file path: {name!r}")
    return path


def exists_annotated_filepath(name: str) -> bool:
    try:
        return Path(get_annotated_filepath(name)).exists()
    except ValueError:
        return False


def add_model_folder_path(
    folder_name: str, full_folder_path: str, is_default: bool = False
) -> None:
    """Search full_folder_path too: first when it is the default, else last."""
    folder_name = map_legacy(folder_name)
    paths, _ = folder_names_and_paths.setdefault(folder_name, ([], set()))
    if full_folder_path in paths:
        if not is_default:
            return
        paths.remove(full_folder_path)
    paths.insert(0 if is_default else len(paths), full_folder_path)


def get_folder_paths(folder_name: str) -> list[str]:
    return list(folder_names_and_paths[map_legacy(folder_name)][0])


def filter_files_extensions(files: Collection[str], extensions: Collection[str]) -> list[str]:
    """The files with one of the extensions, sorted; all of them when none is given."""
    return sorted(f for f in files if not extensions or Path(f).suffix.lower() in extensions)


def filter_files_content_types(files: list[str], content_types: Iterable[str]) -> list[str]:
    """The files whose names say that they are images, videos, …"""
    kinds = set(content_types)
    guesses = ((f, mimetypes.guess_type(f, strict=False)[0]) for f in files)
    return [f for f, guess in guesses if guess and guess.split("/")[0] in kinds]


def _walk(directory: str) -> tuple[list[str], dict[str, float]]:
    """Files below directory, links followed or not, and when each folder changed."""
    files: list[str] = []
    changed: dict[str, float] = {}
    for folder, subfolders, names in os.walk(directory, followlinks=True):
        subfolders[:] = [name for name in subfolders if name != ".git"]
        changed[folder] = Path(folder).stat().st_mtime
        files += [os.path.relpath(Path(folder, name), directory) for name in names]
    return files, changed


def get_filename_list(folder_name: str) -> list[str]:
    """What a folder type holds. A dangling link or an empty file is listed like any other.

    Raises FileNotFoundError when a directory that was listed before is gone.
    """
    folder_name = map_legacy(folder_name)
    paths, extensions = folder_names_and_paths[folder_name]
    known = _listings.get(folder_name)
    if known is not None:
        files, changed = known
        fresh = all(Path(path).stat().st_mtime == then for path, then in changed.items())
        if fresh and all(path in changed for path in paths if Path(path).is_dir()):
            return list(files)
    found: set[str] = set()
    seen: dict[str, float] = {}
    for path in paths:
        files, changed = _walk(path)
        found.update(filter_files_extensions(files, extensions))
        seen |= changed
    _listings[folder_name] = (sorted(found), seen)
    return sorted(found)


def get_full_path(folder_name: str, filename: str) -> str | None:
    """The first file of that name in a folder type, or None."""
    folder_name = map_legacy(folder_name)
    if folder_name not in folder_names_and_paths:
        return None
    relative = os.path.relpath(os.path.join("/", filename), "/")  # noqa: PTH118
    for directory in folder_names_and_paths[folder_name][0]:
        path = Path(directory, relative)
        if path.is_file():
            return str(path)
        if path.is_symlink():
            logging.warning("WARNING path %s exists but doesn't link anywhere, skipping.", path)
    return None


def get_full_path_or_raise(folder_name: str, filename: str) -> str:
    path = get_full_path(folder_name, filename)
    if path is None:
        raise FileNotFoundError(
            f"Model in folder '{folder_name}' with filename '{filename}' not found."
        )
    return path


def _fill_in(prefix: str, width: int, height: int) -> str:
    prefix = prefix.replace("%width%", str(width)).replace("%height%", str(height))
    now = time.localtime()
    codes = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "minute": "%M", "second": "%S"}
    for name, code in codes.items():
        prefix = prefix.replace(f"%{name}%", time.strftime(code, now))
    return prefix


def get_save_image_path(
    filename_prefix: str, output_dir: str, image_width: int = 0, image_height: int = 0
) -> tuple[str, str, int, str, str]:
    """Folder, file name, next counter, subfolder and prefix for a new image.

    The counter is one more than the highest found, and nothing reserves it: two processes that
    save with one prefix into one folder overwrite each other's files, as with real ComfyUI.
    """
    filename_prefix = _fill_in(filename_prefix, image_width, image_height)
    subfolder, name = os.path.split(os.path.normpath(filename_prefix))
    folder = Path(os.path.normpath(Path(output_dir, subfolder)))
    if not folder.is_relative_to(output_dir) or _escapes(output_dir, str(folder)):
        message = (
            "**** ERROR: Saving image outside the output folder is not allowed."
            f"\n full_output_folder: {folder}\n         output_dir: {output_dir}"
        )
        logging.error(message)
        raise Exception(message)
    folder.mkdir(parents=True, exist_ok=True)
    counters = [0]
    for entry in folder.iterdir():
        if entry.name.startswith(f"{name}_"):
            digits = entry.name[len(name) + 1 :].split("_")[0]
            counters.append(int(digits) if digits.isdecimal() else 0)
    return str(folder), name, max(counters) + 1, subfolder, filename_prefix
