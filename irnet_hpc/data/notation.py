"""Rewrite formulas that people type or paste as plain text, and refuse ambiguous ones.

Fe₂O₃, Fe$_2$O$_3$, Fe_2O_3, Fe<sub>2</sub>O3      subscripts
CuSO4·5H2O, CuSO4.5H2O, 3CaO.Al2O3                 parts that a raised point separates

A point on the line can be a decimal point or replace a raised one. pymatgen 2026.10.24 takes every
point for a decimal one, so CuSO4.5H2O has 5.5 O there.
"""

import itertools
import re

# TiO2(B), ZnS(W) and NaCl(S) are bronze, wurtzite and a solid, without boron, tungsten or sulphur.
PHASE = re.compile(r"(?<=[A-Za-z0-9])\([A-Z][a-z]?\)$")
# A formula in which nothing here matches is plain. Every formula of a table is searched for it.
UNUSUAL = re.compile(rf"[^A-Za-z0-9()\[\]]|(?<![0-9])0[0-9]|\([IV]|UNKNOWN|{PHASE.pattern}")
INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
# Subscripts, and the signs that people type for a raised point.
TO_PLAIN = {ord("₀") + n: str(n) for n in range(10)} | dict.fromkeys(map(ord, "•⋅∙‧・×*"), "·")
TEX_POINT = re.compile(r"\\(?:cdot|times|bullet)(?![a-z])\s*")
TEX_WORD = re.compile(r"\\(?:mathrm|mathit|text|rm|ce)(?![a-z])\s*|\\[,;! ]|\$")
NUMBER = r"[0-9]+(?:\.[0-9]+)?"
# Fe2O3_2 is the second entry of a list, and no O32: a subscript does not follow a digit.
SUBSCRIPT = re.compile(
    rf"(?<![0-9])_\{{({NUMBER})\}}|(?<![0-9])_({NUMBER})(?![0-9_.])|<sub>({NUMBER})</sub>"
)
# A point on the line that no number follows cannot be a decimal point.
RAISED = re.compile(r"\s*·\s*|\s+\.\s*|\s*\.\s+|\.(?=[A-Z(\[])")
# Molecules that crystallise with a compound.
SOLVATE = (
    r"\(?(?:H2O|D2O|OH2|NH3|ND3|N2H4|CH3OH|CH4O|C2H5OH|C2H6O|CH3CN|C2H3N|C3H7NO|C2H6SO|C2H6OS"
    r"|C4H8O|CH2Cl2|CHCl3|C6H6|C7H8|H2O2|HCl)\)?"
)
POINT_SOLVATE = re.compile(rf"\.({NUMBER})(?={SOLVATE}(?:$|[.·]))")
MAX_MOLECULES = 30  # beyond that, digits between a point and a solvate are more likely decimals
# Salts and oxides, in whose lists minerals and double salts are written: K2O.Al2O3.6SiO2.
AMOUNT = "(?:[2-9]|[1-9][0-9]+)?"  # nobody writes an amount of 1
ANION = "(?:O|F|Cl|Br|I|S|Se|Te|OH|CN|CO3|NO3|NO2|SO4|SO3|PO4|SiO3|SiO4|ClO4|CrO4|BO3)"
SALT = rf"(?:[A-Z][a-z]?|\(NH4\)|NH4){AMOUNT}(?:{ANION}{AMOUNT}|\({ANION}\){AMOUNT})"
SALTS = re.compile(rf"(?:{NUMBER})?{SALT}(?:\.(?:[2-9]|[12][0-9]|30){SALT})+")
FACTOR = re.compile(rf"(?:({NUMBER})|([0-9]+)/([1-9][0-9]*)|([½¼¾⅓⅔]))\s*(?=[A-Z(\[])")
VULGAR = dict(zip("½¼¾⅓⅔", (1 / 2, 1 / 4, 3 / 4, 1 / 3, 2 / 3), strict=True))
ONE_ELEMENT = re.compile(r"[A-Z][a-z]?[0-9.]*")
LEADING_ZERO = re.compile(r"(?<![0-9.eE+-])0[0-9]")
ELEMENTS = re.compile(r"[A-Z][a-z]?")
# Behind a blank, what is the name of a phase, a space group or a polytype: CaCO3 II, SiC 4H.
AMOUNT_FIRST = re.compile(r"[0-9.]+[A-Z]")
NUMERAL = re.compile(r"I{2,3}|IV|VI{1,3}|IX")
GROUP = re.compile(r"[(\[].*[)\]][0-9.]*")
# Iron(II), but not the iodides of a formula such as Pb(I)2. Cu(I)2O is copper(I) oxide, or perhaps
# an iodide.
OXIDATION_STATE = re.compile(r"\((?:III?\)|(?:IV?|VI{0,3})\)(?![0-9])|I\)(?=[0-9.]+[A-Z(\[]))")
# A core in a shell: Fe3O4@SiO2. Amounts are known only of a cage of carbon: Y3N@C80.
SHELL = re.compile(r"@(?!C[2-9][0-9]+$)")


class InvalidFormula(ValueError):
    """Signal that a text is not a composition. Its two arguments are the reason and the detail."""


def parts_of(formula: str) -> list[tuple[float, str]]:
    """Split a formula into parts such as (1.0, "CuSO4") and (5.0, "H2O"); most have one part.

    Raises:
        InvalidFormula: if the notation is ambiguous.
    """
    if not UNUSUAL.search(formula):
        return [(1.0, formula)]
    text = formula.translate(INVISIBLE).strip()
    if text == "UNKNOWN":  # of the letters of five elements
        raise InvalidFormula("formula not readable", "UNKNOWN")
    if LEADING_ZERO.search(text):
        raise InvalidFormula("formula not readable", f"an amount begins with 0 in {text:.50}")
    if state := OXIDATION_STATE.search(text):
        raise InvalidFormula("formula not readable", f"{state[0]} is an oxidation state")
    if phase := PHASE.search(text):
        raise InvalidFormula(
            "formula not readable", f"{phase[0]} may be the name of a phase in {text:.50}"
        )
    if SHELL.search(text):
        raise InvalidFormula(
            "formula not readable", f"the amounts of core and shell are not stated in {text:.50}"
        )
    text = RAISED.sub("·", _on_the_line(text))
    text = POINT_SOLVATE.sub(_raise_point, text)
    is_list = "·" in text or bool(FACTOR.match(text))
    pieces: list[str] = []
    for piece in text.split("·"):
        if not SALTS.fullmatch(piece):
            pieces.append(piece)
        elif is_list:
            factor = FACTOR.match(piece)
            start = factor.end() if factor else 0
            first, *others = piece[start:].split(".")
            pieces += [piece[:start] + first, *others]
        else:
            raise _two_readings(piece)
    for piece in pieces:
        _check_blanks(piece)
    if len(pieces) == 1:
        return [(1.0, text)]
    for before, piece in itertools.pairwise(pieces):
        # 0·5 is a decimal number, and Sn2·5Sb may be one.
        factor = FACTOR.match(piece)
        if factor and (
            re.search(r"(?<![0-9.])[01]$", before) or ONE_ELEMENT.fullmatch(piece[factor.end() :])
        ):
            raise _two_readings(text)
    return [_part(piece, text) for piece in pieces]


def _on_the_line(text: str) -> str:
    """Write subscripts as normal digits, and every sign that means a raised point as `·`."""
    is_tex = "\\" in text
    text = TEX_WORD.sub("", TEX_POINT.sub("·", text.translate(TO_PLAIN)))
    text = SUBSCRIPT.sub(lambda match: match[1] or match[2] or match[3], text)
    return text.translate(dict.fromkeys(map(ord, "{}"))) if is_tex and "_" not in text else text


def _raise_point(point: re.Match[str]) -> str:
    """Decide whether a point is a decimal point or the raised point before solvate molecules.

    Returns:
        The point with the number that follows it; a raised point is returned as `·`.
    """
    before = re.search(r"([0-9]*)$", point.string[: point.start()])
    assert before
    n_before, n = before[1], point[1]
    if point.string[: before.start()].endswith("·"):  # CoO2·1.3H2O
        return point[0]
    if n_before == "0":  # an amount of 0 would be nothing: 0.5
        if "." in n:
            raise _two_readings(point.string)
        return point[0]
    is_whole = n.isdigit() and not n.startswith("0") and 2 <= int(n) <= MAX_MOLECULES
    if is_whole and n_before != "1":
        return f"·{n}"
    # 4.0.5 cannot be one number, and nobody writes 4.0 for 4.
    if "." in n and (not n_before or n.startswith("0.")):
        return f"·{n}"
    raise _two_readings(point.string)


def _check_blanks(piece: str) -> None:
    """Refuse words that are not a formula but could be read as one: `CaCO3 II` has no iodine.

    Blanks may separate the elements of a formula (`Fe2 O3`, `Fe 2 O 3`), and a bracketed group with
    its amount from what is before it (`CuSO4 (H2O)5`).
    """
    factor = FACTOR.match(piece)
    depth, outer = 0, ""  # the piece without the blanks within brackets
    for letter in piece[factor.end() if factor else 0 :]:
        depth += (letter in "([") - (letter in ")]")
        outer += "" if depth and letter.isspace() else letter
    first, *words = outer.split() or [""]
    if first.isalpha() and "".join(words).isdigit():  # an alloy or a steel: Al 6061, Ti 64, SS 316
        raise InvalidFormula(
            "formula not readable", f"{' '.join([first, *words]):.50} may be the name of an alloy"
        )
    is_whole = len(ELEMENTS.findall(first)) > 1 and not GROUP.fullmatch(first)
    for before, word in itertools.pairwise([first, *words]):
        is_group = GROUP.fullmatch(word)
        is_name = not word[-1].isdigit() if is_group else is_whole or AMOUNT_FIRST.match(word)
        is_second_amount = before[-1:].isdigit() and word.isdigit()
        if is_name or is_second_amount or NUMERAL.fullmatch(word):
            raise InvalidFormula(
                "formula not readable", f"{word!r} follows a blank in {piece.strip():.50}"
            )


def _part(piece: str, whole: str) -> tuple[float, str]:
    factor = FACTOR.match(piece)
    if factor is None:
        if not piece or re.match(r"[a-z]", piece):
            raise InvalidFormula("formula not readable", f"an amount is not stated in {whole:.50}")
        return 1.0, piece
    decimal, numerator, denominator, vulgar = factor.groups()
    number = (
        VULGAR[vulgar]
        if vulgar
        else float(decimal)
        if decimal
        else int(numerator) / int(denominator)
    )
    return number, piece[factor.end() :]


def _two_readings(text: str) -> InvalidFormula:
    return InvalidFormula(
        "a point with two readings",
        f"write · before the amount of a part, as in CuSO4·5H2O, and 0.5 for decimals: {text:.50}",
    )
