"""A real object store that speaks S3: SeaweedFS, on loopback."""

from __future__ import annotations

import json
import subprocess
import sysconfig
from pathlib import Path

import requests

from tests.contract.client import until
from tests.rig import free_ports

ACCESS_KEY, SECRET_KEY = "the-access-key", "the-secret-key"
BUCKET = "jobs-of-tests"
KEYS = {"JOBS_STORE_ACCESS_KEY": ACCESS_KEY, "JOBS_STORE_SECRET_KEY": SECRET_KEY}


class ObjectStore:
    """One server with one bucket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._first = free_ports(8)
        self._folder.joinpath("keys.json").write_text(json.dumps({"identities": [{
            "name": "tests", "actions": ["Read", "Write", "List"],
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        }]}))  # fmt: skip
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._first}"

    def bucket(self, folder: str) -> dict[str, str]:
        """The setting for a folder of the bucket."""
        return {"url": f"s3://{BUCKET}/{folder}", "endpoint": self.endpoint}

    def start(self) -> None:
        s3, master, volume, filer = (self._first + 2 * each for each in range(4))
        ports = {"s3.port": s3, "master.port": master, "volume.port": volume, "filer.port": filer}
        command = [
            str(Path(sysconfig.get_path("scripts"), "weed")), "server", f"-dir={self._folder}",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-master.telemetry=false",
            f"-s3.config={self._folder / 'keys.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            "-volume.max=10",
            *(f"-{name}={port}" for name, port in ports.items()),
            *(f"-{name}.grpc={port + 1}" for name, port in ports.items()),
        ]  # fmt: skip
        with self._folder.joinpath("weed.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until(lambda: self._made(filer), 60, "the object store")
        except BaseException:
            self.close()
            raise

    def _made(self, filer: int) -> bool:
        """Whether its bucket is there and it answers."""
        session = requests.Session()
        session.trust_env = False
        try:
            made = session.post(f"http://127.0.0.1:{filer}/buckets/{BUCKET}/", timeout=5)
            # Without a signature it refuses, but it answers.
            there = made.ok or made.status_code == 409
            return there and session.get(self.endpoint, timeout=5).status_code == 403
        except requests.RequestException:
            return False

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
