"""Checks of ComfyUI's arguments, ours and machine.yaml's, against the pinned ComfyUI."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..engine.run import Run
from ..host.comfyui import source_facts
from ..host.comfyui.source_facts import Code
from ..host.system import files, process
from ..host.system.failure import Failure
from ..spec import problem_at, tls
from ..spec.problems import Loc, did_you_mean

NEEDED_FLAGS = (
    "--listen", "--port", "--output-directory", "--input-directory", "--temp-directory",
    "--user-directory", "--extra-model-paths-config", "--cpu", "--quick-test-for-ci",
    "--disable-all-custom-nodes", "--whitelist-custom-nodes",
)  # fmt: skip
"""Without these flags, instances would share what each needs for itself, and no custom node could
be left out. `--database-url` isn't one: older ComfyUIs have no database, and without the flag the
database is in the user folder."""
OLDEST_RELEASE = "ComfyUI 0.3.44 (July 2025)"
"""The first release with all of them: `--whitelist-custom-nodes`, the last one, came with
ba9548f7 on 2025-06-28, after 0.3.43."""
_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")
"""argparse takes these as values, not flags."""


@dataclass(frozen=True)
class PinnedComfyUI:
    """The pinned ComfyUI, and the Python that can run its argument parser."""

    code: Code
    commit: str
    checkout: Path
    python: Path
    log: Path | None

    @property
    def name(self) -> str:
        return " ".join(filter(None, ["ComfyUI", self.code.version, f"({self.commit[:12]})"]))

    def first_refused(self, args: list[str]) -> tuple[int, str] | None:
        """The first argument that ComfyUI's own parser refuses: its index, and why."""
        env = process.allowed_environment(os.environ)
        return source_facts.first_refused(self.python, self.checkout, env, self.log, args)


def asset_flags(run: Run, code: Code) -> list[str]:
    """The flag that turns assets on or off, if this ComfyUI has it."""
    flag = "--enable-assets" if run.machine.instances.assets else "--disable-assets"
    return [flag] if flag in (code.flags or ()) else []


def reason_to_check(run: Run, code: Code, commit: object) -> str | None:
    """Why machine.yaml's arguments must be checked; None: this ComfyUI accepts them."""
    if code.flags is None or _read_record(run) == _record(run, commit):
        return None
    return "instances.args are not checked against this ComfyUI yet"


def check_arguments(run: Run, comfyui: PinnedComfyUI) -> None:
    """Raises Failure when this ComfyUI lacks a flag that we need, or refuses machine.yaml's.

    Accepts everything if its flags are unknown.
    """
    flags = comfyui.code.flags
    if flags is None:
        return
    if lacks := [flag for flag in NEEDED_FLAGS if flag not in flags]:
        raise Failure(
            f"{comfyui.name} doesn't know {', '.join(lacks)}, which every machine needs: the "
            f"oldest usable one is {OLDEST_RELEASE}; correct comfyui.ref"
        )
    problems = [*_unknown(run, comfyui, flags)] or [*_refused(run, comfyui)]
    if problems:
        raise Failure("\n    ".join(dict.fromkeys(problems)))
    files.write_receipt(run.layout.write_path(_receipt(run)), _record(run, comfyui.commit))


def argument_lists(run: Run) -> Iterator[list[tuple[str, Loc]]]:
    """The arguments of each group of instances, each argument with its place in machine.yaml."""
    common: list[tuple[str, Loc]] = [
        (arg, ("instances", "args", number))
        for number, arg in enumerate(run.machine.instances.args)
    ]
    yield common
    for gpu, own in run.machine.instances.overrides.items():
        where: Loc = ("instances", "overrides", gpu, "args")
        if own.args:
            yield [*common, *((arg, (*where, number)) for number, arg in enumerate(own.args))]


def file_problem(run: Run, comfyui: Callable[[], PinnedComfyUI]) -> str | None:
    """Why instances can't start with the files in machine.yaml's arguments, or None."""
    for pairs in argument_lists(run):
        args = [arg for arg, _ in pairs]
        found = _tls_problem(args)
        if found is None and any(_missing_path([arg]) for arg in args):
            found = comfyui().first_refused(args)
        if found:
            return str(problem_at(run.machine.file, pairs[found[0]][1], found[1]))
    return None


def _tls_problem(args: list[str]) -> tuple[int, str] | None:
    """A problem with the TLS key or certificate: the index of its argument, and why."""
    if tls.scheme(args) == "http":
        return None
    files = tls.named(args)
    for number, file in files.values():
        try:
            Path(file).read_bytes()
        except OSError as error:
            return number, f"{file} can't be read: {error.strerror}"
    (_, key), (number, certificate) = files[tls.KEY], files[tls.CERTIFICATE]
    try:
        # An instance can't ask anyone for a password.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError:
        return number, f"{certificate} doesn't match the key {key}, or the key has a password"
    return None


def _unknown(run: Run, comfyui: PinnedComfyUI, flags: frozenset[str]) -> Iterator[str]:
    for arg, loc in dict.fromkeys(pair for pairs in argument_lists(run) for pair in pairs):
        flag = arg.partition("=")[0]
        if not flag.startswith("-") or flag in {"-", "--"} or _NUMBER.match(arg) or flag in flags:
            continue
        # argparse accepts an unambiguous prefix of a flag.
        meant = sorted(each for each in flags if flag[:2] == "--" and each.startswith(flag))
        if len(meant) == 1:
            continue
        why = f"could be {' or '.join(meant[:4])}: write it in full" if meant else (
            f"is no flag of {comfyui.name}{did_you_mean(flag, flags)}"
        )  # fmt: skip
        yield str(problem_at(run.machine.file, loc, f"{flag} {why}"))


def _refused(run: Run, comfyui: PinnedComfyUI) -> Iterator[str]:
    for pairs in argument_lists(run):
        args = [arg for arg, _ in pairs]
        if found := comfyui.first_refused(args) if args else None:
            number, why = found
            text = str(problem_at(run.machine.file, pairs[number][1], f"{comfyui.name}: {why}"))
            if missing := _missing_path(args[number:]):
                # An image build doesn't have what is mounted later.
                run.warn(f"{text}; {missing} must exist when instances start")
            else:
                yield text


def _missing_path(args: list[str]) -> str | None:
    """The first of these values that is an absolute path to nothing, if any."""
    values = (arg.partition("=")[2] if arg.startswith("-") else arg for arg in args[:2])
    return next((v for v in values if v.startswith("/") and not os.path.exists(v)), None)  # noqa: PTH110


def _receipt(run: Run) -> Path:
    return run.layout.receipts / "arguments.json"


def _read_record(run: Run) -> dict[str, object]:
    return files.read_receipt(run.layout.read_path(_receipt(run)))


def _record(run: Run, commit: object) -> dict[str, object]:
    lists = [[arg for arg, _ in pairs] for pairs in argument_lists(run)]
    return {"commit": commit, "args": lists}
