"""What pages of other sites may do in a browser, and what may not run in one."""

from __future__ import annotations

import uuid

import pytest

from tests.contract.client import Client
from tests.contract.features import Features

OTHER = "http://127.0.0.2:8188"


def test_a_page_of_another_origin_is_refused(server: Client) -> None:
    assert server.get_with({"Origin": server.url}, "/prompt").status_code == 200
    assert server.get_with({"Origin": OTHER}, "/prompt").status_code == 403


def test_a_request_across_sites_is_refused_where_browsers_tell(
    server: Client, features: Features
) -> None:
    for site, status in (("same-origin", 200), ("none", 200), ("same-site", 200)):
        found = server.get_with({"Sec-Fetch-Site": site}, "/prompt")
        assert found.status_code == status
    found = server.get_with({"Sec-Fetch-Site": "cross-site"}, "/prompt")
    assert found.status_code == (403 if features.cross_site_refused else 200)


@pytest.mark.parametrize(
    ("suffix", "text"),
    [("html", "<p>hello"), ("svg", "<svg xmlns='http://www.w3.org/2000/svg'/>")],
)
def test_what_may_hold_a_script_is_no_page(
    server: Client, features: Features, suffix: str, text: str
) -> None:
    name = f"{uuid.uuid4().hex}.{suffix}"
    server.post("/upload/image", files={"image": (name, text)})
    found = server.get("/view", filename=name, type="input")
    strict = features.cross_site_refused  # both came at a time
    plain = suffix == "html" or strict
    assert (found.headers["Content-Type"] == "application/octet-stream") is plain
    assert found.headers["Content-Disposition"].startswith("attachment; ") is strict
    if suffix == "svg":
        found = server.get_with({"Sec-Fetch-Dest": "image"}, "/view", filename=name, type="input")
        assert found.headers["Content-Type"] == "image/svg+xml", "it runs nothing there"


def test_assets_are_off_unless_they_are_asked_for(server: Client, features: Features) -> None:
    found = server.get("/api/assets")
    if not features.asset_routes:
        assert found.status_code == 404
        return
    assert found.status_code == 503
    assert found.json()["error"]["code"] == "SERVICE_DISABLED"
    assert server.json("/features")["assets"] is False
