"""What an object store says to a client, asked of a real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from comfy_machine.host.system.object_store import Account, refusal
from tests.rig import free_ports
from tests.services.jobs.object_store import ACCESS_KEY, BUCKET, SECRET_KEY, ObjectStore


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with closing(ObjectStore(tmp_path_factory.mktemp("store"))) as it:
        yield Account(f"s3://{BUCKET}/a", it.endpoint, "us-east-1", ACCESS_KEY, SECRET_KEY)


def test_one_that_takes_files_refuses_nothing(account: Account) -> None:
    assert refusal(account) is None
    assert refusal(replace(account, url=f"s3://{BUCKET}")) is None


@pytest.mark.parametrize(
    "wrong", [{"secret_key": "wrong"}, {"access_key": "wrong"}, {"url": "s3://elsewhere/a"}]
)
def test_keys_that_it_doesnt_know_are_refused(account: Account, wrong: dict[str, str]) -> None:
    told = "it refuses these keys, or has no such bucket"
    assert refusal(replace(account, **wrong)) == told


def test_one_that_is_away_is_told(account: Account) -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)}"
    told = f"{endpoint} doesn't answer as it should"
    assert refusal(replace(account, endpoint=endpoint)) == told


def test_keys_are_not_shown(account: Account) -> None:
    assert SECRET_KEY not in repr(account)
    assert ACCESS_KEY not in repr(account)
