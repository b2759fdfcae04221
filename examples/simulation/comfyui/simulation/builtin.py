"""The built-in nodes that need no model, and two that need one; `nodes` maps them by name."""
# ruff: noqa: N802, RUF012

from __future__ import annotations

import hashlib
import random
import string
from pathlib import Path
from typing import Any

import folder_paths
from simulation import images as pictures
from simulation.flags import SINCE_2026, args

MAX_RESOLUTION = 16384


class EmptyImage:
    """A batch of images in one colour."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = {"default": 512, "min": 1, "max": MAX_RESOLUTION, "step": 1}
        colour = {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}
        return {
            "required": {
                "width": ("INT", size),
                "height": ("INT", size),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 4096}),
                "color": ("INT", colour),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "generate"
    CATEGORY = "image"

    def generate(self, width: int, height: int, batch_size: int = 1, color: int = 0) -> Any:
        from PIL import Image

        rgb = (color >> 16 & 255, color >> 8 & 255, color & 255)
        return ([Image.new("RGB", (width, height), rgb) for _ in range(batch_size)],)


class ImageInvert:
    """Every colour to its opposite."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": ("IMAGE",)}}

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "invert"
    CATEGORY = "image"

    def invert(self, image: Any) -> Any:
        from PIL import ImageOps

        return ([ImageOps.invert(one.convert("RGB")) for one in pictures.batch(image)],)


class ImageScale:
    """Another size; a width or height of 0 keeps the proportions."""

    upscale_methods = ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"]
    crop_methods = ["disabled", "center"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        size = {"default": 512, "min": 0, "max": MAX_RESOLUTION, "step": 1}
        return {
            "required": {
                "image": ("IMAGE",),
                "upscale_method": (cls.upscale_methods,),
                "width": ("INT", size),
                "height": ("INT", size),
                "crop": (cls.crop_methods,),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"

    def upscale(self, image: Any, upscale_method: str, width: int, height: int, crop: str) -> Any:
        from PIL import Image, ImageOps

        frames = pictures.batch(image)
        if width == 0 and height == 0:
            return (frames,)
        resampling = {
            "nearest-exact": Image.Resampling.NEAREST,
            "bilinear": Image.Resampling.BILINEAR,
            "area": Image.Resampling.BOX,
            "bicubic": Image.Resampling.BICUBIC,
            "lanczos": Image.Resampling.LANCZOS,
        }[upscale_method]
        scaled = []
        for frame in frames:
            size = (
                width or max(1, round(frame.width * height / frame.height)),
                height or max(1, round(frame.height * width / frame.width)),
            )
            fit = ImageOps.fit if crop == "center" else Image.Image.resize
            scaled.append(fit(frame, size, resampling))
        return (scaled,)


class SaveImage:
    """Write PNG files below the output directory."""

    directory = "output"
    suffix = ""
    compress_level = 4

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The images to save."}),
                "filename_prefix": (
                    "STRING",
                    {"default": "ComfyUI", "tooltip": "The prefix for the file to save."},
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    RETURN_TYPES = ("IMAGE",) if SINCE_2026 else ()
    RETURN_NAMES = ("images",) if SINCE_2026 else ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "image"
    DESCRIPTION = "Saves the input images to your ComfyUI output directory."

    def save_images(
        self,
        images: Any,
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        frames = pictures.batch(images)
        root = folder_paths.get_directory_by_type(self.directory)
        assert root is not None
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix + self.suffix, root, frames[0].width, frames[0].height
        )
        texts: dict[str, Any] = {}
        if not args.disable_metadata:
            texts = ({} if prompt is None else {"prompt": prompt}) | (extra_pnginfo or {})
        saved = []
        for number, frame in enumerate(frames):
            file = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
            pictures.save_png(frame, Path(folder, file), texts, self.compress_level)
            saved.append({"filename": file, "subfolder": subfolder, "type": self.directory})
        shown = {"ui": {"images": saved}}
        return shown | {"result": (images,)} if SINCE_2026 else shown


class PreviewImage(SaveImage):
    """Write PNG files below the temporary directory."""

    directory = "temp"
    compress_level = 1

    def __init__(self) -> None:
        self.suffix = "_temp_" + "".join(random.choices(string.ascii_lowercase, k=5))

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE",)},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }


class LoadImage:
    """Read an image of the input directory."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        entries = Path(folder_paths.get_input_directory()).iterdir()
        files = sorted(entry.name for entry in entries if entry.is_file())
        names = folder_paths.filter_files_content_types(files, ["image"])
        return {"required": {"image": (names, {"image_upload": True})}}

    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "load_image"
    CATEGORY = "image"

    def load_image(self, image: str) -> Any:
        from PIL import Image, ImageOps

        with Image.open(folder_paths.get_annotated_filepath(image)) as opened:
            picture = ImageOps.exif_transpose(opened)
            if "A" in picture.getbands():
                mask = ImageOps.invert(picture.getchannel("A"))
            else:
                mask = Image.new("L", (64, 64))
            return ([picture.convert("RGB")], [mask])

    @classmethod
    def IS_CHANGED(cls, image: str) -> str:
        data = Path(folder_paths.get_annotated_filepath(image)).read_bytes()
        return hashlib.sha256(data).hexdigest()

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:
        if folder_paths.exists_annotated_filepath(image):
            return True
        return f"Invalid image file: {image}"


class CheckpointLoaderSimple:
    """Lists and checks the checkpoints. It loads none: a job that gets so far fails."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = folder_paths.get_filename_list("checkpoints")
        tooltip = {"tooltip": "The name of the checkpoint (model) to load."}
        return {"required": {"ckpt_name": (names, tooltip)}}

    RETURN_TYPES = ("MODEL", "CLIP", "VAE")
    OUTPUT_TOOLTIPS = (
        "The model used for denoising latents.",
        "The CLIP model used for encoding text prompts.",
        "The VAE model used for encoding and decoding images to and from latent space.",
    )
    FUNCTION = "load_checkpoint"
    CATEGORY = "loaders"
    DESCRIPTION = (
        "Loads a diffusion model checkpoint, diffusion models are used to denoise latents."
    )

    def load_checkpoint(self, ckpt_name: str) -> Any:
        path = folder_paths.get_full_path_or_raise("checkpoints", ckpt_name)
        raise RuntimeError(f"the simulator loads no model: {path}")


class VAEDecode:
    """Here so that a workflow with a model can be checked to its end."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "samples": ("LATENT", {"tooltip": "The latent to be decoded."}),
                "vae": ("VAE", {"tooltip": "The VAE model used for decoding the latent."}),
            }
        }

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "decode"
    CATEGORY = "latent"

    def decode(self, samples: Any, vae: Any) -> Any:
        raise RuntimeError("the simulator loads no model")
