"""The time before each log record that ComfyUI and its custom nodes write to standard output.

PM2 can write times too, but loses output then: it drops what follows the last line break of each
piece that it reads, and breaks progress bars into lines (`prefixLogWithDate` in
lib/God/ForkMode.js of PM2 7.0.4). What a custom node prints has no time of its own.
"""

from __future__ import annotations

import io
import logging
import time

FORMAT = "%Y-%m-%d %H:%M:%S "


def attach() -> None:
    format_record = logging.StreamHandler.format

    def format_with_time(self: logging.StreamHandler, record: logging.LogRecord) -> str:  # type: ignore[type-arg]
        text = format_record(self, record)
        shown = text.lstrip("\n")
        if not shown or not _is_ours(self):
            return text
        at = time.strftime(FORMAT, time.localtime(record.created))
        return f"{text[: len(text) - len(shown)]}{at}{shown}"

    logging.StreamHandler.format = format_with_time  # type: ignore[assignment]


def _is_ours(handler: logging.StreamHandler) -> bool:  # type: ignore[type-arg]
    """Whether it writes to this log. Custom nodes may wrap sys.stdout, so no stream is compared."""
    is_file = isinstance(handler, logging.FileHandler)
    return not is_file and not isinstance(handler.stream, io.StringIO)
