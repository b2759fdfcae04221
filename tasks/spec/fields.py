"""The types of machine.yaml's fields."""

from __future__ import annotations

import math
import posixpath
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from .downloads import check_token, check_token_host, parse_download
from .overlapping_packages import check_prefer
from .problems import has_control, shown
from .requirement_hints import refuse_mapping, write_instead
from .sizes import SIZE, check_size
from .torch_choice import check_torch
from .urls import (
    check_index,
    check_place_of_wheels,
    check_ref,
    parse_remote,
    refuse_url_credentials,
)
from .variable_references import (
    INSTANCE_REFERENCES,
    check_instance_variable,
    check_value,
    check_variable,
    check_worker_value,
    check_worker_variable,
    expand_instance,
)

OUR_ARGS = {
    "--port": "instances.port_start",
    "--listen": "instances.listen",
    "--output-directory": "workspace: outputs are in shared/outputs",
    "--input-directory": "workspace: inputs are in shared/inputs",
    "--temp-directory": "workspace",
    "--user-directory": "workspace",
    "--database-url": "workspace",
    "--cuda-device": "instances.gpus",
    "--default-device": "instances.gpus",
    "--cpu": "instances.cpu_only",
    "--extra-model-paths-config": "models.extra_roots",
    "--base-directory": "workspace",
    "--models-directory": "models.folder",
    "--quick-test-for-ci": "the build, which runs it",
    "--whitelist-custom-nodes": "the variable COMFYUI_CUSTOM_NODES",
    "--disable-all-custom-nodes": "the variable COMFYUI_CUSTOM_NODES",
    "--disabled-nodes-config": "the variable COMFYUI_CUSTOM_NODES",
    "--enable-assets": "instances.assets",
    "--disable-assets": "instances.assets",
}
"""Arguments that comfy-machine sets → the field to use instead."""
_INSTALLS = "installs packages into what runs: list custom nodes under custom_nodes"
_BROWSER = "opens a browser on this machine: remove it"
_ENDS = "makes ComfyUI print something and end: remove it"
REFUSED_ARGS = {
    "--enable-manager": _INSTALLS,
    "--enable-manager-legacy-ui": _INSTALLS,
    "--auto-launch": _BROWSER,
    "--windows-standalone-build": _BROWSER,
    "--debug-hang": "makes ComfyUI survive the signal that it is stopped with: remove it",
    "--list-feature-flags": _ENDS,
    "--help": _ENDS,
}
"""Arguments that would break the machine → why, and what to do."""
NO_REQUIREMENT = "not a requirement such as numpy<2"


def _printable(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    if has_control(text):
        raise ValueError("holds a control character")
    return text


def _no_variable(text: str) -> str:
    if "${" in text:
        raise ValueError("${…} is understood in env values only")
    return text


def check_path(text: Any) -> Any:
    """Check text that becomes a path. Raises ValueError."""
    if isinstance(text, str):
        _no_variable(_printable(text))
        if text.startswith("~") and text != "~" and not text.startswith("~/"):
            raise ValueError("only ~ and ~/… are expanded: write the folder in full")
    return text


def check_name(name: str) -> str:
    """A folder name in custom_nodes. Raises ValueError."""
    folded = name.casefold()
    if not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+ -]{0,98}[A-Za-z0-9_+-])?", name):
        raise ValueError(
            f"{shown(name)!r} can't be a folder of custom_nodes: "
            "give a name of letters, digits, _ - + and ."
        )
    if folded.endswith(".disabled"):
        raise ValueError(
            "ComfyUI skips a folder that ends in .disabled: remove the entry, or the ending"
        )
    if folded in {"__pycache__", "websocket_image_save.py", "example_node.py.example"}:
        raise ValueError(f"{name} is taken in custom_nodes: give another name")
    return name


#: Targets that need no further check, for machines with thousands of models.
_PLAIN_TARGET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


def check_target(text: str) -> str:
    """A model's path below the models folder, normalised. Raises ValueError."""
    if len(text) < 200 and _PLAIN_TARGET.fullmatch(text):
        return text
    _no_variable(_printable(text))
    if text.startswith(("/", "~")) or "\\" in text or ".." in text.split("/"):
        raise ValueError("must stay below the models folder: no /… ~ .. or backslash")
    if any(len(name.encode()) > 255 for name in text.split("/")):
        raise ValueError("holds a name of more than 255 bytes, which file systems don't allow")
    if text.endswith("/") or posixpath.normpath(text) == ".":
        raise ValueError("names a folder: end with the file's name")
    return posixpath.normpath(text)


#: extra_model_paths.yaml uses these keys for other things than models.
NOT_MODELS = frozenset({"custom_nodes", "is_default", "base_path"})
FOLDER_TYPE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
"""Names of folder types that extra_model_paths.yaml can hold."""


def _folder_type(text: str) -> str:
    if text in NOT_MODELS or not FOLDER_TYPE.fullmatch(text):
        raise ValueError(f"{shown(text)!r} is no type of models such as checkpoints or loras")
    return text


def _below(text: str) -> str:
    _no_variable(_printable(text))
    if text.startswith(("/", "~")) or "\\" in text or ".." in text.split("/"):
        raise ValueError("must be a folder below the root: no /… ~ .. or backslash")
    return posixpath.normpath(text)


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _source(text: Any) -> Any:
    if isinstance(text, str) and "://" in text:
        raise ValueError("must be a file or folder on this machine; an address is given as url:")
    return check_path(text)


def _sha256(text: str) -> str:
    digest = text.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("must be 64 hexadecimal digits, as sha256sum prints them")
    return digest


def _url(text: str) -> str:
    parse_remote(text)
    return text


def _gpus(value: Any) -> Any:
    if value == "auto" and isinstance(value, str):
        return value
    numbers = value if isinstance(value, list) else [value]
    if any(type(number) is not int or number < 0 or number > 255 for number in numbers):
        raise ValueError(
            "must be auto, a number of GPUs, or a list of their indices such as [0, 2]"
        )
    if not numbers or value == 0:
        raise ValueError(
            "at least one: without a GPU set instances.cpu_only, "
            "and to start nothing the variable ENABLE_COMFYUI=false"
        )
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    if twice:
        raise ValueError(f"GPU {twice[0]} is listed twice")
    return value


def _word(value: Any) -> Any:
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return str(value)
    return value


def _arg(text: str) -> str:
    flag = text.partition("=")[0]
    if text.startswith("-") and re.search(r"\s", flag):
        first, _, rest = text.partition(" ")
        raise ValueError(f"write it as two items: [{shown(first)}, {shown(rest.strip())!r}]")
    if text == "-h":
        raise ValueError(f"-h {_ENDS}")
    if not text.startswith("--") or len(flag) < 3:
        return text
    # argparse accepts any unambiguous prefix of a flag.
    flag = flag.replace("_", "-")
    for ours, instead in OUR_ARGS.items():
        if ours.startswith(flag):
            raise ValueError(f"{ours} is set by the machine: use {instead}")
    for refused, why in REFUSED_ARGS.items():
        if refused.startswith(flag):
            raise ValueError(f"{refused} {why}")
    return text


def _command(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    if "${" in text:
        # Every user of the machine can read an argument list.
        raise ValueError("${…} is understood in env values only: put it under env:")
    return text


def _worker_name(name: str) -> str:
    if name == "comfyui" or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise ValueError("small letters, digits and -, no - first, and not comfyui")
    return name


def _local_url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise ValueError("must be an address such as http://127.0.0.1:8000/health")
    if "${" in expand_instance(text, dict.fromkeys(INSTANCE_REFERENCES, "")):
        raise ValueError("an address holds only ${instance.…}: put secrets under env:")
    return text


def _nats_url(text: str) -> str:
    for each in text.split(","):
        if re.match(r"[a-z]+://[^/]*@", each):
            raise ValueError("holds credentials: give them as credentials, in a variable")
        if not re.fullmatch(r"(nats|tls)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", each):
            raise ValueError(
                "must be an address such as nats://broker:4222; those of a cluster are separated "
                "by commas, without spaces"
            )
    return text


def _bucket(text: str) -> str:
    if not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]+)?", text):
        raise ValueError("must be a bucket, and a folder in it if wanted: s3://BUCKET/FOLDER")
    return text


def _endpoint(text: str) -> str:
    if re.match(r"[a-z]+://[^/]*@", text):
        raise ValueError("holds credentials: give them as access_key and secret_key, in variables")
    if not re.fullmatch(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?/?", text):
        raise ValueError("must be an address such as https://s3.example.org:9000")
    return text


def check_https(text: str) -> str:
    """An address of https://, or of http:// at this machine. Raises ValueError."""
    if re.match(r"[a-z]+://[^/]*@", text):
        raise ValueError("holds credentials: remove them")
    if not re.fullmatch(
        r"https://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?"
        r"|http://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?(/[A-Za-z0-9._~/-]*)?",
        text,
    ):
        raise ValueError("must be an address of https://, or of http:// at 127.0.0.1")
    return text.rstrip("/")


def _advisories(text: Any) -> Any:
    is_address = isinstance(text, str) and "://" in text
    return check_https(text) if is_address else check_path(text)


def _registry_id(text: str) -> str:
    # Source: IsValidNodeID in the registry's mapper/node.go
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", text):
        name, at, version = text.partition("@")
        if at and re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise ValueError(f"write version: {shown(version)} beside it, and {name} without @")
        if "/" in text:
            raise ValueError("must be an id of the registry; a repository is given as url:")
        raise ValueError("must be an id of the registry, such as comfyui-impact-pack")
    return text


def _registry_version(text: str) -> str:
    if text in ("latest", "newest"):
        raise ValueError("leave version out for the newest")
    if text == "nightly":
        raise ValueError("nightly is no version: give the repository as url:, without id")
    if not re.fullmatch(r"[0-9][0-9A-Za-z.+-]{0,99}", text):
        raise ValueError("must be a version of the registry, such as 8.22.0")
    return text


def _listen(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9:.][A-Za-z0-9:.,_-]*", text):
        raise ValueError("must be an address such as 127.0.0.1, or 0.0.0.0 for every interface")
    return text


def _not_a_requirement(text: str) -> str:
    instead = write_instead(text)
    return f"not a requirement: write {shown(instead)}" if instead else NO_REQUIREMENT


def _requirement(text: str) -> str:
    if text.startswith("-"):
        raise ValueError("must be a requirement such as numpy<2, not an option")
    if re.match(r"[./~]|file:", text):
        raise ValueError(
            "must be a requirement such as numpy<2; folders of wheels are python.find_links"
        )
    refuse_url_credentials(text)
    if re.match(r"(git\+)?[a-z]+://", text):
        raise ValueError(f"give the package's name before it: NAME @ {shown(text)}")
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise ValueError(_not_a_requirement(text)) from None
    if requirement.url and "/" not in requirement.url:
        raise ValueError(_not_a_requirement(text))
    if requirement.url and requirement.url.startswith("file:"):
        raise ValueError("a file of this machine: put its folder into python.find_links")
    return text


Text = Annotated[str, AfterValidator(_printable), AfterValidator(_no_variable)]
Bool = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0)]
Seconds = Annotated[int, Field(strict=True, ge=1)]
Size = Annotated[
    str,
    BeforeValidator(lambda value: check_size(str(value))),
    Field(json_schema_extra={"pattern": SIZE}),
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
GpuIndex = Annotated[int, Field(strict=True, ge=0, le=255)]
Gpus = Annotated[
    Literal["auto"] | Annotated[int, Field(ge=1)] | tuple[GpuIndex, ...], BeforeValidator(_gpus)
]
PathText = Annotated[Path, BeforeValidator(check_path)]
Workflow = PathText
SourcePath = Annotated[Path, BeforeValidator(_source)]
DownloadUrl = Annotated[str, AfterValidator(_printable), AfterValidator(parse_download)]
Sha256 = Annotated[str, AfterValidator(_sha256)]
Token = Annotated[str, AfterValidator(check_token)]
Tokens = dict[Annotated[str, AfterValidator(check_token_host)], Token]
GitUrl = Annotated[str, AfterValidator(_url)]
Ref = Annotated[str, AfterValidator(check_ref)]
NodeName = Annotated[str, AfterValidator(check_name)]
FolderTypes = dict[
    Annotated[str, AfterValidator(_folder_type)],
    Annotated[tuple[Annotated[str, AfterValidator(_below)], ...], BeforeValidator(_several)],
]
RegistryId = Annotated[str, AfterValidator(_registry_id)]
RegistryVersion = Annotated[str, AfterValidator(_registry_version)]
HttpsUrl = Annotated[str, AfterValidator(check_https)]
AdvisorySource = Annotated[str, BeforeValidator(_advisories)]
Target = Annotated[str, AfterValidator(check_target)]
Torch = Annotated[str, BeforeValidator(check_torch)]
Prefer = Annotated[dict[str, str], AfterValidator(check_prefer)]
_Item = WithJsonSchema({"type": ["string", "number"]})
Word = Annotated[str, BeforeValidator(_word), AfterValidator(_command), _Item]
Arg = Annotated[Text, BeforeValidator(_word), AfterValidator(_arg), _Item]
Env = dict[
    Annotated[str, AfterValidator(check_variable)], Annotated[str, AfterValidator(check_value)]
]
InstanceEnv = dict[
    Annotated[str, AfterValidator(check_instance_variable)],
    Annotated[str, AfterValidator(check_value)],
]
WorkerEnv = dict[
    Annotated[str, AfterValidator(check_worker_variable)],
    Annotated[str, AfterValidator(check_worker_value)],
]
WorkerUrl = Annotated[str, AfterValidator(check_worker_value), AfterValidator(_local_url)]
MachineId = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
WorkerName = Annotated[str, AfterValidator(_worker_name)]
Listen = Annotated[str, AfterValidator(_listen)]
NatsUrl = Annotated[str, AfterValidator(_nats_url)]
Bucket = Annotated[str, AfterValidator(_bucket)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
AtLeastOne = Annotated[int, Field(strict=True, ge=1)]
Requirement = Annotated[Text, BeforeValidator(refuse_mapping), AfterValidator(_requirement)]
IndexUrl = Annotated[str, AfterValidator(_printable), AfterValidator(check_index)]
PlaceOfWheels = Annotated[str, AfterValidator(_printable), AfterValidator(check_place_of_wheels)]
