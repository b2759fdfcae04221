from __future__ import annotations

import pytest

from comfy_machine.spec.urls import (
    check_index,
    check_place_of_wheels,
    check_ref,
    parse_remote,
    refuse_url_credentials,
    repository_name,
)

HUB = "https://github.com/owner/repo"


@pytest.mark.parametrize(
    ("copied", "url", "ref"),
    [
        (HUB, HUB, None),
        (f"{HUB}.git", f"{HUB}.git", None),
        (f"  '{HUB}/' ", HUB, None),
        (f"git clone {HUB}", HUB, None),
        (f'git  clone "{HUB}.git"', f"{HUB}.git", None),
        (f"{HUB}/tree/main", HUB, "main"),
        (f"{HUB}/commit/33ff89fd", HUB, "33ff89fd"),
        (f"{HUB}/releases/tag/v1.2", HUB, "v1.2"),
        ("https://gitlab.com/group/sub/repo/", "https://gitlab.com/group/sub/repo", None),
        ("http://host:3000/owner/repo", "http://host:3000/owner/repo", None),
        ("git@github.com:owner/repo.git", "git@github.com:owner/repo.git", None),
        ("ssh://git@host:22/owner/repo", "ssh://git@host:22/owner/repo", None),
        ("file:///srv/repo.git/", "file:///srv/repo.git", None),
        ("/srv//repos/../repo", "/srv/repo", None),
    ],
)
def test_a_url_is_understood_as_people_copy_it(copied: str, url: str, ref: str | None) -> None:
    assert parse_remote(copied) == (url, ref)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("git clone", "give the URL alone"),
        ("--upload-pack=touch /tmp/x", "must not begin with -"),
        ("ext::sh -c whoami", "transports such as ext::"),
        ("fd::17", "transports such as ext::"),
        ("::foo", "transports such as ext::"),
        ("https://github.com/a/b\x1b[2J", "control character"),
        ("https://github.com/a/b\nx", "control character"),
        ("C:\\repo", "backslash"),
        ("https://github.com/a/b c", "give the URL alone"),
        (f"git clone --recursive {HUB} here", "must not begin with -"),
        (f"{HUB}/tree/main/sub/folder", f"write {HUB}, and the rest as ref:"),
        (f"{HUB}/blob/main/README.md", f"write {HUB}"),
        (f"{HUB}/issues", f"write {HUB}"),
        (f"{HUB}?tab=readme", "what follows ? or #"),
        (f"{HUB}#readme", "what follows ? or #"),
        ("https://github.com/owner", "names an owner, not a repository"),
        ("https://github.com/", "names no repository"),
        ("https://host:port/a", "host or port can't be read"),
        ("https://[bad/a", "host or port can't be read"),
        ("ftp://host/a", "ftp:// is not supported"),
        ("git+https://host/a", "git+https:// is not supported"),
        ("file://host/a", "file:///absolute/path"),
        ("owner/repo", "write https://github.com/owner/repo"),
        ("github.com/owner/repo", "write https://github.com/owner/repo"),
        ("../node", "a local directory is given as path:"),
        ("ssh://-oProxyCommand=x/a", "host can't be read"),
        ("ssh://-u@host/a", "host can't be read"),
        ("git@-oProxyCommand=x:a", "host can't be read"),
        ("git@host:-x", "names no repository"),
        ("https://${TOKEN}.host/a/b", "in env values only"),
    ],
)
def test_what_is_no_repository_is_refused_with_what_to_do(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_remote(text)
    assert why in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:s3cret@github.com/a/b",
        "https://s3cret@github.com/a/b",
        "https://me:s3cret@@github.com/a/b",
        "HTTPS://s3cret@github.com/a/b",
        "ssh://git:s3cret@host/a",
        "git:s3cret@host:a",
        "ftp://me:s3cret@host/a",
        "git clone https://me:s3cret@github.com/a/b x",
    ],
)
def test_credentials_are_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="use git's credential configuration") as error:
        parse_remote(text)
    assert "s3cret" not in str(error.value)


def test_a_query_that_may_hold_a_token_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="what follows") as error:
        parse_remote("https://host/a?private_token=s3cret")
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("numpy<2", False),
        ("pkg @ git+ssh://git@github.com/a/b", False),
        ("pkg @ git+https://s3cret@github.com/a/b", True),
        ("https://me:s3cret@pypi.example/simple", True),
    ],
)
def test_a_requirement_or_index_may_hold_no_credentials(text: str, refused: bool) -> None:
    if refused:
        with pytest.raises(ValueError, match=r"netrc") as error:
            refuse_url_credentials(text)
        assert "s3cret" not in str(error.value)
    else:
        assert refuse_url_credentials(text) == text


@pytest.mark.parametrize(
    "url",
    ["https://host/simple", "http://host:3141/a,b/+simple/", "file:///srv/index",
     "https://${TOKEN}@host/simple", "https://${USER}:${TOKEN}@host/simple", "HTTP://${T}@host"],
)  # fmt: skip
def test_an_index_may_have_variables_as_credentials(url: str) -> None:
    assert check_index(url) == url
    assert check_place_of_wheels(url) == url


REMOVE = "the URL holds credentials: remove them and use ~/.netrc, or variables: https://${USER}"
ONLY = "${…} is understood as user and password only: https://${USER}:${TOKEN}@host/… or"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://s3cret@host/simple", REMOVE),
        ("https://me:s3cret@host/simple", REMOVE),
        ("https://me:${TOKEN}@host/simple", REMOVE),
        ("https://${USER}:s3cret@host/simple", REMOVE),
        ("https://${USER}s3cret@host/simple", REMOVE),
        ("https://${A}:${B}:${C}@host/simple", REMOVE),
        ("https://${TOKEN}@s3cret@host/simple", REMOVE),
        ("https://${USER:-s3cret}@host/simple", REMOVE),
        ("https://host/${TOKEN}/simple", ONLY),
        ("https://${HOST}/simple", ONLY),
        ("https://${TOKEN}@${HOST}/simple", ONLY),
        ("https://host/simple?t=${TOKEN}", ONLY),
        ("file://${TOKEN}@host/simple", REMOVE),
    ],
)
def test_other_credentials_and_variables_of_an_index_are_refused(url: str, why: str) -> None:
    for check in (check_index, check_place_of_wheels):
        with pytest.raises(ValueError, match=r".") as error:
            check(url)
        assert str(error.value).startswith(why)
        assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["wheels", "/srv/index", "host/simple", "ftp://host/simple", "https://host/a b", "https://",
     "a=https://host/simple"],
)  # fmt: skip
def test_an_index_is_a_url(text: str) -> None:
    with pytest.raises(ValueError, match="must be a URL such as https://host/simple"):
        check_index(text)


@pytest.mark.parametrize("ref", ["main", "v0.3.64", "feature/x", "refs/pull/1/head", "33ff89fd"])
def test_a_branch_tag_or_commit_is_a_ref(ref: str) -> None:
    assert check_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    ["", "-b", "+main", "a b", "a..b", "a:b", "x~1", "x^", "@", "a@{1}", "/a", "a/", "a//b",
     "a.lock", ".a", "a.", "*", "[", "?", "a\\b", "a\x00b", "a\nb"],
)  # fmt: skip
def test_what_git_would_not_take_as_a_ref_is_refused(ref: str) -> None:
    with pytest.raises(ValueError, match=r"ref|isn't a branch"):
        check_ref(ref)


@pytest.mark.parametrize(
    "url", [HUB, f"{HUB}.git", "git@host:repo.git", "git@host:a/repo", "/srv/repo.git"]
)
def test_a_repository_is_named_as_git_clone_names_it(url: str) -> None:
    assert repository_name(url) == "repo"
