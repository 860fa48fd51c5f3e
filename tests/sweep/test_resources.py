"""Hold what a second try may ask for."""

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.sweep.matrix.matrix import read_matrix
from irnet_hpc.sweep.matrix.resources import Resources, Retry, with_more
from tests.sweep.stand_ins import SMALL


@pytest.mark.parametrize(
    ("cause", "limits", "more"),
    [
        ("memory", Retry(), Resources(memory_gb=16, minutes=60)),
        ("memory", Retry(memory_gb=12, minutes=1), Resources(memory_gb=12, minutes=60)),
        ("memory", Retry(memory_gb=8), None),
        ("time", Retry(memory_gb=8), Resources(memory_gb=8, minutes=120)),
        ("time", Retry(minutes=90), Resources(memory_gb=8, minutes=90)),
        ("time", Retry(minutes=30), None),
    ],
)
def test_more_is_twice_as_much_and_never_beyond_the_limit(cause, limits, more):
    assert with_more(Resources(memory_gb=8, minutes=60), cause, limits) == more


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "retry: {memory: 64}",
            "unknown key of retry 'memory' (did you mean 'memory_gb'?); known: memory_gb, minutes",
        ),
        ("retry: {minutes: 0}", "minutes must be a whole number from 1 to 1,000,000, however: 0"),
        ("retry: 3", "retry must be a mapping, however: 3"),
    ],
)
def test_limits_that_are_wrong_are_one_sentence(place, text, sentence):
    place.path.write_text(SMALL + text)
    with pytest.raises(UserError) as error:
        read_matrix(place.path, place.packs)
    assert str(error.value) == f"{place.path}: {sentence}"
