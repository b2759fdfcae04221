"""Links to models as people copy them, what is refused, and that no secret is repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfy_machine.spec.downloads import check_token, check_token_host, parse_download
from tests.spec.conftest import Lines, Load

HF = "https://huggingface.co"
FILE = f"{HF}/org/name/resolve/main/x.safetensors"
CIVITAI = "https://civitai.com"
HUB = "https://github.com/owner/repo"


@pytest.mark.parametrize(
    ("copied", "address"),
    [
        (FILE, FILE),
        (f"  {FILE}\n", FILE),
        (f"{HF}/org/name/blob/main/x.safetensors", FILE),
        (f"{HF}/org/name/raw/main/x.safetensors", FILE),
        (f"{FILE}?download=true", FILE),
        (f"{HF}/org/name/blob/main/x.safetensors?show_file_info=x.safetensors#L1", FILE),
        ("https://hf.co/org/name/blob/main/x.safetensors", FILE),
        ("https://www.huggingface.co/org/name/blob/main/x.safetensors", FILE),
        ("HTTPS://HuggingFace.CO/org/name/blob/main/x.safetensors", FILE),
        ("http://huggingface.co/org/name/blob/main/x.safetensors", FILE),
        ("https://huggingface.co:443/org/name/blob/main/x.safetensors", FILE),
        ("http://hf.co:80/org/name/blob/main/x.safetensors", FILE),
        (f"{HF}//org/name//blob/main/x.safetensors", FILE),
        (f"{HF}/gpt2/blob/main/model.safetensors", f"{HF}/gpt2/resolve/main/model.safetensors"),
        (f"{HF}/org/name/blob/main/a/b/c.pt", f"{HF}/org/name/resolve/main/a/b/c.pt"),
        (f"{HF}/org/name/blob/main/f", f"{HF}/org/name/resolve/main/f"),
        (f"{HF}/org/name/blob/main/blob/main/f", f"{HF}/org/name/resolve/main/blob/main/f"),
        (f"{HF}/gpt2/blob/main/resolve/x/f", f"{HF}/gpt2/resolve/main/resolve/x/f"),
        (f"{HF}/org/resolve/blob/main/f", f"{HF}/org/resolve/resolve/main/f"),
        (f"{HF}/datasets/squad/blob/main/a.json", f"{HF}/datasets/squad/resolve/main/a.json"),
        (f"{HF}/datasets/org/d/blob/v1/a.bin", f"{HF}/datasets/org/d/resolve/v1/a.bin"),
        (f"{HF}/spaces/org/s/raw/main/a.pth", f"{HF}/spaces/org/s/resolve/main/a.pth"),
        (f"{HF}/org/name/blob/{'a' * 40}/x.pt", f"{HF}/org/name/resolve/{'a' * 40}/x.pt"),
        (f"{HF}/org/name/blob/refs%2Fpr%2F1/x.pt", f"{HF}/org/name/resolve/refs%2Fpr%2F1/x.pt"),
        (f"{HF}/org/name/blob/refs/pr/1/x.pt", f"{HF}/org/name/resolve/refs%2Fpr%2F1/x.pt"),
        (f"{HF}/org/name/blob/main/a%20b.pt", f"{HF}/org/name/resolve/main/a%20b.pt"),
        (f"{HF}/org/name/blob/main/模型.pt", f"{HF}/org/name/resolve/main/模型.pt"),
        (f"{HF}/api/models/org/name?x=1", f"{HF}/api/models/org/name?x=1"),
    ],
)
def test_a_link_to_a_file_of_hugging_face_becomes_its_download(copied: str, address: str) -> None:
    assert parse_download(copied) == address
    assert parse_download(address) == address


@pytest.mark.parametrize(
    "path",
    ["/org/name", "/gpt2", "/org/name/", "/org/name/tree/main", "/org/name/tree/main/unet",
     "/org/name/blob/main", "/org/name/resolve/main/", "/org/name/resolve/main/folder/",
     "/org/name/commit/main", "/org/name/discussions/1", "/datasets/org/name", "/spaces/org/name",
     "/collections/org/name-1", "/org/name?library=diffusers", "/org/name/blame/main/x.pt",
     "/a/b/c/resolve/main/x.pt", "/resolve/main/x.pt"],
)  # fmt: skip
def test_a_page_of_hugging_face_that_is_no_file_is_refused(path: str) -> None:
    with pytest.raises(
        ValueError, match=r"this page of Hugging Face isn't a file: open the file on"
    ):
        parse_download(HF + path)


@pytest.mark.parametrize(
    ("copied", "address"),
    [
        ("/models/4384", "/models/4384"),
        ("/models/4384/", "/models/4384"),
        ("/models/4384/dreamshaper", "/models/4384"),
        ("/models/4384/dreamshaper#comments", "/models/4384"),
        ("/models/4384/dreamshaper?utm_source=x", "/models/4384"),
        ("/models/4384?modelVersionId=", "/models/4384"),
        ("/models/4384?modelVersionId=128713", "/api/download/models/128713"),
        ("/models/4384/dreamshaper?modelVersionId=128713", "/api/download/models/128713"),
        ("/models/4384/dreamshaper/?dialog=x&modelVersionId=128713", "/api/download/models/128713"),
        ("/api/download/models/128713", "/api/download/models/128713"),
        ("/api/download/models/128713/", "/api/download/models/128713"),
        ("/api/download/models/128713?type=Model&format=SafeTensor&size=full&fp=fp16",
         "/api/download/models/128713?type=Model&format=SafeTensor&size=full&fp=fp16"),
        ("/api/download/models/128713?token=${CIVITAI_TOKEN}",
         "/api/download/models/128713?token=${CIVITAI_TOKEN}"),
        ("/api/download/attachments/12", "/api/download/attachments/12"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "host", [CIVITAI, "https://www.civitai.com", "http://civitai.com", "https://civitai.com:443"]
)
def test_a_link_to_a_model_of_civitai_becomes_its_download(
    host: str, copied: str, address: str
) -> None:
    assert parse_download(host + copied) == CIVITAI + address
    assert parse_download(CIVITAI + address) == CIVITAI + address


@pytest.mark.parametrize(
    "path",
    ["/models", "/models/dreamshaper", "/images/1", "/user/me", "/posts/1", "/articles/1/x",
     "/models/1/x/y", "/models/4384?modelVersionId=new", "/models/4384?modelVersionId=1/../2",
     "/models/4384?modelVersionId=\N{SUPERSCRIPT TWO}", "/api/v1/models/4384",
     "/api/download/models/new", "/models/\N{ARABIC-INDIC DIGIT THREE}"],
)  # fmt: skip
def test_a_page_of_civitai_that_is_no_model_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"this page of Civitai isn't a model: copy the link of a"):
        parse_download(CIVITAI + path)


@pytest.mark.parametrize(
    ("copied", "address"),
    [
        (f"{HUB}/blob/main/a/x.pth", f"{HUB}/raw/main/a/x.pth"),
        (f"{HUB}/blob/main/a/blob/x.pth", f"{HUB}/raw/main/a/blob/x.pth"),
        (f"{HUB}/raw/main/x.pth", f"{HUB}/raw/main/x.pth"),
        ("http://www.github.com/owner/repo/blob/v1/x.pth", f"{HUB}/raw/v1/x.pth"),
        (f"{HUB}/releases/download/v1/x.pth", f"{HUB}/releases/download/v1/x.pth"),
        (f"{HUB}/releases/latest/download/x.pth", f"{HUB}/releases/latest/download/x.pth"),
        (f"{HUB}/archive/refs/heads/main.zip", f"{HUB}/archive/refs/heads/main.zip"),
        ("https://raw.githubusercontent.com/o/r/main/blob/x", None),
    ],
)
def test_a_link_to_a_file_of_github_becomes_its_download(copied: str, address: str | None) -> None:
    assert parse_download(copied) == (address or copied)


@pytest.mark.parametrize(
    "url",
    [HUB, f"{HUB}/", "https://github.com/owner", f"{HUB}/tree/main", f"{HUB}/tree/main/models",
     f"{HUB}/releases", f"{HUB}/releases/tag/v1.0", f"{HUB}/commit/33ff89fd"],
)  # fmt: skip
def test_a_page_of_github_that_is_no_file_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"this page of GitHub isn't a file"):
        parse_download(url)


@pytest.mark.parametrize(
    ("copied", "address"),
    [
        ("https://host.example/x.pt", None),
        ("http://nas:8080/models/x.pt", None),
        ("http://[::1]:8080/x.pt", None),
        ("http://nas:443/x.pt", None),
        ("https://host:80/x.pt", None),
        ("https://host/x?a=1&b=%20", None),
        ("https://host/?file=x", None),
        ("https://Host.Example:443/X.pt#part", "https://host.example/X.pt"),
        ("http://host:80/x", "http://host/x"),
        ("https://host/a//b/blob/main/x", None),
        ("https://hf-mirror.com/org/name/resolve/main/x.pt", None),
        ("https://evil-huggingface.co/org/name", None),
        ("https://huggingface.co.evil.example/org/name", None),
        ("https://huggingface.co:8443/org/name", None),
    ],
)
def test_any_other_address_is_taken_as_it_is(copied: str, address: str | None) -> None:
    assert parse_download(copied) == (address or copied)


NO_URL = "must be a URL such as https://host/file; a file on a disk is given as source:"
ODD = "the URL holds a space, a backslash or a control character: encode it"
NO_HOST = "this isn't a URL: its host or port can't be read"
HOST = "the URL's host can't be read"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", NO_URL),
        ("x.safetensors", NO_URL),
        ("/srv/x.safetensors", NO_URL),
        ("huggingface.co/org/name/resolve/main/x", NO_URL),
        ("org/name", NO_URL),
        ("ftp://host/x", NO_URL),
        ("file:///x", NO_URL),
        ("s3://bucket/x", NO_URL),
        ("hf://org/name/x", NO_URL),
        ("https:host/x", NO_URL),
        ("javascript:https://host/x", NO_URL),
        ("https://host/a b", ODD),
        ("https://host/a\\b", ODD),
        ("https://huggingface.co\\@evil.example/x", ODD),
        ("https://host/a\nb", ODD),
        ("https://host/a\0b", ODD),
        ("https://host/\x1b[2J", ODD),
        ("https://host/a\N{NO-BREAK SPACE}b", ODD),
        ("https://host/a\N{LINE SEPARATOR}b", ODD),
        ("https://host/a\udc80b", ODD),
        ("https://host:port/x", NO_HOST),
        ("https://host:99999/x", NO_HOST),
        ("https://host:-1/x", NO_HOST),
        ("https://host:\N{ARABIC-INDIC DIGIT THREE}/x", NO_HOST),
        ("https://[bad/x", NO_HOST),
        ("https://host:/x", HOST),
        ("https:///x", HOST),
        ("https://-host/x", HOST),
        ("https://hüggingface.co/x", HOST),
        ("https://bla\N{KELVIN SIGN}e.example/x", HOST),
        ("https://ho,st/x", HOST),
        ("https://${HOST}/x", HOST),
        ("https://host", "the URL names no file"),
        ("https://host//", "the URL names no file"),
        ("https://host/#x", "the URL names no file"),
        ("https://huggingface.co/", "the URL names no file"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_do(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_download(text)
    assert str(error.value) == why


@pytest.mark.parametrize(
    "text",
    ["https://me:s3cret@host/x", "https://s3cret@host/x", "https://me:s3cret@@host/x",
     "HTTPS://s3cret@huggingface.co/org/name/resolve/main/x", "https://${USER}:s3cret@host/x",
     "https://${TOKEN}@host/x"],
)  # fmt: skip
def test_credentials_are_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"remove them, and name a variable in models\.tokens"
    ) as e:
        parse_download(text)
    assert "s3cret" not in str(e.value)


@pytest.mark.parametrize(
    "name",
    ["token", "TOKEN", "access_token", "access-token", "accessToken", "private_token", "api_key",
     "apikey", "api-key", "x-api-key", "key", "secret_key", "sig", "Signature", "X-Amz-Signature",
     "X-Amz-Security-Token", "X-Amz-Credential", "X-Goog-Signature", "password", "pwd", "secret",
     "client_secret", "auth", "Authorization", "jwt", "%74oken"],
)  # fmt: skip
@pytest.mark.parametrize(
    "start", ["https://host/x?", "https://host/x?a=1&", "https://host/x?a=1;", f"{FILE}?",
              f"{CIVITAI}/api/download/models/1?", "http://host/x?"],
)  # fmt: skip
def test_a_secret_in_the_query_is_refused_and_never_repeated(start: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"the URL holds a secret \(") as error:
        parse_download(f"{start}{name}=s3cret")
    assert "s3cret" not in str(error.value)
    for half in ("${A}s3cret", "s3cret${A}", "${A}${B}s3cret"):
        with pytest.raises(ValueError, match=r"holds a secret|over https://") as error:
            parse_download(f"{start}{name}={half}")
        assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "query", ["monkey=1", "resourcekey=1", "design=1", "tokens=1", "keys=1", "author=1", "type=key"]
)
def test_what_only_sounds_like_a_secret_passes(query: str) -> None:
    assert parse_download(f"https://host/x?{query}") == f"https://host/x?{query}"


@pytest.mark.parametrize("query", ["token=${T}", "a=1&sig=${SIG}&b=2", "${SAS}", "x=${A}${B}"])
def test_a_secret_may_be_a_variable_in_the_query_over_https_alone(query: str) -> None:
    assert parse_download(f"https://host/x?{query}") == f"https://host/x?{query}"
    with pytest.raises(ValueError, match="a secret is sent over https:// only"):
        parse_download(f"http://host/x?{query}")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://host/${TOKEN}/x", "is understood in the part after the ? only"),
        ("https://host/x${TOKEN}?a=1", "is understood in the part after the ? only"),
        ("https://host/x?t=${TOKEN:-s3cret}", "a variable is written ${NAME}"),
        ("https://host/x?t=${}", "a variable is written ${NAME}"),
        ("https://host/x?t=${1A}", "a variable is written ${NAME}"),
        ("https://host/x?t=${A", "a variable is written ${NAME}"),
        ("https://host/x?t=${${A}}", "a variable is written ${NAME}"),
    ],
)
def test_a_variable_elsewhere_or_written_otherwise_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_download(url)
    assert why in str(error.value)
    assert "s3cret" not in str(error.value)


@given(st.text(), st.sampled_from(["", "https://", f"{HF}/", f"{CIVITAI}/models/", f"{HUB}/"]))
def test_any_text_is_an_address_or_refused(text: str, start: str) -> None:
    try:
        address = parse_download(start + text)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert parse_download(address) == address


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("huggingface.co", "huggingface.co"),
        ("HuggingFace.co", "huggingface.co"),
        ("hf.co", "huggingface.co"),
        ("www.civitai.com", "civitai.com"),
        ("huggingface.co:443", "huggingface.co"),
        ("hf.co:443", "huggingface.co"),
        ("nas:8443", "nas:8443"),
        ("[::1]:8443", "[::1]:8443"),
        ("[::1]", "[::1]"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
def test_a_token_is_for_an_exact_host(written: str, host: str) -> None:
    assert check_token_host(written) == host


@pytest.mark.parametrize(
    "written",
    ["", "https://huggingface.co", "huggingface.co/", "huggingface.co/org", "*.huggingface.co",
     ".huggingface.co", "me@huggingface.co", "huggingface.co\n", " huggingface.co", "a b", "::1",
     "host:", "host:port", "host:99999", "host:\N{ARABIC-INDIC DIGIT THREE}", "hüggingface.co",
     "bla\N{KELVIN SIGN}e.example", "${HOST}", "host?x"],
)  # fmt: skip
def test_what_is_no_exact_host_gets_no_token(written: str) -> None:
    with pytest.raises(
        ValueError, match=r"must be an exact host such as huggingface\.co, without https"
    ):
        check_token_host(written)


@pytest.mark.parametrize("token", ["${HF_TOKEN}", "${_a1}"])
def test_a_token_is_named(token: str) -> None:
    assert check_token(token) == token


@pytest.mark.parametrize(
    "token",
    ["hf_s3cret", "", "$HF_TOKEN", "HF_TOKEN", "Bearer ${HF_TOKEN}", "${HF_TOKEN}s3cret",
     "${A}${B}", "${HF_TOKEN:-s3cret}", "${}", "${1}", "${HF_TOKEN}\n", "{HF_TOKEN}"],
)  # fmt: skip
def test_a_token_that_is_written_down_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(
        ValueError, match=r"a token must not be in this file: write \$\{NAME\}"
    ) as e:
        check_token(token)
    assert "s3cret" not in str(e.value)


# In machine.yaml


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("url: https://host/x, source: /x", ".url: has no meaning beside source: remove one"),
        ("optional: true", ": needs url: (a download) or source: (a file or folder on this"),
        (
            "url: null",
            ": needs url: (a download) or source: (a file or folder on this machine)",
        ),
        (
            "source: 'https://host/x'",
            ".source: must be a file or folder on this machine; an address is",
        ),
        ("url: /srv/x", f".url: {NO_URL}"),
        ("url: ''", ".url: must not be empty"),
        ("url: 5", ".url: YAML reads 5 as a number; quote it"),
        ("url: [https://host/x]", ".url: must be text"),
        (r'url: "https://host/\u001b[2J"', ".url: holds a control character"),
        (
            f"url: {HF}/org/name",
            ".url: this page of Hugging Face isn't a file: open the file on it",
        ),
        (f"url: {CIVITAI}/images/1", ".url: this page of Civitai isn't a model: copy the link"),
        ("url: 'https://me:s3cret@host/x'", ".url: the URL holds credentials: remove them, and"),
        ("url: 'https://host/x?token=s3cret'", ".url: the URL holds a secret (token=): remove it"),
        (
            "url: https://host/x, sha256: abc",
            ".sha256: must be 64 hexadecimal digits, as sha256sum prints",
        ),
        (
            f"url: https://host/x, sha256: {'g' * 64}",
            ".sha256: must be 64 hexadecimal digits, as sha256",
        ),
        (
            f"url: https://host/x, sha256: '{'a' * 65}'",
            ".sha256: must be 64 hexadecimal digits, as sha25",
        ),
        (f"url: https://host/x, sha256: {'1' * 64}", ".sha256: YAML reads 1111"),
        ("url: https://host/x, sha: a", ".sha: is not a field here; did you mean sha256?"),
        ("url: https://host/x, optional: maybe", ".optional: must be true or false"),
    ],
)
def test_each_mistake_in_a_model_gives_one_line(lines: Lines, file: str, expected: str) -> None:
    (line,) = lines(f"models: {{files: [{{target: loras/x.pt, {file}}}]}}")
    assert line.startswith(f"machine.yaml:3: models.files[0]{expected}")
    assert "s3cret" not in line


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("{huggingface.co: hf_s3cret}", ".huggingface.co: a token must not be in this file: write"),
        ("{huggingface.co: 5}", ".huggingface.co: YAML reads this as a number; quote it"),
        (
            "{'https://huggingface.co': '${T}'}",
            ".https://huggingface.co: must be an exact host such as",
        ),
        (
            "{'*.huggingface.co': '${T}'}",
            ".*.huggingface.co: must be an exact host such as huggingface.co",
        ),
        ("hf_s3cret", ": must be a mapping of key: value"),
        ("['${T}']", ": must be a mapping of key: value"),
    ],
)
def test_each_mistake_in_the_tokens_gives_one_line(
    lines: Lines, tokens: str, expected: str
) -> None:
    (line,) = lines(f"models: {{tokens: {tokens}}}")
    assert line.startswith(f"machine.yaml:3: models.tokens{expected}")
    assert "s3cret" not in line


STORE = "store: must be a folder of its own, not one of models or around it"
INSIDE = "files[0].target: lies in the store: give another folder"


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ("{store: shared/models}", STORE),
        ("{store: shared}", STORE),
        ("{store: shared/x/../models}", STORE),
        ("{store: /}", STORE),
        ("{store: /mnt/m, extra_roots: [{path: /mnt/m}]}", STORE),
        ("{store: /mnt, extra_roots: [{path: /mnt/m}]}", STORE),
        ("{store: shared/models/loras}", "store: would be a folder of models there: begin its "
         "name with a dot"),
        ("{store: ''}", "store: must not be empty"),
        ("{files: [{target: .store/x, url: https://host/x}]}", INSIDE),
        ("{store: shared/models/.s, files: [{target: .s/x, url: https://host/x}]}", INSIDE),
        ("{files: [{target: a/x, url: https://host/x}, {target: a/x, url: https://host/y}]}",
         "files[1].target: a/x is also models.files[0]"),
        ("{files: [{target: a, url: https://host/x}, {target: a/x, url: https://host/y}]}",
         "files[1].target: lies below a, which is a model itself"),
    ],
)  # fmt: skip
def test_each_folder_of_models_that_lies_in_another_s_way_gives_one_line(
    lines: Lines, models: str, expected: str
) -> None:
    assert lines(f"models: {models}") == [f"machine.yaml:3: models.{expected}"]


def test_the_models_of_a_file_are_read_as_they_were_meant(read: Load) -> None:
    digest = "AB" * 32
    machine = read(f"""models:
  store: /mnt/store
  tokens: {{hf.co: "${{MINE}}", nas:8443: "${{NAS}}"}}
  files:
    - {{target: a/x.pt, url: "{HF}/org/name/blob/main/x.pt", sha256: "sha256:{digest}"}}
    - {{target: a/y.pt, url: "{CIVITAI}/models/1/slug?modelVersionId=2", sha256: " {digest}  "}}
    - {{target: a/z.pt, url: "{CIVITAI}/models/1", sha256: null, source: null}}
""")
    assert machine.models.tokens == {
        "huggingface.co": "${MINE}", "civitai.com": "${CIVITAI_TOKEN}", "nas:8443": "${NAS}"
    }  # fmt: skip
    assert [(file.url, file.sha256) for file in machine.models.files] == [
        (f"{HF}/org/name/resolve/main/x.pt", digest.lower()),
        (f"{CIVITAI}/api/download/models/2", digest.lower()),
        (f"{CIVITAI}/models/1", None),
    ]
