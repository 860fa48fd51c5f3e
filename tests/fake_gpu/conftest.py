"""The stand-in for GPUs, built once."""

import os

import pytest

from tests.fake_gpu.stand_in import NotHere, StandIn, build


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Build the stand-in; where that is impossible, skip, or fail if IRNET_FAKE_GPU is 1."""
    try:
        return build(tmp_path_factory.mktemp("fake_gpu"))
    except NotHere as error:
        reason = f"needs the stand-in for GPUs: {error}"
        if os.environ.get("IRNET_FAKE_GPU") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
