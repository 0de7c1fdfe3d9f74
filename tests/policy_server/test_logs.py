"""The log as JSON lines: one object a line, whatever is logged."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from policy_server.logs import JsonLines, set_up
from vla.api import InputError


@pytest.fixture
def written() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("arm")
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)


def test_a_line_is_one_object_with_what_extra_gives(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = written
    logger.warning("session %a\nis late", "s", extra={"session": "s", "seq": 3, "clock": object})
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "WARNING",
        "logger": "arm",
        "message": "session 's'\nis late",
        "session": "s",
        "seq": 3,
        "clock": "<class 'object'>",
    }


def test_a_traceback_is_in_its_line(written: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = written
    try:
        raise ZeroDivisionError("by zero")
    except ZeroDivisionError:
        logger.exception("failed")
    assert "ZeroDivisionError: by zero" in json.loads(stream.getvalue())["exception"]


def test_another_format_is_refused() -> None:
    with pytest.raises(InputError, match="text, json"):
        set_up("xml")
