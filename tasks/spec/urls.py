"""Git URLs and refs, as copied from a web page or a command line."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit

from .problems import has_control, shown
from .variable_references import VARIABLE

_CLONE = re.compile(r"^git\s+clone\s+")
_TRANSPORT = re.compile(r"^[A-Za-z0-9+.-]*::")
_SCP = re.compile(
    r"^(?:(?P<user>[^/@:\[\]]+)@)?(?P<host>[^/@:\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<path>.+)$"
)
_HOST = re.compile(r"^(?:[A-Za-z0-9_](?:[A-Za-z0-9._-]*)|\[[0-9A-Fa-f:.]+\])(?::\d+)?$")
_USER = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._+-]*$")
_CREDENTIALS = "the URL holds credentials: remove them and use git's credential configuration"

_AS_VARIABLES = "https://${USER}:${TOKEN}@host/… or https://${TOKEN}@host/…"
_VARIABLES_AS_CREDENTIALS = re.compile(rf"^(https?://){VARIABLE}(?::{VARIABLE})?@", re.I)


class Remote(NamedTuple):
    """A repository's URL, and the ref if the text was the page of one."""

    url: str
    ref: str | None


def parse_remote(text: str) -> Remote:
    """Parse a repository's URL. Raises ValueError, which never repeats a secret."""
    text = _CLONE.sub("", text.strip().strip("'\"`").strip()).strip().strip("'\"`").strip()
    _refuse_unusable(text)
    if "://" in text:
        return _from_url(text)
    if text.startswith("/"):
        return Remote(os.path.normpath(text), None)
    return _from_scp(text)


def repository_name(url: str) -> str:
    """The folder name that `git clone` would use: the last part, without `.git`."""
    last = re.split(r"[/:]", url.rstrip("/"))[-1]
    return last.removesuffix(".git")


def same_repository(one: str, other: str) -> bool:
    """Whether two parsed URLs name the same repository."""
    return one.removesuffix(".git").casefold() == other.removesuffix(".git").casefold()


def repository_key(url: str) -> str:
    """What tells repositories apart, however they are reached: github.com/owner/name."""
    _, scheme, rest = url.rpartition("://")
    place = rest.rpartition("@")[2] if "@" in rest.partition("/")[0] else rest
    # An scp-like address has a colon where the others have a slash.
    place = place if scheme else place.replace(":", "/", 1)
    return place.strip("/").removesuffix(".git").removeprefix("www.").casefold()


def check_ref(ref: str) -> str:
    """A branch, tag or commit by the rules of git-check-ref-format. Raises ValueError."""
    if not ref:
        raise ValueError("the ref is empty: give a branch, tag or commit, or remove it")
    if ref[0] in "-+":
        raise ValueError(f"a ref must not begin with {ref[0]}")
    parts = ref.split("/")
    if (
        has_control(ref)
        or re.search(r"[\s~^:?*\[\\]|\.\.|@\{", ref)
        or ref == "@"
        or ref.endswith(".")
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    ):
        raise ValueError(f"{shown(ref)!r} isn't a branch, tag or commit")
    return ref


def refuse_url_credentials(text: str) -> str:
    """Raise ValueError for a URL with a user or password; ssh URLs may have a user."""
    for scheme, user in re.findall(r"([A-Za-z0-9+.-]+)://([^/?#\s]*)@", text):
        if not scheme.endswith("ssh") or ":" in user:
            raise ValueError("the URL holds credentials: remove them and use ~/.netrc")
    return text


def check_index(text: str) -> str:
    """A package index: an http or file URL, whose user and password may be variables.

    Raises ValueError, whose text never repeats a secret.
    """
    if not re.fullmatch(r"(?:https?|file)://\S+", text, re.I):
        raise ValueError("must be a URL such as https://host/simple")
    return check_place_of_wheels(text)


def check_place_of_wheels(text: str) -> str:
    """A folder or a page with wheels; a URL's user and password may be variables.

    Raises ValueError, whose text never repeats a secret.
    """
    bare = _VARIABLES_AS_CREDENTIALS.sub(r"\1", text)
    try:
        refuse_url_credentials(bare)
    except ValueError as error:
        raise ValueError(f"{error}, or variables: {_AS_VARIABLES}") from None
    if "${" in bare:
        raise ValueError(f"${{…}} is understood as user and password only: {_AS_VARIABLES}")
    return text


def _refuse_unusable(text: str) -> None:
    if not text:
        raise ValueError("the URL is empty")
    if re.match(r"^(?:[a-z+]+://)?[^/\s]*:[^/\s]*@", text) or re.match(r"^https?://[^/]*@", text):
        raise ValueError(_CREDENTIALS)
    if text.startswith("-"):
        raise ValueError("a URL must not begin with -")
    if has_control(text) or "\\" in text:
        raise ValueError("the URL holds a control character or a backslash")
    if _TRANSPORT.match(text):
        raise ValueError("transports such as ext:: are refused: use https:// or ssh://")
    if "${" in text:
        raise ValueError("${…} is understood in env values only")
    if re.search(r"\s", text):
        raise ValueError("give the URL alone; options of git clone are name:, ref: and recursive:")


def _from_url(text: str) -> Remote:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("this isn't a URL: its host or port can't be read") from None
    user, _, host = parts.netloc.rpartition("@")
    if parts.scheme not in {"https", "http", "ssh", "file"}:
        raise ValueError(
            f"{shown(parts.scheme)}:// is not supported: use https://, ssh:// or file://"
        )
    if ":" in user or (user and parts.scheme != "ssh"):
        raise ValueError(_CREDENTIALS)
    if parts.query or parts.fragment or text[-1] in "?#":
        raise ValueError("remove what follows ? or # in the URL")
    if parts.scheme == "file":
        if host not in {"", "localhost"} or not parts.path.strip("/"):
            raise ValueError("write a local repository as file:///absolute/path")
        return Remote("file://" + os.path.normpath("/" + parts.path.lstrip("/")), None)
    if not _HOST.match(host) or (user and not _USER.match(user)):
        raise ValueError("the URL's host can't be read")
    path = re.sub(r"/+", "/", parts.path).strip("/")
    if not path or path.startswith("-"):
        raise ValueError("the URL names no repository")
    base = f"{parts.scheme}://{parts.netloc}"
    if host.lower().removeprefix("www.") == "github.com" and parts.scheme != "ssh":
        return _from_github(base, path.split("/"))
    return Remote(f"{base}/{path}", None)


def _from_github(base: str, parts: list[str]) -> Remote:
    if len(parts) < 2:
        raise ValueError("the URL names an owner, not a repository: https://github.com/owner/name")
    url = "/".join([base, *parts[:2]])
    page = parts[2:]
    if not page:
        return Remote(url, None)
    if len(page) == 2 and page[0] in {"tree", "commit"}:
        return Remote(url, check_ref(page[1]))
    if len(page) == 3 and page[:2] == ["releases", "tag"]:
        return Remote(url, check_ref(page[2]))
    raise ValueError(f"this is a page of the repository: write {shown(url)}, and the rest as ref:")


def _from_scp(text: str) -> Remote:
    match = _SCP.match(text)
    if match is None:
        guess = re.match(r"^(?:github\.com/)?([\w-]+/[\w.-]+)/?$", text)
        hint = f": write https://github.com/{guess[1]}" if guess else ""
        raise ValueError(f"this isn't a git URL{hint or '; a local directory is given as path:'}")
    if not _HOST.match(match["host"]) or (match["user"] and not _USER.match(match["user"])):
        raise ValueError("the URL's host can't be read")
    if not match["path"].strip("/") or match["path"].startswith("-"):
        raise ValueError("the URL names no repository")
    return Remote(text.rstrip("/"), None)
