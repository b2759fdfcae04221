"""The book: `make docs` builds it, and a link that leads nowhere fails the build."""

from comfy_machine import __version__

project = "comfy-machine"
version = release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True
html_theme = "furo"
html_title = f"comfy-machine {version}"
html_copy_source = False
