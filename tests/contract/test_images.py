"""Images that clients send and fetch."""

from __future__ import annotations

import uuid
from io import BytesIO

import pytest
from PIL import Image

from tests.contract.client import Client, preview


def png(colour: str = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = BytesIO()
    Image.new("RGBA", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def upload(server: Client, name: str, data: bytes, **form: str) -> dict[str, str]:
    response = server.post("/upload/image", files={"image": (name, data)}, data=form)
    assert response.status_code == 200, response.text
    answer: dict[str, str] = response.json()
    return answer


@pytest.fixture
def name() -> str:
    return f"{uuid.uuid4().hex}.png"


def test_an_uploaded_image_can_be_loaded_by_a_job(server: Client, name: str) -> None:
    assert upload(server, name, png(size=(6, 5))) == {
        "name": name,
        "subfolder": "",
        "type": "input",
    }
    load = {"class_type": "LoadImage", "inputs": {"image": name}}
    done = server.run({"1": load, "2": preview("1")})
    (image,) = done["outputs"]["2"]["images"]
    assert Image.open(BytesIO(server.get("/view", **image).content)).size == (6, 5)


def test_the_same_name_with_other_content_gets_a_number(server: Client, name: str) -> None:
    upload(server, name, png("red"))
    stem = name.removesuffix(".png")
    assert upload(server, name, png("blue"))["name"] == f"{stem} (1).png"
    assert upload(server, name, png("red"))["name"] == name, "the same image is kept as it is"


def test_an_image_is_overwritten_on_demand(server: Client, name: str) -> None:
    upload(server, name, png("red"))
    assert upload(server, name, png("blue"), overwrite="true")["name"] == name
    assert server.get("/view", filename=name, type="input").content == png("blue")


def test_an_image_may_go_to_a_subfolder(server: Client, name: str) -> None:
    answer = upload(server, name, png(), subfolder="contract")
    assert answer == {"name": name, "subfolder": "contract", "type": "input"}
    found = server.get("/view", filename=name, subfolder="contract", type="input")
    assert found.content == png()


def test_no_upload_leaves_the_input_directory(server: Client, name: str) -> None:
    files = {"image": (name, png())}
    form = {"subfolder": "../.."}
    assert server.post("/upload/image", files=files, data=form).status_code == 400


def test_an_upload_without_image_is_400(server: Client) -> None:
    assert server.post("/upload/image", data={"overwrite": "1"}).status_code == 400


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 404),
        ({"filename": "no-such.png"}, 404),
        ({"filename": ""}, 400),
        ({"filename": "/etc/hostname"}, 400),
        ({"filename": "../x.png"}, 400),
        ({"filename": "x.png", "type": "models"}, 400),
        ({"filename": "x.png", "subfolder": "../.."}, 403),
    ],
)
def test_what_is_not_there_or_not_allowed_is_not_shown(
    server: Client, params: dict[str, str], status: int
) -> None:
    assert server.get("/view", **params).status_code == status


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_a_preview_has_the_wanted_format(server: Client, name: str, kind: str) -> None:
    upload(server, name, png())
    shown = server.get("/view", filename=name, type="input", preview=f"{kind};50")
    assert shown.headers["Content-Type"] == f"image/{kind}"
    assert Image.open(BytesIO(shown.content)).format == kind.upper()


def test_the_name_may_say_the_directory(server: Client, name: str) -> None:
    upload(server, name, png())
    assert server.get("/view", filename=f"{name} [input]").content == png()
