"""Exec a command with variables from a file: `python with_env.py FILE COMMAND [ARG …]`.

PM2 shows every app's environment and keeps it in its dump, so an app that needs a secret is
started through this: the same process becomes the command, and the secret is in FILE (0600) only.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    file, *command = arguments
    variables: dict[str, str] = json.loads(Path(file).read_text(encoding="utf-8"))
    os.execvpe(command[0], command, {**os.environ, **variables})


if __name__ == "__main__":
    main(sys.argv[1:])
