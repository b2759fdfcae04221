"""Download URLs of models, as copied from a web page, and the tokens for their hosts."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit, urlunsplit

from .problems import has_control, shown
from .variable_references import VARIABLE, check_variable

DEFAULT_TOKENS = {"huggingface.co": "${HF_TOKEN}", "civitai.com": "${CIVITAI_TOKEN}"}
"""Tokens for hosts that machine.yaml doesn't name."""
_ALIASES = {"hf.co": "huggingface.co", "www.huggingface.co": "huggingface.co",
            "www.civitai.com": "civitai.com", "www.github.com": "github.com"}  # fmt: skip
_HOST = re.compile(r"(?:[a-z0-9_][a-z0-9._-]*|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_SECRETS = re.compile(
    r".*token|.*signature|(?:.*[._-])?(?:api[_-]?key|key|sig|pass|passwd|password|pwd|secret|auth|"
    r"authorization|jwt|credentials?)", re.I)  # fmt: skip
#: URLs that need no further check, for machines with thousands of models.
_PLAIN = re.compile(
    r"https?://(?!(?:www\.)?(?:hf\.co|huggingface\.co|civitai\.com|github\.com)[:/])"
    r"[a-z0-9][a-z0-9.-]*(?::(?!443/|80/)(?:[1-5][0-9]{4}|[1-9][0-9]{0,3}))?/[A-Za-z0-9/._~-]*[A-Za-z0-9_~-]"
)
_HUGGING_FACE = re.compile(
    r"((?:/(?:datasets|spaces))?/[^/]+(?:/[^/]+)?)/(?:blob|resolve|raw)/"
    r"(refs/(?:pr|convert)/[^/]+|[^/]+)/(.*[^/])"
)
_CIVITAI_MODEL = re.compile(r"/models/([0-9]+)(?:/[^/]*)?")
_CIVITAI_DOWNLOAD = re.compile(r"/api/download/(?:models|attachments)/[0-9]+")
_GITHUB_PAGE = re.compile(r"/[^/]+(?:/[^/]+(?:/(?:tree/.*|commit/.*|releases(?:/tag/.*)?))?)?")


def parse_download(text: str) -> str:
    """The URL of the file itself. Raises ValueError, which never repeats a secret.

    A link to a page of Hugging Face, Civitai or GitHub becomes the link of its download button. A
    Civitai page without a version stays as it is and means the newest version.
    """
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return text
    if not re.match(r"https?://", text, re.I):
        raise ValueError(
            "must be a URL such as https://host/file; a file on a disk is given as source:"
        )
    if has_control(text) or re.search(r"[\s\\]", text):
        raise ValueError("the URL holds a space, a backslash or a control character: encode it")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise ValueError("this isn't a URL: its host or port can't be read") from None
    if "@" in parts.netloc:
        raise ValueError("the URL holds credentials: remove them, and name a variable in "
                         "models.tokens")  # fmt: skip
    scheme, host = parts.scheme.lower(), parts.netloc.lower()
    if not parts.netloc.isascii() or not _HOST.fullmatch(host):
        raise ValueError("the URL's host can't be read")
    host = host.removesuffix(":443" if scheme == "https" else ":80")
    host = _ALIASES.get(host, host)
    if host in _ALIASES.values():
        scheme = "https"
    parts = parts._replace(scheme=scheme, netloc=host, fragment="")
    _refuse_secrets(parts)
    if not parts.path.strip("/") and not parts.query:
        raise ValueError("the URL names no file")
    if convert := _PAGES.get(host):
        parts = convert(parts)
    return urlunsplit(parts)


def _refuse_secrets(parts: SplitResult) -> None:
    if "${" in parts.netloc + parts.path:
        raise ValueError("${NAME} is understood in the part after the ? only")
    if "${" in re.sub(VARIABLE, "", parts.query):
        raise ValueError("a variable is written ${NAME}, with nothing else between the braces")
    if "${" in parts.query and parts.scheme != "https":
        raise ValueError("a secret is sent over https:// only")
    for name, value in parse_qsl(parts.query.replace(";", "&")):
        if _SECRETS.fullmatch(name) and not re.fullmatch(VARIABLE, value):
            raise ValueError(
                f"the URL holds a secret ({shown(name)}=): remove it and name a variable in "
                f"models.tokens, or write {shown(name)}=${{NAME}}"
            )


def _of_github(parts: SplitResult) -> SplitResult:
    path = re.sub(r"/+", "/", parts.path)
    if _GITHUB_PAGE.fullmatch(path.rstrip("/")):
        raise ValueError("this page of GitHub isn't a file: open the file on it and copy that link")
    return parts._replace(path=re.sub(r"^(/[^/]+/[^/]+)/blob/", r"\1/raw/", path))


def _of_hugging_face(parts: SplitResult) -> SplitResult:
    """`/ORG/NAME/resolve/REVISION/FILE` from the page of a file."""
    path = re.sub(r"/+", "/", parts.path)
    if path.startswith("/api/"):
        return parts
    match = _HUGGING_FACE.fullmatch(path)
    if match is None:
        raise ValueError(
            "this page of Hugging Face isn't a file: open the file on it and copy that link"
        )
    # The query, such as download=true, only matters to browsers.
    revision = match[2].replace("/", "%2F")
    return parts._replace(path=f"{match[1]}/resolve/{revision}/{match[3]}", query="")


def _of_civitai(parts: SplitResult) -> SplitResult:
    path = re.sub(r"/+", "/", parts.path).rstrip("/")
    if _CIVITAI_DOWNLOAD.fullmatch(path):
        return parts._replace(path=path)
    if match := _CIVITAI_MODEL.fullmatch(path):
        version = dict(parse_qsl(parts.query)).get("modelVersionId")
        if version is None:
            return parts._replace(path=f"/models/{match[1]}", query="")
        if version.isascii() and version.isdigit():
            return parts._replace(path=f"/api/download/models/{version}", query="")
    raise ValueError("this page of Civitai isn't a model: copy the link of a model or version")


_PAGES = {
    "huggingface.co": _of_hugging_face,
    "civitai.com": _of_civitai,
    "github.com": _of_github,
}


def check_token_host(text: str) -> str:
    """The exact host that a token is for. Raises ValueError."""
    host = text.lower()
    if not text.isascii() or not _HOST.fullmatch(host) or int(_port(host) or 443) > 65535:
        raise ValueError("must be an exact host such as huggingface.co, without https:// or a path")
    host = host.removesuffix(":443")
    return _ALIASES.get(host, host)


def _port(host: str) -> str:
    return host.rpartition(":")[2] if ":" in host.rpartition("]")[2] else ""


def check_token(text: str) -> str:
    """A token must be a `${NAME}`. Raises ValueError, which doesn't repeat the text."""
    if not re.fullmatch(VARIABLE, text):
        raise ValueError("a token must not be in this file: write ${NAME}, and set that variable")
    check_variable(text[2:-1])
    return text
