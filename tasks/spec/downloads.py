"""Addresses of models, as people copy them from a page, and the tokens for their hosts."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from .problems import has_control, shown
from .variables import VARIABLE, check_variable

DEFAULT_TOKENS = {"huggingface.co": "${HF_TOKEN}", "civitai.com": "${CIVITAI_TOKEN}"}
"""What is used where machine.yaml names no variable of its own."""
_ALIASES = {"hf.co": "huggingface.co", "www.huggingface.co": "huggingface.co",
            "www.civitai.com": "civitai.com", "www.github.com": "github.com"}  # fmt: skip
_HOST = re.compile(r"^(?:[a-z0-9_](?:[a-z0-9._-]*)|\[[0-9a-f:.]+\])(?::\d+)?$")
_SECRETS = re.compile(r"^(?:token|.*[_-]token|api_?key|key|sig|.*signature|password|secret)$", re.I)
_CIVITAI_MODEL = re.compile(r"/models/(\d+)(?:/[^/]*)?")
_CIVITAI_DOWNLOAD = re.compile(r"/api/download/models/\d+")


def parse_download(text: str) -> str:
    """The address that gives the file itself. Raises ValueError, which never repeats a secret.

    A link to a page of Hugging Face, Civitai or GitHub becomes the one behind its download
    button; a Civitai page that names no version stays, its newest version is asked for.
    """
    text = text.strip()
    if not re.match(r"https?://", text, re.I):
        raise ValueError("a URL such as https://host/file; a file on a disk is given as source:")
    if has_control(text) or re.search(r"[\s\\]", text):
        raise ValueError("the URL holds a space, a backslash or a control character: encode it")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("this is no URL: its host or port can't be read") from None
    if "@" in parts.netloc:
        raise ValueError("the URL holds credentials: remove them, and name a variable in "
                         "models.tokens")  # fmt: skip
    host = parts.netloc.lower()
    if not _HOST.match(host):
        raise ValueError("the URL's host can't be read")
    parts = parts._replace(
        scheme=parts.scheme.lower(), netloc=_ALIASES.get(host, host), fragment=""
    )
    _refuse_secrets(parts)
    if not parts.path.strip("/") and not parts.query:
        raise ValueError("the URL names no file")
    return urlunsplit(_of_page(parts))


def _refuse_secrets(parts: SplitResult) -> None:
    if "${" in parts.netloc + parts.path:
        raise ValueError("${NAME} is understood in the part after the ? only")
    if "${" in re.sub(VARIABLE, "", parts.query):
        raise ValueError("a variable is written ${NAME}, with nothing else between the braces")
    if "${" in parts.query and parts.scheme != "https":
        raise ValueError("a secret is sent over https:// only")
    for name, value in parse_qsl(parts.query):
        if _SECRETS.match(name) and not re.fullmatch(VARIABLE, value):
            raise ValueError(
                f"the URL holds a secret ({shown(name)}=): remove it and name a variable in "
                f"models.tokens, or write {shown(name)}=${{NAME}}"
            )


def _of_page(parts: SplitResult) -> SplitResult:
    if parts.netloc == "huggingface.co":
        return _of_hugging_face(parts)
    if parts.netloc == "civitai.com":
        return _of_civitai(parts)
    if parts.netloc == "github.com":
        return parts._replace(path=re.sub(r"^(/[^/]+/[^/]+)/blob/", r"\1/raw/", parts.path))
    return parts


def _of_hugging_face(parts: SplitResult) -> SplitResult:
    """`/ORG/NAME/resolve/REVISION/FILE`, from the page of the file."""
    path = re.sub(r"/+", "/", parts.path)
    if path.startswith("/api/"):
        return parts
    match = re.fullmatch(r"((?:/[^/]+){1,3})/(?:blob|resolve|raw)/([^/]+)/(.+[^/])", path)
    if match is None:
        raise ValueError(
            "this page of Hugging Face is no file: open the file on it and copy that link"
        )
    # `download=true` only says how a browser is to treat it.
    return parts._replace(path=f"{match[1]}/resolve/{match[2]}/{match[3]}", query="")


def _of_civitai(parts: SplitResult) -> SplitResult:
    if _CIVITAI_DOWNLOAD.fullmatch(parts.path):
        return parts
    if match := _CIVITAI_MODEL.fullmatch(parts.path.rstrip("/")):
        version = dict(parse_qsl(parts.query)).get("modelVersionId")
        if version is None:
            return parts._replace(path=f"/models/{match[1]}", query="")
        if version.isascii() and version.isdigit():
            return parts._replace(path=f"/api/download/models/{version}", query="")
    raise ValueError("this page of Civitai is no model: copy the link of the model or its version")


def check_token_host(text: str) -> str:
    """The exact host that a token is for. Raises ValueError."""
    host = text.lower()
    if not _HOST.match(host):
        raise ValueError("an exact host such as huggingface.co, without https:// or a path")
    return _ALIASES.get(host, host)


def check_token(text: str) -> str:
    """A token is named, never written down. Raises ValueError, which doesn't repeat it."""
    if not re.fullmatch(VARIABLE, text):
        raise ValueError("a token is no part of this file: write ${NAME}, and set that variable")
    check_variable(text[2:-1])
    return text
