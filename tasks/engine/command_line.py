"""The options that every command of comfy-machine takes, and what is said of a mistyped word."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from getopt import GetoptError, gnu_getopt
from typing import Any

from doit.cmdparse import CmdParseError
from doit.exceptions import InvalidCommand

from ..host.system.program_files import PROGRAM
from ..spec.problems import did_you_mean


@dataclass(frozen=True)
class Option:
    """`--name`, which is also doit's variable `name=`."""

    name: str
    says: str
    short: str = ""
    value: str = ""
    """What its value is called; empty: it takes none, and sets the variable to 1."""


OPTIONS = (
    Option("machine", "another machine file than machine.yaml; also MACHINE", "m", "FILE"),
    Option("locked", "fail rather than change machine.lock"),
    Option("force", "try a refused generation again"),
)
ASSIGNING = ("--set",)
"""Options of commands whose values are assignments."""
NAMES = tuple(option.name for option in OPTIONS)


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take OPTIONS out of a command line, up to `--`: the other words, and doit's variables.

    Raises InvalidCommand where a value is missing.
    """
    words, variables, left = list[str](), dict[str, str](), list(arguments)
    while left:
        word = left.pop(0)
        if word == "--":
            return [*words, word, *left], variables
        option = next((each for each in OPTIONS if _names(each, word)), None)
        if word in ASSIGNING and left:
            # doit would take the next word for a variable.
            words.append(f"{word}={left.pop(0)}")
        elif option is None:
            words.append(word)
        elif not option.value:
            variables[option.name] = "1"
        else:
            variables[option.name] = _value(option, word, left)
    return words, variables


def _names(option: Option, word: str) -> bool:
    if option.value and word.startswith((f"--{option.name}=", f"-{option.short}")):
        return True
    return word == f"--{option.name}"


def _value(option: Option, word: str, left: list[str]) -> str:
    if word.startswith(f"--{option.name}="):
        value = word.partition("=")[2]
    elif word in (f"-{option.short}", f"--{option.name}"):
        value = left.pop(0) if left else ""
    else:
        value = word[2:]
    if not value:
        raise InvalidCommand(f"{word.rstrip('=')} needs a {option.value}")
    return value


def describe(error: CmdParseError, options: Iterable[str]) -> CmdParseError:
    """doit's error in one line; `options` are the long names of the command's own."""
    cause = error.__context__
    if not isinstance(cause, GetoptError):
        return error
    known = [f"--{name}" for name in ("version", *options, *(each.name for each in OPTIONS))]
    return CmdParseError(f"{cause.msg}{did_you_mean(f'--{cause.opt}', known)}")


def unknown(name: str, tasks: Collection[str], commands: Collection[str] = ()) -> InvalidCommand:
    """The error that says `name` is neither a command nor a task."""
    what = "command or task" if commands else "task"
    advice = f"; {PROGRAM} list shows the tasks"
    if commands:
        advice += f", {PROGRAM} help the commands"
    return InvalidCommand(f"no {what} {name!r}{did_you_mean(name, [*commands, *tasks]) or advice}")


def options_first(words: Sequence[str], parser: Any) -> list[str]:
    """Words for doit, whose options end at the first name; here they may follow names, as GNU's
    do. Wrong ones come back as they are: doit says what is wrong."""
    short, long = parser.get_short(), parser.get_long()
    try:
        options, names = gnu_getopt(list(words), short, long)
    except GetoptError:
        return list(words)
    found: list[str] = []
    for option, value in options:
        with_value = f"{option[2:]}=" in long if option[:2] == "--" else f"{option[1]}:" in short
        found += [option, value] if with_value else [option]
    return [*found, *(["--"] if names else []), *names]
