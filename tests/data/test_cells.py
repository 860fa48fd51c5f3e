"""What a cell of numbers says: each way in which people fill one in has a rule."""

import math

import numpy as np
import pytest

from irnet_hpc.data.cells import MIXED, POINT, TWO, ColumnReader, NoNumber, read_cell


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (" 2.1 ", 2.1),
        ("1.2 ± 0.1", 1.2),
        ("-1.2+/-0.1", -1.2),
        ("1.25(3)", 1.25),
        ("1,234.5", 1234.5),
        ("1,234,567", 1234567),
        ("1,25", 1.25),
        ("0,123", 0.123),
        ("-1.234,5", -1234.5),
        ("3.2 eV", 3.2),
        ("3.2eV", 3.2),
    ],
)
def test_a_cell_with_one_reading_is_read(text, value):
    assert read_cell(text, unit="eV")[0] == value


@pytest.mark.parametrize("text", ["", " ", "n/a", "N/A", "NA", "-", "—", "None", "null", "nan"])
def test_texts_that_mean_not_reported_are_no_fault(text):
    assert math.isnan(read_cell(text)[0])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("~2.1", "an approximate value"),
        ("ca. 2", "an approximate value"),
        (">3", "a bound, not a value"),
        ("<= 0.5", "a bound, not a value"),
        ("1.2-1.5", "a range, not a value"),
        ("1 to 2", "a range, not a value"),
        ("1,234", TWO),
        ("2024-01-31", "a date"),
        ("2024-01-31 00:00:00", "a date"),
        ("31.01.2024", "a date"),
        ("=", "a spreadsheet formula without a stored value"),
        ("#DIV/0!", "an error of a spreadsheet"),
        ("inf", "not a finite number"),
        ("1e999", "not a finite number"),
        ("3.2 GPa", "not a number"),
        ("wide", "not a number"),
        ("2_1", "not a number"),
        ("1" * 10_000 + "x", "not a number"),
    ],
)
def test_a_cell_that_is_no_number_has_a_reason(text, reason):
    with pytest.raises(NoNumber) as error:
        read_cell(text, unit="eV")
    assert error.value.args == (reason,)


def read(*blocks: list[str], **options) -> ColumnReader:
    reader = ColumnReader(**options)
    for block in blocks:
        reader.read(block)
    reader.finish()
    return reader


def test_a_comma_is_decided_by_the_whole_column_in_any_order():
    for blocks in ((["1,234"], ["1,5", "2"]), (["1,5", "2"], ["1,234"])):
        assert sorted(read(*blocks).blocks[0]) == [1.234, 1.5, 2]
    # With decimal points beside it, 1,5 may be a slip, and 1,234 a thousand.
    mixed = read(["1,234"], ["1,5", "2.5", "3.5"])
    assert {row: reason for row, (_, reason) in mixed.faults.items()} == {0: TWO, 1: MIXED}
    assert np.isnan(mixed.blocks[0]).tolist() == [True, True, False, False]
    alone = read(["1,234", "5"])
    assert alone.faults == {0: ("1,234", TWO)}


def test_missing_texts_are_case_sensitive_and_numbers_in_any_spelling():
    reader = read(["na", "-9999", "-9999.0", "5"], ["Na ?", "xx"], missing=("xx", "-9999"))
    assert np.array_equal(reader.blocks[0], [math.nan] * 3 + [5, math.nan, math.nan], True)
    assert list(reader.faults) == [4]
    assert sum(reader.rules.values()) == 4
    assert read(["XX", "1"], missing=("xx",)).faults == {0: ("XX", "not a number")}


def test_values_of_json_are_read_like_cells():
    reader = ColumnReader(missing=("-1",))
    for row, value in enumerate([1.5, "n/a", "2.5", True, None, 10**400, -1, [1]]):
        reader.put(row, value)
    reader.pad(10)
    expected = [1.5, math.nan, 2.5, *[math.nan] * 7]
    assert np.array_equal(reader.finish(), expected, True)
    assert sorted(reader.faults) == [3, 5, 7]


@pytest.mark.parametrize("blocks", [[["1,5", "2,25"], ["1.234"]], [["1.234"], ["1,5", "2,25"]]])
def test_one_point_among_decimal_commas_costs_its_row_and_not_the_column(blocks):
    """1.234 may be 1234 there; plain numbers of a block of their own are found again."""
    reader = read(*blocks)
    (where,) = reader.faults
    assert reader.faults[where] == ("1.234", POINT)
    values = reader.blocks[0]
    assert np.isnan(values[where]) and sorted(values[np.isfinite(values)]) == [1.5, 2.25]
