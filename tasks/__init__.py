"""The stages that make a machine what machine.yaml says: a module or a room for each.

The package is `comfy_machine`; in a clone that is a link to `tasks`.
"""

import sys

__version__ = "0.2.0"

if __name__ == "comfy_machine" and "tasks" in sys.modules:
    sys.exit("this .venv has the commands of an older version: run `make .venv`, then repeat this")
