"""aiohttp's server, loaded without the certificates of the system.

aiohttp reads all of them for its client, which the simulator doesn't use; that takes a third of its
loading time.
"""

from __future__ import annotations

import os

_name = "SSL_CERT_FILE"
_known = os.environ.get(_name)
os.environ[_name] = os.devnull
try:
    from aiohttp import web
finally:
    del os.environ[_name]
    if _known is not None:
        os.environ[_name] = _known

__all__ = ["web"]
