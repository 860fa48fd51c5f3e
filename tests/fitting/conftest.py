"""Fit the table of hardnesses once."""

import pytest

import irnet_hpc
from irnet_hpc.fitting import FittedModel
from tests.fitting.builders import QUICK, TARGET, hardnesses


@pytest.fixture(scope="session")
def fitted() -> FittedModel:
    """Return a model of the made-up hardnesses, in a temporary folder. Do not write to it."""
    return irnet_hpc.fit(hardnesses(), TARGET, **QUICK)
