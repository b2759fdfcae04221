"""Package indexes and wheel pages, which uv gets by environment variables: every user of the
machine can read an argument list, and some of the URLs contain credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit

from ..host.system.failure import Failure
from ..spec import expand


def environment(urls: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that make uv ask these indexes in order, before those of UV_INDEX.

    `urls` is python.extra_index_urls; `environ` has the values of its `${NAME}`, and the
    caller's UV_INDEX. Raises Failure for a variable that isn't set.
    """
    if not urls:
        return {}
    indexes, credentials = [], {}
    for number, text in enumerate(urls):
        url, user, password = _split_credentials("python.extra_index_urls", text, environ)
        # uv derives the names of the variables from the name of the index.
        indexes.append(f"machine-yaml-{number}={url}")
        credentials[f"UV_INDEX_MACHINE_YAML_{number}_USERNAME"] = user
        credentials[f"UV_INDEX_MACHINE_YAML_{number}_PASSWORD"] = password
    given = {name: value for name, value in credentials.items() if value}
    return {"UV_INDEX": " ".join([*indexes, environ.get("UV_INDEX", "")]).strip()} | given


def find_links(places: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variable that makes uv look for wheels in these places and those of UV_FIND_LINKS.

    `places` is python.find_links, with absolute folders. uv ignores the variable when the
    command line has --find-links. Raises Failure for a variable that isn't set.
    """
    if not places:
        return {}
    links = [_find_link(place, environ) for place in places]
    return {"UV_FIND_LINKS": ",".join([*links, environ.get("UV_FIND_LINKS", "")]).strip(",")}


def _find_link(place: str, environ: Mapping[str, str]) -> str:
    """A place as the variable has it; uv splits it at commas, so a URL's commas are escaped."""
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", place):
        return Path(place).as_uri()
    url, *credentials = _split_credentials("python.find_links", place, environ)
    userinfo = ":".join(quote(each, safe="") for each in credentials if each)
    return url.replace(",", "%2C").replace("://", f"://{userinfo}@" if userinfo else "://", 1)


def _split_credentials(field: str, text: str, environ: Mapping[str, str]) -> tuple[str, str, str]:
    """A URL without its credentials, then the user and the password, expanded."""
    userinfo, at, _ = urlsplit(text).netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    url = text.replace(f"://{userinfo}{at}", "://", 1)
    return url, _expand(field, user, environ), _expand(field, password, environ)


def _expand(field: str, text: str, environ: Mapping[str, str]) -> str:
    filled = {name: value for name, value in environ.items() if value}
    try:
        return expand(text, filled)
    except KeyError as error:
        raise Failure(
            f"the variable {error.args[0]} isn't set, and {field} needs it: set it, or put it "
            "into .env.local beside the machine file"
        ) from None
