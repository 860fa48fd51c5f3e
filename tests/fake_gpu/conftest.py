"""The stand-in for GPUs, built once."""

import pytest

from tests.fake_gpu.stand_in import NotHere, StandIn, build


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """Build the stand-in; skip the test where that is impossible."""
    try:
        return build(tmp_path_factory.mktemp("fake_gpu"))
    except NotHere as error:
        pytest.skip(f"needs the stand-in for GPUs: {error}")
