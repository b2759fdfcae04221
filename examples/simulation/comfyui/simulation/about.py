"""The server's description of itself: GET /system_stats and GET /features."""

from __future__ import annotations

import os
import sys
from typing import Any

from comfyui_version import __version__
from simulation import devices
from simulation.flags import ASSETS, SINCE_2026, args


def system_stats(device: devices.Device) -> dict[str, Any]:
    """Memory in bytes."""
    total, free = devices.memory()
    system = {
        "os": sys.platform if SINCE_2026 else os.name,
        "ram_total": total,
        "ram_free": free,
        "comfyui_version": __version__,
        "required_frontend_version": None,
        "installed_templates_version": None,
        "required_templates_version": None,
        "python_version": sys.version,
        "pytorch_version": devices.PYTORCH_VERSION,
        "embedded_python": False,
        "argv": sys.argv,
    }
    if SINCE_2026:
        system |= {"comfy_package_versions": [], "deploy_environment": "local-git"}
    return {"system": system, "devices": [device.as_dict()]}


def features() -> dict[str, Any]:
    """What clients may rely on. A --feature-flag of a name that is taken here is left out."""
    found: dict[str, Any] = {
        "supports_preview_metadata": False,  # as real ComfyUI, but for this
        "max_upload_size": round(args.max_upload_size * 1024 * 1024),
    }
    if not SINCE_2026:
        return found
    found |= {
        "supports_model_type_tags": True,
        "extension": {"manager": {"supports_v4": True}},
        "node_replacements": True,
        "assets": ASSETS,
    }
    given = (flag.partition("=") for flag in args.feature_flag)
    values = {"true": True, "false": False, "": True}
    return {key.strip(): values.get(value.lower(), value) for key, _, value in given} | found
