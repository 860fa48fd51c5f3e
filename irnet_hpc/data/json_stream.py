"""Read a list of JSON objects one by one, in memory that does not depend on its length."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from irnet_hpc.data.raw_table import MAX_LINE_LENGTH
from irnet_hpc.errors import UserError

CHUNK_BYTES = 2**20
BETWEEN = re.compile(r"[\s,]*")


def read_start(stream: TextIO) -> str:
    """Return the first characters of a JSON text, from the first that is no blank."""
    start = ""
    while not start and (chunk := stream.read(CHUNK_BYTES)):
        start = chunk.lstrip()
    return start


def list_objects(
    stream: TextIO, start: str, name: str, numbers: Callable[[str], Any] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON list.

    Args:
        stream: The text after `start`.
        start: The first characters of the list, beginning with its bracket.
        name: The name of the file, for messages.
        numbers: Converts the text of each number; None: to a number.

    Raises:
        UserError: If the text is not JSON, or an entry of the list is not an object.
    """
    decoder = json.JSONDecoder(parse_float=numbers, parse_int=numbers, parse_constant=numbers)
    buffer, place, number = start, 1, 0
    while True:
        while True:
            skipped = BETWEEN.match(buffer, place)
            place = skipped.end() if skipped else place
            if buffer[place : place + 1] == "]":
                return
            try:
                entry, place = decoder.raw_decode(buffer, place)
                break
            except (ValueError, RecursionError) as error:
                more = stream.read(CHUNK_BYTES)
                if not more or len(buffer) - place > MAX_LINE_LENGTH:
                    raise UserError(f"{name}, object {number + 1}, is not JSON: {error}") from None
                buffer, place = buffer[place:] + more, 0
        number += 1
        if not isinstance(entry, dict):
            raise UserError(f"{name}, object {number}, must be an object, got {entry!r:.50}")
        yield entry
