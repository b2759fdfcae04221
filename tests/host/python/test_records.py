"""Whose the files of an environment are, and whether they are as their packages say."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from comfy_machine.host.python import records
from comfy_machine.host.python.records import Wrong
from tests.wheels import wheel


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Three packages; two of them bring the same file, with other text in it."""
    folder = tmp_path / "site"
    shared = {"tests/__init__.py": "of one"}, {"tests/__init__.py": "of other"}
    for name, files in zip(("one", "other"), shared, strict=True):
        with zipfile.ZipFile(wheel(tmp_path, name, "1.0", files=files)) as archive:
            archive.extractall(folder)
    with zipfile.ZipFile(wheel(tmp_path, "odd", "2", files={"odd/a, b.txt": "comma"})) as archive:
        archive.extractall(folder)
    record = folder / "odd-2.dist-info" / "RECORD"
    record.write_text(record.read_text().replace("odd/a, b.txt", '"odd/a, b.txt"'))
    return folder


def wrong(site: Path) -> list[Wrong]:
    found = records.claims(site)
    return records.compare(site, found, sorted(found))


def test_what_was_installed_is_right_also_where_one_package_replaced_anothers_file(
    site: Path,
) -> None:
    assert wrong(site) == []
    assert set(records.claims(site)["tests/__init__.py"]) == {"one", "other"}
    assert set(records.claims(site)["odd/a, b.txt"]) == {"odd"}


def test_a_file_that_differs_or_is_gone_is_named_with_its_packages(site: Path) -> None:
    (site / "one" / "__init__.py").write_text("patched")
    (site / "tests" / "__init__.py").unlink()
    assert wrong(site) == [
        Wrong("one", "one/__init__.py"),
        Wrong("one", "tests/__init__.py", gone=True),
        Wrong("other", "tests/__init__.py", gone=True),
    ]


def test_a_package_without_a_record_has_no_files_that_could_be_wrong(site: Path) -> None:
    (site / "one-1.0.dist-info" / "RECORD").unlink()
    (site / "odd-2.dist-info" / "RECORD").write_bytes(b"a,sha256=\xff,1\nnonsense\n\n,\n")
    assert set(records.claims(site)) == {
        "other/__init__.py", "tests/__init__.py", "other-1.0.dist-info/METADATA",
        "other-1.0.dist-info/WHEEL", "a",
    }  # fmt: skip
