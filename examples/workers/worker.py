"""A worker: takes jobs from a folder, one at a time, and gives them to its ComfyUI.

A job is a file `jobs/NAME.json`, a workflow as ComfyUI's Export (API) writes it. Its result is
`done/NAME.json`, with what ComfyUI tells of it. Write a job elsewhere and rename it into `jobs`.
Needs only Python. A job whose worker was killed is run again, so it may run twice.
"""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

URL, NAME = os.environ["COMFYUI_URL"], os.environ["INSTANCE"]
JOBS, TAKEN, DONE = Path("jobs"), Path("taken") / NAME, Path("done")
PAUSE = 0.5
"""Seconds between two looks for a job, or for its result."""
stopping = False


def stop(number: int, frame: object) -> None:
    """End after the current job."""
    global stopping
    stopping = True


def ask(path: str, body: object = None) -> dict:
    """What ComfyUI answers; a refusal (503: the instance is about to be replaced) is an OSError."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def run(workflow: object) -> dict:
    """Run one job, and return what ComfyUI's history has of it."""
    prompt = ask("/prompt", {"prompt": workflow})["prompt_id"]
    while prompt not in (history := ask(f"/history/{prompt}")):
        time.sleep(PAUSE)
    return history[prompt]


def take() -> Path | None:
    """A job that no other worker has taken; None: there is none."""
    for job in sorted(JOBS.glob("*.json")):
        try:
            return job.rename(TAKEN / job.name)
        except FileNotFoundError:
            continue
    return None


def finish(job: Path, result: dict) -> None:
    """Write the result whole, then forget the job."""
    part = DONE / f".{job.name}"
    part.write_text(json.dumps(result))
    part.rename(DONE / job.name)
    job.unlink()


def main() -> None:
    for folder in (JOBS, TAKEN, DONE):
        folder.mkdir(parents=True, exist_ok=True)
    for left in TAKEN.glob("*.json"):
        left.rename(JOBS / left.name)
    while not stopping:
        job = take()
        if job is None:
            time.sleep(PAUSE)
            continue
        try:
            finish(job, run(json.loads(job.read_text())))
        except urllib.error.HTTPError as error:
            if error.code == 503:
                job.rename(JOBS / job.name)
                time.sleep(PAUSE)
            else:
                finish(job, {"error": error.read().decode(errors="replace")})
        except ValueError as error:
            finish(job, {"error": f"not JSON: {error}"})
        except OSError as error:
            # ComfyUI is gone; this worker is started again once it is healthy.
            job.rename(JOBS / job.name)
            sys.exit(str(error))


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    main()
