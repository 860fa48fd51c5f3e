"""What a user names as a source."""

from pathlib import Path

import pytest

from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from tests.builders import load_table


def test_names_of_sources():
    assert resolve_source("oqmd").name == "oqmd"
    assert resolve_source("some/my steels (2024).csv.gz").name == "my_steels_2024"
    with pytest.raises(
        UserError,
        match=r"unknown source 'oqdm' \(did you mean 'oqmd'\?\); known: .*aflow, alloys, crabnet",
    ):
        resolve_source("oqdm")


@pytest.mark.parametrize("source", ["matminer:", "matminer:../etc", "matminer:a b"])
def test_a_dataset_is_a_name(source):
    with pytest.raises(UserError, match="name of a matminer dataset must be letters"):
        load_table(source, Path("nowhere"))
