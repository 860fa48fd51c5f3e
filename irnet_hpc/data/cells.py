"""Read the cells of a column of numbers, as people fill them in.

    2.1   1e-3                     numbers
    (empty)   nan   n/a   -        not reported; so are the texts of --missing
    1.2 ± 0.1   1.2(1)             1.2: a value with its uncertainty
    1,234.5   1,234,567            commas between thousands
    1,25   1.234,5                 decimal commas, if the column has more of them than points
    3.2 eV                         the number, if the column is in eV
    ~2.1   >3   1.2-1.5   1,234    no number: an approximate value, a bound, a range, two readings

A cell that is no number costs its row, which is listed. Plain numbers are read block by block; a
comma is decided when the whole column is known.
"""

import dataclasses
import datetime
import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from irnet_hpc.data.numerals import NUMERAL, parse_column, parse_number, parse_reported

MAX_KEPT = 200  # characters of a text that is no number
NOT_REPORTED = frozenset(
    ("", "nan", "na", "n/a", "#n/a", "n.a.", "nd", "n.d.", "none", "null", "-", "--", "–", "—")
)
NUMBER = NUMERAL.pattern
MAX_LENGTH = 100  # of a number; the patterns below take the square of a text's length
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:(?:,[0-9]{3})+\.[0-9]+|(?:,[0-9]{3}){2,})")
DECIMAL_COMMA = re.compile(
    r"[+-]?(?:[0-9]*,[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+)(?:[eE][+-]?[0-9]+)?"
)
# 1,234 may be 1234 or 1.234; 0,123 cannot be 123.
TWO_READINGS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
UNCERTAIN = re.compile(
    rf"({NUMBER})\s*(?:±|\+/-|\+-)\s*(?:{NUMBER})|([+-]?[0-9]*\.?[0-9]+)\([0-9]+\)"
)
WITH_UNIT = re.compile(rf"({NUMBER})\s*([^\s0-9].*)")
DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}\b.*|[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{2,4}\b.*")
# Why a text is no number; the first pattern that matches says it.
REASONS = {
    "an approximate value": re.compile(
        r"(?:~|≈|∼|≅|ca?\.?|circa|approx\.?|about)\s*[0-9.].*", re.I
    ),
    "a bound, not a value": re.compile(r"(?:[<>≤≥≲≳]|[<>]=)\s*[-+0-9.].*"),
    "a date": DATE,
    "a range, not a value": re.compile(rf"{NUMBER}\s*(?:-|–|—|\.\.\.?|to)\s*{NUMBER}"),
    "a spreadsheet formula without a stored value": re.compile(r"=.*", re.S),
    "an error of a spreadsheet": re.compile(r"#[A-Z/0]+[!?]"),
    "not a finite number": re.compile(r"[+-]?inf(?:inity)?", re.I),
}
TWO = "a comma with two readings"
MIXED = "a decimal comma among decimal points"
POINT = "a decimal point among decimal commas"
DECIMAL = "have a decimal comma"


class NoNumber(ValueError):
    """Signal that a cell holds no number; the argument is the reason."""


def is_date(value: object) -> bool:
    """Return True for a date, and for a text that is one."""
    return isinstance(value, datetime.date) or bool(DATE.fullmatch(str(value)))


def why_no_number(text: str) -> str:
    """Return the reason why a text is no number."""
    for reason, pattern in REASONS.items():
        if pattern.fullmatch(text):
            return reason
    return "not a finite number" if NUMERAL.fullmatch(text) else "not a number"


def read_cell(text: str, unit: str = "") -> tuple[float, str]:
    """Read one cell.

    Args:
        text: The cell.
        unit: The unit of the column, which a number may carry; empty: not known.

    Returns:
        The number, NaN where not reported, and the rule by which other text than a plain number was
        read, as the end of a sentence about several cells; empty for plain numbers.

    Raises:
        NoNumber: If the cell holds no number.
    """
    text = text.strip()
    if text.lower() in NOT_REPORTED:
        return math.nan, f"say {text!r}: not reported" if text and text.lower() != "nan" else ""
    if len(text) > MAX_LENGTH:
        raise NoNumber("not a number")
    try:
        return parse_reported(text), ""
    except ValueError:
        pass
    if uncertain := UNCERTAIN.fullmatch(text):
        return parse_number(uncertain[1] or uncertain[2]), "have an uncertainty, which is left out"
    if THOUSANDS.fullmatch(text):
        return parse_number(text.replace(",", "")), "have commas between thousands"
    if TWO_READINGS.fullmatch(text):
        raise NoNumber(TWO)
    if DECIMAL_COMMA.fullmatch(text):
        return decimal_comma(text), DECIMAL
    with_unit = WITH_UNIT.fullmatch(text)
    if unit and with_unit and with_unit[2].strip() == unit:
        return parse_number(with_unit[1]), f"carry the unit {unit}"
    raise NoNumber(why_no_number(text))


def decimal_comma(text: str) -> float:
    """Parse a number with a decimal comma, and perhaps points between thousands."""
    return parse_number(text.strip().replace(".", "").replace(",", "."))


@dataclasses.dataclass
class ColumnReader:
    """Reads a column of numbers block by block, and keeps what is no number.

    Attributes:
        unit: The unit of the column, which a cell may carry.
        missing: Texts that mean "not reported", as the user stated.
        blocks: The numbers so far, each (n_block,) float64, NaN where there is none.
        faults: Row -> (text, reason), for cells that hold no number.
        rules: Rule -> number of cells that were read by it.
    """

    unit: str = ""
    missing: Collection[str] = ()
    blocks: list[np.ndarray] = dataclasses.field(default_factory=list)
    faults: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    rules: Counter[str] = dataclasses.field(default_factory=Counter)
    n_rows: int = 0
    points: list[np.ndarray] = dataclasses.field(default_factory=list)  # rows with a decimal point
    commas: dict[int, str] = dataclasses.field(default_factory=dict)  # rows with a decimal comma
    single: dict[int, float] = dataclasses.field(default_factory=dict)  # row -> number of `put`

    def read(self, texts: Sequence[str]) -> None:
        """Read the next cells of the column."""
        block = parse_column(texts)
        if block is not None and self.missing:
            codes = [float(code) for code in self.missing if NUMERAL.fullmatch(code)]
            if np.isin(block, codes).any():
                block = None
        if block is None:
            block = np.array(
                [self._number(self.n_rows + place, text) for place, text in enumerate(texts)]
            )
        else:
            places = [place for place, text in enumerate(texts) if "." in text]
            self.points.append(np.array(places, np.int64) + self.n_rows)
        self.blocks.append(block)
        self.n_rows += len(block)

    def put(self, row: int, value: object) -> None:
        """Read a value of JSON as the cell of a row; rows are given in ascending order."""
        if isinstance(value, str):
            number = self._number(row, value)
        elif value is None:
            number = math.nan
        elif self.missing and _is_number(value) and self._is_missing(repr(value)):
            self.rules[f"say {value!r}: not reported"] += 1
            number = math.nan
        else:
            number = _finite(value)
            if math.isnan(number):
                why = "not a finite number" if _is_number(value) else "not a number"
                self.faults[row] = repr(value)[:MAX_LENGTH], why
        self.single[row] = number

    def pad(self, n_rows: int) -> None:
        """Add the rows that `put` was not called for; they report nothing."""
        column = np.full(n_rows, math.nan)
        column[list(self.single)] = list(self.single.values())
        self.blocks, self.n_rows = [column], n_rows

    def _number(self, row: int, text: str) -> float:
        if self.missing and self._is_missing(text.strip()):
            self.rules[f"say {text.strip()!r}: not reported"] += 1
            return math.nan
        try:
            number, rule = read_cell(text, self.unit)
        except NoNumber as error:
            self.faults[row] = text[:MAX_KEPT], str(error)
            return math.nan
        if rule == DECIMAL:
            self.commas[row] = text
        elif rule:
            self.rules[rule] += 1
        elif "." in text:
            self.points.append(np.array([row]))
        return number

    def _is_missing(self, text: str) -> bool:
        """Return True for a text of --missing, and for the same number in another spelling."""
        if text in self.missing:
            return True
        try:
            number = parse_number(text)
        except ValueError:
            return False
        return any(NUMERAL.fullmatch(code) and float(code) == number for code in self.missing)

    def finish(self) -> np.ndarray:
        """Return the numbers of the whole column, (n_rows,) float64, and decide about commas.

        Where some cells have a decimal comma and others a point, the fewer are no numbers: 1.234
        among decimal commas may be 1234.
        """
        values = np.concatenate([*self.blocks, np.empty(0)])
        points = np.concatenate([*self.points, np.empty(0, np.int64)])
        if self.commas and len(self.commas) <= len(points):
            for row, text in self.commas.items():
                values[row] = math.nan
                self.faults[row] = text, MIXED
        elif self.commas:
            for row in map(int, points):
                self.faults[row] = str(values[row]), POINT
                values[row] = math.nan
            for row in [row for row, (_, why) in self.faults.items() if why == TWO]:
                text, _ = self.faults.pop(row)
                values[row] = decimal_comma(text)
                self.commas[row] = text
            self.rules[DECIMAL] += len(self.commas)
        self.blocks, self.faults = [values], dict(sorted(self.faults.items()))
        return values


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> float:
    """Return a number of JSON; NaN if it is none, or not finite."""
    try:
        return float(value) if _is_number(value) and math.isfinite(value) else math.nan
    except OverflowError:  # a whole number that is too large for a float
        return math.nan
