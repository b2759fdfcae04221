"""Write the reference pages from the code: `python docs/generate.py`; `--check` compares only.

machine.yaml's fields come from its JSON Schema, commands from their help, endpoints from OpenAPI,
metrics from a scrape of sample answers, conditions and exit codes from their tables.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

from prometheus_client import CollectorRegistry

from comfy_machine.cli import Program
from comfy_machine.host.comfyui import condition
from comfy_machine.host.comfyui.reasons import MEANINGS
from comfy_machine.services.gateway import gateway_app, job_answers
from comfy_machine.services.gateway.job_desk import JobDesk
from comfy_machine.services.gateway.native_socket import NativeSocket
from comfy_machine.services.health.sampling.sampler import Sampler
from comfy_machine.services.health.web import endpoints
from comfy_machine.services.health.web.metrics import Collector
from comfy_machine.services.jobs.job_settings import Settings
from comfy_machine.spec.json_schema import schema
from tests.services import samples

PAGES = Path(__file__).parent / "reference"
PROGRAM = Path(sys.executable).parent / "comfy-machine"
NOTE = "<!-- Written by docs/generate.py from the code. -->\n"


def machine_file() -> Iterator[str]:
    whole = schema()
    yield "# machine.yaml\n"
    yield (
        "Every field, with its type and default. `comfy-machine schema` prints the same as JSON "
        "Schema, with which editors complete and check the file. The project's own "
        "[machine.yaml](../../machine.yaml) has every field with a comment.\n"
    )
    yield "## At the top\n"
    yield from _fields(whole)
    for name, at in _parts(whole).items():
        yield f"## {at}\n"
        yield from _fields(whole["$defs"][name])


def _parts(whole: Mapping[str, Any]) -> dict[str, str]:
    """Definition → where in machine.yaml it is, in the order of their appearance."""
    found: dict[str, str] = {}
    waiting = [("", whole)]
    while waiting:
        above, part = waiting.pop(0)
        for name, field in part.get("properties", {}).items():
            for reference in re.findall(r"#/\$defs/(\w+)", str(field)):
                if reference not in found:
                    many = "[]" if field.get("type") == "array" else ""
                    found[reference] = f"{above}{name}{many}"
                    waiting.append((f"{found[reference]}.", whole["$defs"][reference]))
    return found


def _fields(part: Mapping[str, Any]) -> Iterator[str]:
    yield "| field | type | default | |"
    yield "|---|---|---|---|"
    needed = part.get("required", [])
    for name, field in part.get("properties", {}).items():
        default = "required" if name in needed else _code(field.get("default"))
        yield f"| `{name}` | {_type(field)} | {default} | {_cell(field.get('description', ''))} |"
    yield ""


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if options := field.get("anyOf") or field.get("oneOf"):
        return " or ".join(dict.fromkeys(map(_type, options)))
    if reference := field.get("$ref"):
        return f"{reference.rpartition('/')[2]}"
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}))}"
    if field.get("type") == "object":
        return "mapping"
    return str(field.get("type", "any"))


def _code(value: object) -> str:
    if value is None:
        return ""
    return f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def commands() -> Iterator[str]:
    yield "# Commands\n"
    yield (
        "`comfy-machine` makes the machine match machine.yaml; everything else is a command. It is "
        "[doit](https://pydoit.org) with our tasks: in a clone of the project, and in an image, "
        "`doit` takes the same words. `comfy-machine help COMMAND` prints what is here.\n"
    )
    for name in sorted(Program().get_cmds()):
        words = [str(PROGRAM), "help", name]
        said = subprocess.run(words, capture_output=True, text=True, check=True, cwd=PAGES).stdout
        yield f"## {name}\n\n```text\n{said.rstrip()}\n```\n"


def http() -> Iterator[str]:
    app = endpoints.application(cast(Sampler, SimpleNamespace(board=None)), lambda: None)
    document = app.openapi()
    yield "# HTTP\n"
    yield (
        "The health server (port 9090, `health.port`). The code is 200 while the machine serves "
        "and 503 when it doesn't. No request waits for an instance: answers come from samples "
        "about a second old (`age`, in seconds). `/openapi.json` has all of this for programs, "
        "with the form of each answer.\n"
    )
    yield "| GET | answers | codes |"
    yield "|---|---|---|"
    for path, methods in document["paths"].items():
        about = methods["get"]
        says = about.get("description") or about.get("summary", "")
        yield f"| `{path}` | {_cell(says)} | {', '.join(sorted(about['responses']))} |"
    yield "| `/` | The page, for browsers. | 200 |\n"
    yield "With `?wait=30` an answer waits that many seconds, at most 600, for 200.\n"
    yield "| parameter | of | |"
    yield "|---|---|---|"
    for path, methods in document["paths"].items():
        for each in methods["get"].get("parameters", []):
            yield f"| `{each['name']}` | `{path}` | {_cell(each.get('description', ''))} |"


def gateway() -> Iterator[str]:
    settings = Settings(Path("workspace"), "machine", "nats://127.0.0.1:4222")
    app = gateway_app.application(JobDesk(settings), "", lambda: None)
    rows = [
        f"| {method.upper()} | `{path}` | {_cell(about['description'])} |"
        for path, methods in app.openapi()["paths"].items()
        for method, about in methods.items()
    ]
    ours = [row for row in rows if f"`{job_answers.PREFIX}" in row]
    yield "# The gateway\n"
    yield (
        "With `jobs` in machine.yaml, one address (port 8180, `jobs.gateway_port`) takes jobs for "
        "all instances. They are kept until an instance can run them, and for `jobs.keep` days "
        "after they ended. With `jobs.token` each request needs the header `Authorization` with "
        "`Bearer` and the token, or the token as the password of Basic authentication, which "
        "browsers ask for; without, only clients on this machine are answered.\n"
    )
    yield "## Comfy API v2\n"
    yield (
        "What `comfy-sdk` uses, with `COMFY_BASE_URL` set to the address. A submission with the "
        "`Idempotency-Key` of an earlier one is refused, and the refusal names the job. Refusals "
        "are JSON: `error.code`, `error.message`, `error.details`. 429 with `Retry-After` asks to "
        "come again: `queue_full` (`jobs.max_queued`), `deployment_not_ready` (the store of jobs "
        "is away).\n"
    )
    yield "| method | path | what |"
    yield "|---|---|---|"
    yield from ours
    yield "\n## ComfyUI's own protocol\n"
    yield (
        "For clients that expect one ComfyUI, its own page among them, which the address shows in "
        "a browser. Each path is there below `/api` too. The page, its settings and its saved "
        "workflows are those of one instance, the first of this machine by name. What is written "
        "reaches it at `/settings`, `/userdata` and `/users` alone; other writes, "
        "as of `/free` or ComfyUI-Manager, are refused with 403 and the instance's address.\n"
    )
    yield "| method | path | what |"
    yield "|---|---|---|"
    yield from (row for row in rows if row not in ours)
    yield f"| WebSocket | `/ws` | {_cell(str(NativeSocket.serve.__doc__))} |"


def metrics() -> Iterator[str]:
    yield "# Metrics\n"
    yield "What Prometheus scrapes at `/metrics`. 1 is true, 0 is false.\n"
    yield "| metric | type | labels | |"
    yield "|---|---|---|---|"
    registry = CollectorRegistry()
    registry.register(Collector(lambda: _answers()))
    for family in registry.collect():
        # Also of a family without samples; samples repeat them.
        labels = getattr(family, "_labelnames", ())
        shown = ", ".join(f"`{label}`" for label in labels)
        end = "_total" if family.type == "counter" else ""
        yield f"| `{family.name}{end}` | {family.type} | {shown} | {family.documentation} |"


def _answers() -> Any:
    topics = samples.installing() | samples.with_jobs(samples.healthy(1))
    told = {name: SimpleNamespace(verdict=each, sampled=None) for name, each in topics.items()}
    return SimpleNamespace(**told, by_gpu={0: SimpleNamespace(sampled=None)})


def conditions() -> Iterator[str]:
    yield "# Conditions\n"
    yield (
        "Health is told as conditions, in Kubernetes' form: `type`, `status` (True, False, "
        "Unknown), `reason` (a code for programs), `message`, `since`, and `observed`: the "
        "process, or the machine.yaml and lock, that it speaks of.\n"
    )
    yield f"- of the machine: {_listed(get_args(condition.MachineType))}"
    yield f"- of an instance: {_listed(get_args(condition.InstanceType))}\n"
    yield f"The health that follows is one of {_listed(get_args(condition.Health))}. With "
    yield f"{_listed(tuple(condition.HEALTHY))} the answer is 200 and the exit code 0.\n"
    yield "| reason | means |"
    yield "|---|---|"
    for reason in get_args(condition.Reason):
        yield f"| `{reason}` | {MEANINGS[reason]} |"


def _listed(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" for value in values)


GENERATED: Mapping[str, Callable[[], Iterator[str]]] = {
    "machine-file": machine_file,
    "commands": commands,
    "http": http,
    "gateway": gateway,
    "metrics": metrics,
    "conditions": conditions,
}


def main() -> int:
    """0: all are as the code says; 1: with --check, some aren't."""
    check, stale = "--check" in sys.argv[1:], []
    for name, write in GENERATED.items():
        page = PAGES / f"{name}.md"
        text = NOTE + "\n".join(write()).rstrip() + "\n"
        if not page.exists() or page.read_text() != text:
            stale.append(page.name)
            if not check:
                page.write_text(text)
    if stale:
        print(f"{'stale' if check else 'written'}: {', '.join(stale)}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
