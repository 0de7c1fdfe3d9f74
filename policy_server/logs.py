"""The log, of the standard library's logging: lines for people, or one JSON object a line for machines."""

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

from vla.api import InputError

FORMATS = ("text", "json")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """One object a line: time (UTC, ISO 8601), level, logger, message, and every key of the call's `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; what JSON cannot say is said as text."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(log_format: str) -> None:
    """Write the log of this process to standard error.

    Args:
        log_format: `text` or `json`.

    Raises:
        InputError: on another format.
    """
    if log_format not in FORMATS:
        raise InputError(f"log must be one of {', '.join(FORMATS)}, got {log_format!r}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
