"""The options of a user's own table are those of packing and of prediction alike."""

import pytest

from irnet_hpc.data.reading import Reading
from irnet_hpc.errors import UserError
from irnet_hpc.pack.cli import parser as pack_parser
from irnet_hpc.pack.options import reading_of
from irnet_hpc.predict.cli import parser as predict_parser

COMMANDS = {
    "pack": (pack_parser, ["--source", "my.csv"]),
    "predict": (predict_parser, ["run", "my.csv", "-o", "out.csv"]),
}


@pytest.fixture(params=COMMANDS)
def read(request):
    """Options -> how the table is read, for each command."""
    parser, others = COMMANDS[request.param]
    return lambda *options: reading_of(parser().parse_args([*others, *options]))


def test_a_column_may_have_an_equals_sign_and_texts_are_separated_by_commas(read):
    options = ("--rename", "E = U=band_gap", "--missing", "na,-9999", "--missing", "x")
    assert read(*options, "--sheet", "Data", "--formula-column", " A ") == Reading(
        formula_column="A", rename={"E = U": "band_gap"}, missing=("na", "-9999", "x"), sheet="Data"
    )


@pytest.mark.parametrize(
    "texts", [["a=x", "a=y"], ["a"], ["=x"], ["a="]], ids=["twice", "no =", "no column", "no name"]
)
def test_a_name_without_its_column_and_a_column_with_two_names_are_refused(read, texts):
    with pytest.raises(UserError):
        read(*(f"--rename={text}" for text in texts))
