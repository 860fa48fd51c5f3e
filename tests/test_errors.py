"""Hold how errors name what a user can change."""

import pytest

from irnet_hpc.errors import UserError, python_names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("choose one with --formula-column", "choose one with formula_column"),
        ("state it with --unit x=UNIT", "state it with units x=UNIT"),
        ("--strict stops instead", "strict=True stops instead"),
        ("`python -m irnet_hpc.pack --folds 5`", "`python -m irnet_hpc.pack --folds 5`"),
        ("a -- b", "a -- b"),
    ],
)
def test_errors_in_python_name_its_arguments_and_not_the_options_of_commands(given, said):
    @python_names(unit="units")
    def fail() -> None:
        raise UserError(given)

    with pytest.raises(UserError) as caught:
        fail()
    assert str(caught.value) == said


def test_the_outermost_call_decides_how_an_argument_is_called():
    with pytest.raises(UserError, match=r"^unit$"), python_names(), python_names(unit="units"):
        raise UserError("--unit")
