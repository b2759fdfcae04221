"""machine.yaml field by field. Paths are as written until `resolve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from .fields import (
    AdvisorySource,
    Arg,
    AtLeastOne,
    Bool,
    Bucket,
    Count,
    DownloadUrl,
    Endpoint,
    Env,
    FolderTypes,
    GitUrl,
    GpuIndex,
    Gpus,
    HttpsUrl,
    IndexUrl,
    InstanceEnv,
    Listen,
    MachineId,
    NatsUrl,
    NodeName,
    PathText,
    PlaceOfWheels,
    Port,
    Prefer,
    Ref,
    RegistryId,
    RegistryVersion,
    Requirement,
    Seconds,
    Sha256,
    Size,
    SourcePath,
    Target,
    Text,
    Token,
    Tokens,
    Torch,
    Word,
    WorkerEnv,
    WorkerName,
    WorkerUrl,
    Workflow,
)

COMFYUI_REPO = "https://github.com/Comfy-Org/ComfyUI.git"
REGISTRY = "https://api.comfy.org"
OSV = "https://api.osv.dev"
SMOKE = Path("smoke")
"""Instead of a workflow file: the job of `doit smoke`."""


class Model(BaseModel):
    """A section of machine.yaml: strict; a null value counts as absent, of a known field."""

    # Only Spec is ever validated, so only its validator is built.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_unset(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = cls.model_fields
            return {
                key: value for key, value in data.items() if value is not None or key not in known
            }
        return data


class ComfyUI(Model):
    """ComfyUI itself: a repository at a ref, or a local directory."""

    repo: GitUrl | None = Field(default=None, description=f"Git URL. Default: {COMFYUI_REPO}")
    path: PathText | None = Field(
        default=None, description="A local directory instead, copied and never written into."
    )
    ref: Ref | None = Field(
        default=None, description="Branch, tag or commit. Default: the repository's own branch."
    )
    install_path: PathText = Field(
        default=Path("ComfyUI"), description="Where the link to the running ComfyUI is put."
    )
    proof_timeout: Seconds = Field(
        default=600, description="Seconds that ComfyUI may take to load everything in the build."
    )


class Python(Model):
    """The Python environment that all instances share."""

    torch: Torch = Field(
        default="auto",
        description="auto (the lock's, else the driver's CUDA, else PyPI's; with cpu_only cpu), "
        "cpu, pypi, preinstalled, none, or a backend such as cu128; rocm6.3, xpu with cpu_only.",
    )
    packages: tuple[Requirement, ...] = Field(
        default=(),
        description="Requirements beyond those of ComfyUI and the nodes, such as boto3; they "
        "are resolved with all others.",
    )
    overrides: tuple[Requirement, ...] = Field(
        default=(),
        description="Requirements that win over every other of their packages, such as numpy<2; "
        "they add none.",
    )
    prefer: Prefer = Field(
        default={},
        description="Which of the packages that overwrite each other: {opencv: opencv-python}. "
        "Families: opencv, onnxruntime, pillow.",
    )
    find_links: tuple[PlaceOfWheels, ...] = Field(
        default=(), description="Folders or pages that hold wheels."
    )
    extra_index_urls: tuple[IndexUrl, ...] = Field(
        default=(),
        description="Package indexes beside PyPI; credentials as https://${USER}:${TOKEN}@host/….",
    )


class CustomNode(Model):
    """A custom node: a repository at a ref, a version of the registry, or a local directory."""

    url: GitUrl | None = Field(default=None, description="Git URL of the node.")
    path: PathText | None = Field(
        default=None, description="A local directory instead, linked, for development."
    )
    id: RegistryId | None = Field(
        default=None, description="Its id in the registry instead, such as comfyui-impact-pack."
    )
    version: RegistryVersion | None = Field(
        default=None,
        description="With id: its version. Default: the newest that the registry calls active.",
    )
    name: NodeName = Field(
        default="", description="Folder in custom_nodes. Default: the last part of url or path; id."
    )
    ref: Ref | None = Field(
        default=None, description="Branch, tag or commit. Default: the repository's own branch."
    )
    recursive: Bool = Field(default=True, description="Fetch submodules too, where it has any.")
    requirements: Bool = Field(
        default=True,
        description="Install what its requirements.txt asks for; without one, the dependencies of "
        "its pyproject.toml.",
    )
    env: Env = Field(
        default={},
        description="Written to the node's .env when instances start; values may hold ${NAME}.",
    )
    script: Text | None = Field(
        default=None, description="Run once in the node's folder after installing."
    )
    script_timeout: Seconds = Field(default=600, description="Seconds that the script may take.")
    optional: Bool = Field(default=False, description="A failure of this node is only a warning.")


class Registry(Model):
    """Where custom nodes with an id come from, and what `audit` asks."""

    url: HttpsUrl = Field(default=REGISTRY, description="The address of the registry's API.")
    advisories: tuple[AdvisorySource, ...] = Field(
        default=(OSV,),
        description="What knows of vulnerable versions: a service with the API of OSV, or a file "
        "or folder of OSV's JSON documents.",
    )


class ModelRoot(Model):
    """A further folder of models, laid out like ComfyUI's own, or as `folders` says."""

    path: PathText = Field(description="The folder.")
    folders: FolderTypes = Field(
        default={},
        description="Type → its folders below path, of a program that names them otherwise: "
        "{checkpoints: models/Stable-diffusion, loras: [models/Lora, models/LyCORIS]}. Default: "
        "they are named like ComfyUI's.",
    )
    read_only: Bool = Field(default=False, description="A run fails rather than write into it.")


class ModelFile(Model):
    """One model: a download, or a link to a file or folder that is on a disk already."""

    target: Target = Field(description="Place below the models folder: checkpoints/x.safetensors.")
    source: SourcePath | None = Field(
        default=None, description="An existing file or folder that is linked there."
    )
    url: DownloadUrl | None = Field(
        default=None,
        description="Where to download it: http(s), or the page of Hugging Face or Civitai.",
    )
    sha256: Sha256 | None = Field(
        default=None, description="Its checksum. Default: machine.lock's, as it was first seen."
    )
    optional: Bool = Field(default=False, description="A missing file is only a warning.")


class Models(Model):
    """The models and their folders."""

    folder: PathText = Field(
        default=Path("shared/models"), description="The models folder that instances see."
    )
    store: PathText | None = Field(
        default=None,
        description="Where downloads are kept, named by their sha256; several machines may share "
        "it. Default: .store in the folder.",
    )
    extra_roots: tuple[ModelRoot, ...] = Field(default=(), description="Further folders of models.")
    tokens: Tokens = Field(
        default={},
        description="Variable with the token of each exact host, as ${NAME}. "
        "Default: ${HF_TOKEN} for huggingface.co, ${CIVITAI_TOKEN} for civitai.com.",
    )
    files: tuple[ModelFile, ...] = Field(default=(), description="Model files that must be there.")


class Override(Model):
    """Settings of one GPU's instance."""

    args: tuple[Arg, ...] = Field(default=(), description="Added to instances.args.")
    port: Port | None = Field(default=None, description="Instead of port_start + GPU.")
    env: InstanceEnv = Field(
        default={},
        description="Added to instances.env. CUDA_VISIBLE_DEVICES may name a part of a GPU, MIG-….",
    )


class Limits(Model):
    """What each instance may use."""

    memory: Size | None = Field(
        default=None,
        description="Its own memory, such as 24G, without the model files that it maps; above it "
        "the instance is restarted. Default: no limit.",
    )
    nice: Annotated[int, Field(strict=True, ge=-20, le=19)] = Field(
        default=0, description="Scheduling priority; 19 gives way most, below 0 needs root."
    )
    open_files: Annotated[int, Field(strict=True, ge=256)] | None = Field(
        default=None, description="How many files it may have open. Default: what the shell has."
    )


class Logs(Model):
    """When the logs of instances, workers and the watcher are rotated."""

    max_size: Size = Field(default="50M", description="Size above which a log is rotated.")
    max_age: Count = Field(default=7, description="Days after which it is; 0: never by age.")
    keep: Count = Field(default=5, description="Rotated logs that are kept, as NAME.log.1 ….")


class Instances(Model):
    """One ComfyUI per GPU."""

    gpus: Gpus = Field(default="auto", description="auto, a number, or a list of GPU indices.")
    cpu_only: Bool = Field(
        default=False, description="Run without a GPU; gpus only counts, auto is 1."
    )
    pin: Literal["index", "uuid"] = Field(
        default="index",
        description="How an instance is tied to its GPU: by its index in nvidia-smi's order, or "
        "by the uuid of the GPU that it is first started on, for machines whose order changes.",
    )
    port_start: Port = Field(default=8188, description="Port of GPU 0; GPU n has port_start + n.")
    port_conflict: Literal["fail", "next"] = Field(
        default="fail",
        description="When a port of theirs, or the health server's, is taken: fail, or take the "
        "next free one and keep it.",
    )
    listen: Listen = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 is all.")
    args: tuple[Arg, ...] = Field(default=(), description="Arguments of ComfyUI's main.py.")
    env: InstanceEnv = Field(default={}, description="Environment; values may hold ${NAME}.")
    user: PathText | None = Field(
        default=None,
        description="What the user folder of a new instance starts with: settings and workflows, "
        "such as the user folder of another ComfyUI. It is copied once, without databases and "
        "logs. Default: it starts empty.",
    )
    overrides: dict[GpuIndex, Override] = Field(default={}, description="By GPU index.")
    drain_timeout: Seconds = Field(
        default=600, description="Seconds that an instance's jobs may take before it is replaced."
    )
    drain_settle: Count = Field(
        default=5,
        description="Seconds that the results of an instance's last job stay readable before it "
        "is replaced.",
    )
    job_timeout: Seconds = Field(
        default=3600, description="Seconds after which a running job counts as stuck."
    )
    restart_unhealthy: Bool = Field(
        default=True,
        description="Restart an instance that hangs, has a stuck job, or is over its memory.",
    )
    limits: Limits = Field(default_factory=Limits, description="What each may use.")
    share_memory: Bool = Field(default=True, description="Each plans with its part of the memory.")
    assets: Bool = Field(default=False, description="Have ComfyUI catalogue models and images.")
    logs: Logs = Field(default_factory=Logs, description="Rotation of the logs.")


class Health(Model):
    """The health gate and the health server."""

    server: Bool = Field(default=True, description="Run the health server.")
    port: Port = Field(default=9090, description="Port of the health server.")
    listen: Listen = Field(
        default="127.0.0.1",
        description="Its address; without a token only /livez and /readyz answer beyond loopback.",
    )
    token: Token | None = Field(
        default=None, description="Variable with the token that it asks for, as ${NAME}."
    )
    timeout: Seconds = Field(default=300, description="Seconds until an instance must be healthy.")
    warmup: Workflow | None = Field(
        default=None,
        description="A workflow (a file in API format, or smoke) that a started instance must "
        "have run before it counts as healthy.",
    )
    canary: Workflow | None = Field(
        default=None,
        description="A workflow (a file in API format, or smoke) that an idle instance must run "
        "every canary_every seconds; its seed, noise_seed or color varies.",
    )
    canary_every: Seconds = Field(default=300, description="Seconds between two canary jobs.")


class WorkerHealth(Model):
    """How a worker shows that it lives; one that fails for 30 seconds is restarted."""

    url: WorkerUrl | None = Field(
        default=None,
        description="An address that answers 2xx; it may hold ${instance.port} and the like.",
    )
    command: Annotated[tuple[Word, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="Or a program and its arguments, which exits with 0; it has the worker's "
        "environment and folder.",
    )
    timeout: Seconds = Field(default=10, description="Seconds that an answer may take.")


class Worker(Model):
    """A process of your own beside each instance, started once it is healthy."""

    name: WorkerName = Field(description="Small letters, digits and -; the app is <name>-gpu0.")
    command: Annotated[tuple[Word, ...], Field(min_length=1)] = Field(
        description="Program and arguments."
    )
    env: WorkerEnv = Field(
        default={},
        description="Environment; values may hold ${NAME}, and ${instance.gpu}, ${instance.host}, "
        "${instance.name}, ${instance.port} and ${instance.url}.",
    )
    cwd: PathText | None = Field(
        default=None, description="The folder that it runs in. Default: the workspace."
    )
    per: Literal["instance", "machine"] = Field(
        default="instance", description="One for each instance, or one for all of them."
    )
    restart_with_instance: Bool = Field(
        default=True,
        description="Stop it while its instance isn't healthy, and start it again after that. "
        "Without, it is only started once its instance is healthy.",
    )
    stop_timeout: Seconds | None = Field(
        default=None,
        description="Seconds that it may take to end, after SIGINT. Default: "
        "instances.drain_timeout.",
    )
    health: WorkerHealth | None = Field(
        default=None, description="How it shows that it lives. Default: it runs."
    )


class JobsTls(Model):
    """Files in PEM for the connection to a NATS server of your own, beside machine.yaml."""

    ca: PathText | None = Field(
        default=None, description="Who signed its certificate. Default: those that Python trusts."
    )
    cert: PathText | None = Field(default=None, description="Our own certificate.")
    key: PathText | None = Field(default=None, description="The key of cert.")


class JobsStore(Model):
    """Where files lie that several machines need: S3, or a store that speaks like it."""

    url: Bucket = Field(
        description="The bucket, and a folder in it for this queue: s3://BUCKET/FOLDER. Required."
    )
    endpoint: Endpoint | None = Field(
        default=None, description="The store's address. Default: that of Amazon."
    )
    region: Text = Field(default="us-east-1", description="The region of the bucket.")
    access_key: Token = Field(description="Variable with the id of the key, as ${NAME}. Required.")
    secret_key: Token = Field(description="Variable with the key, as ${NAME}. Required.")


class Jobs(Model):
    """Jobs: they are kept in NATS, and each is given to an instance that can run it."""

    port: Port = Field(
        default=4222, description="Port of our NATS server, which listens on 127.0.0.1."
    )
    gateway_port: Port = Field(default=8180, description="Port of the gateway, which takes jobs.")
    listen: Listen = Field(
        default="127.0.0.1", description="Its address; beyond loopback it needs a token."
    )
    token: Token | None = Field(
        default=None, description="Variable with the token that it asks for, as ${NAME}."
    )
    webhook_secret: Token | None = Field(
        default=None,
        description="Variable with the secret that signs webhooks, as ${NAME}: whsec_ and 24 to "
        "64 bytes in base64. Default: they aren't signed.",
    )
    attempts: AtLeastOne = Field(
        default=3, description="How often a job is started before it is dead."
    )
    max_queued: AtLeastOne = Field(default=10000, description="How many jobs may wait.")
    keep: AtLeastOne = Field(default=7, description="Days for which a job that ended is kept.")
    url: NatsUrl | None = Field(
        default=None,
        description="A NATS server of your own with JetStream, nats://HOST:PORT; several of a "
        "cluster are separated by commas. Then none of ours is started.",
    )
    credentials: Token | None = Field(
        default=None,
        description="Variable with the path of its credentials file, or with its token, as "
        "${NAME}.",
    )
    tls: JobsTls | None = Field(default=None, description="The certificates for it.")
    replicas: Literal[1, 3] = Field(
        default=1, description="On how many servers of its cluster each record lies."
    )
    store: JobsStore | None = Field(
        default=None,
        description="An object store for the files of jobs. Default: machines get them from each "
        "other, over NATS.",
    )


class Retention(Model):
    """What is kept of earlier generations."""

    generations: Annotated[int, Field(strict=True, ge=1)] = Field(
        default=3,
        description="How many good generations are kept with their environments and sources, the "
        "one that runs included; fewer when their volume runs low.",
    )


class Spec(Model):
    """The whole of machine.yaml."""

    workspace: PathText = Field(description="The folder that holds everything. Required.")
    machine_id: MachineId | None = Field(
        default=None,
        description="The machine's name in WORKER_ID, where several serve one queue. Default: the "
        "host's name.",
    )
    comfyui: ComfyUI = Field(description="ComfyUI itself. Required.")
    python: Python = Field(default_factory=Python, description="The Python environment.")
    custom_nodes: tuple[CustomNode, ...] = Field(default=(), description="Custom nodes.")
    registry: Registry = Field(
        default_factory=Registry, description="The registry of custom nodes, and advisories."
    )
    models: Models = Field(
        default_factory=Models, description="Where models lie, and which must be there."
    )
    instances: Instances = Field(
        default_factory=Instances, description="The ComfyUI processes, one per GPU."
    )
    health: Health = Field(
        default_factory=Health, description="When an instance counts as healthy."
    )
    workers: tuple[Worker, ...] = Field(
        default=(), description="Your processes beside each instance."
    )
    jobs: Jobs | None = Field(
        default=None,
        description="true, or its settings: jobs are queued and given to instances. Default: "
        "false.",
    )
    retention: Retention = Field(
        default_factory=Retention, description="What is kept of earlier generations, to go back to."
    )
