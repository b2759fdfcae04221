"""Jobs in machine.yaml: in short, with settings, and what makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from comfy_machine.spec.json_schema import schema
from comfy_machine.spec.model import Jobs
from tests.spec.conftest import Lines, Load

KEYS = "access_key: '${A}', secret_key: '${S}'"


def test_jobs_are_off_until_asked_for(read: Load) -> None:
    assert read().jobs is read("jobs: false").jobs is read("jobs:").jobs is None
    assert read("jobs: true").jobs == read("jobs: {}").jobs == Jobs()
    wanted = read('jobs: {url: "nats://a:4222,tls://b", tls: {ca: ca.pem}, replicas: 3}').jobs
    assert wanted
    assert wanted.tls
    assert wanted.tls.ca == Path.cwd() / "ca.pem"


def test_the_schema_takes_what_the_loader_takes() -> None:
    validator = Draft202012Validator(schema())
    for jobs in (
        True,
        False,
        {},
        {"keep": 1, "token": "${JOBS_TOKEN}", "webhook_secret": "${HOOKS}"},
    ):
        assert validator.is_valid({"workspace": "ws", "comfyui": {}, "jobs": jobs})
    assert not validator.is_valid({"workspace": "ws", "comfyui": {}, "jobs": {"keep": 0}})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("jobs: 5", "jobs: must be true, false, or a mapping such as {gateway_port: 8180}"),
        ("jobs: yes please", "jobs: must be true, false, or a mapping such as "
         "{gateway_port: 8180}"),
        ("jobs: {credentials: '${N}'}",
         "jobs.credentials: has no meaning without url: it is for a server of your own"),
        ("jobs: {tls: {}}",
         "jobs.tls: has no meaning without url: it is for a server of your own"),
        ("jobs: {replicas: 3}",
         "jobs.replicas: needs url: our own NATS server is one, not a cluster"),
        ("jobs: {replicas: 2}", "jobs.replicas: must be 1 or 3"),
        ("jobs: {url: 'nats://a', port: 4222}",
         "jobs.port: has no meaning beside url: remove one of them"),
        ("jobs: {url: 'nats://a', tls: {cert: c.pem}}",
         "jobs.tls.cert: means nothing without key: give both"),
        ("jobs: {listen: 0.0.0.0}",
         "jobs.listen: lets other hosts run any workflow here: give a token too"),
        ("jobs: {url: 'nats://me:pw@a'}",
         "jobs.url: holds credentials: give them as credentials, in a variable"),
        ("jobs: {url: broker}",
         "jobs.url: must be an address such as nats://broker:4222; those of a cluster are "
         "separated by commas, without spaces"),
        ("jobs: {store: {url: 's3://bkt', access_key: '${A}', secret_key: '${S}'}}",
         "jobs.store: has no meaning without url: it is for several machines"),
        ("jobs: {url: 'nats://a', store: {url: 's3://bkt', access_key: '${A}'}}",
         "jobs.store.secret_key: is required"),
        ("jobs: {url: 'nats://a', store: 's3://bkt'}",
         "jobs.store: must be a mapping such as {url: s3://BUCKET/FOLDER, access_key: …}"),
        (f"jobs: {{url: 'nats://a', store: {{url: 'https://b', {KEYS}}}}}",
         "jobs.store.url: must be a bucket, and a folder in it if wanted: s3://BUCKET/FOLDER"),
        (f"jobs: {{url: 'nats://a', store: {{url: 's3://bkt/c', endpoint: broker, {KEYS}}}}}",
         "jobs.store.endpoint: must be an address such as https://s3.example.org:9000"),
        (f"jobs: {{url: 'nats://a', store: {{url: 's3://bkt', endpoint: 'http://k:s@h', {KEYS}}}}}",
         "jobs.store.endpoint: holds credentials: give them as access_key and secret_key, in "
         "variables"),
        ("jobs: {port: 8180}", "jobs.gateway_port: port 8180 is also jobs.port"),
        ("jobs: {port: 9090}", "jobs.port: port 9090 is also health.port"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_in_one_line(lines: Lines, text: str, told: str) -> None:
    assert lines(text) == [f"machine.yaml:3: {told}"]


def test_a_key_itself_is_not_repeated_in_the_message(lines: Lines) -> None:
    store = "{url: 's3://bkt', access_key: AKIA1234, secret_key: '${S}'}"
    (line,) = lines(f"jobs: {{url: 'nats://a', store: {store}}}")
    assert line.startswith("machine.yaml:3: jobs.store.access_key: ")
    assert "AKIA1234" not in line


def test_an_instance_shares_no_port_with_jobs(lines: Lines) -> None:
    assert lines("jobs: {port: 8188}") == [
        "machine.yaml: instances.port_start: port 8188 of comfyui-gpu0 is also jobs.port"
    ]
    assert lines("jobs: {url: 'nats://a'}\ninstances: {port_start: 4222}") == []


def test_the_worker_of_jobs_has_a_name_of_its_own(lines: Lines) -> None:
    worker = "\nworkers: [{name: jobs, command: [x]}]"
    assert lines(worker) == []
    assert lines(f"jobs: true{worker}") == [
        "machine.yaml:4: workers[0].name: jobs is the name of the worker of jobs: give another"
    ]


def test_no_secret_is_repeated(lines: Lines) -> None:
    for field in ("token", "credentials", "webhook_secret"):
        (line,) = lines(f"jobs: {{url: 'nats://a', {field}: hunter2}}")
        assert "hunter2" not in line
