"""The files that a job has made, by kind."""

from __future__ import annotations

from comfy_machine.services.gateway.output_files import outputs_of
from comfy_machine.services.jobs.record import Record


def test_kinds_go_by_names_then_by_lists() -> None:
    record = Record(id="1", submitted=1.0)
    outputs = {
        "9": {
            "images": [{"filename": "a.png"}, {"filename": "b.mp4", "subfolder": None}],
            "gifs": [{"filename": "c.xyz", "type": "temp"}],
            "animated": [True],
            "text": ["no file"],
        },
        "10": {"latents": [{"filename": "d.latent"}], "files": [{"filename": "e.zip"}, {}]},
        "11": None,
    }
    files = [*outputs_of(record, outputs)]
    assert [(each.name, each.kind) for each in files] == [
        ("a.png", "image"),
        ("b.mp4", "video"),
        ("c.xyz", "video"),
        ("d.latent", "latent"),
        ("e.zip", "file"),
    ]
    assert len({each.id for each in files}) == 5
