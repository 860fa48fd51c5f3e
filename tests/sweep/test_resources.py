"""Hold what a second try may ask for."""

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.runs.state_names import Cause
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.sweep.matrix.resources import Resources, Retry, with_more
from tests.sweep.stand_ins import SMALL


@pytest.mark.parametrize(
    ("cause", "limits", "more"),
    [
        (Cause.MEMORY, Retry(), Resources(memory_gb=16, minutes=60)),
        (Cause.MEMORY, Retry(memory_gb=12, minutes=1), Resources(memory_gb=12, minutes=60)),
        (Cause.MEMORY, Retry(memory_gb=8), None),
        (Cause.TIME, Retry(memory_gb=8), Resources(memory_gb=8, minutes=120)),
        (Cause.TIME, Retry(minutes=90), Resources(memory_gb=8, minutes=90)),
        (Cause.TIME, Retry(minutes=30), None),
    ],
)
def test_more_is_twice_as_much_and_never_beyond_the_limit(cause, limits, more):
    assert with_more(Resources(memory_gb=8, minutes=60), cause, limits) == more


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "retry: {memory: 64}",
            "key retry memory memory_gb",
        ),
        ("retry: {minutes: 0}", "minutes whole 1,000,000 0"),
        ("retry: 3", "retry mapping 3"),
    ],
)
def test_limits_that_are_wrong_are_one_sentence(place, text, words):
    place.path.write_text(SMALL + text)
    with pytest.raises(UserError) as error:
        read_matrix(place.path, place.packs)
    message = str(error.value)
    assert [word for word in words.split() if word not in message] == []
    assert message.startswith(f"{place.path}: ") and "\n" not in message
