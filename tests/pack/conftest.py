"""Fixtures of packing: a folder with a table of oxides."""

from collections.abc import Iterator

import pytest

from tests.pack.builders import Place


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    """Return a folder with a table of oxides; processes started in it end with the test."""
    place = Place(tmp_path)
    yield place
    place.end()
