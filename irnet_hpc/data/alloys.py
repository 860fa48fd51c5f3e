"""The source `alloys`: multi-component alloys with two computed properties; no download needed.

mixing_enthalpy  eV/atom  regular solution: the sum over pairs of 4 H_ij c_i c_j, with H_ij from
                          Takeuchi and Inoue, Mater. Trans. 46, 2817 (2005), as in matminer
size_mismatch    %        Zhang's delta, 100 sqrt(sum c_i (1 - r_i / mean r)^2), with Miracle's
                          radii, as in matminer's YangSolidSolution
"""

import hashlib
import json

import numpy as np

from irnet_hpc.data.raw_csv import RawTable

VERSION = 1  # raise it when the same number of rows gives other alloys or values
SEED = 2005
# Rows drawn at a time. Each block has its own random stream, so that a smaller table is always the
# beginning of a larger one.
BLOCK_ROWS = 8192
PER_CENT = 100  # amounts are whole per cent, at least 1
N_ELEMENTS = (3, 4, 5)
KJ_PER_MOL = 1 / 96.48533212  # in eV/atom


def element_data() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the elements for which both models have data, and these data.

    Returns:
        The n elements that have a radius and a mixing enthalpy with every other such element; the
        pair enthalpies (n, n) in kJ/mol; and the radii (n,) in pm.
    """
    from matminer.utils.data import MagpieData, MixingEnthalpy

    pairs = MixingEnthalpy(impute_nan=False).mixing_data
    radii = MagpieData(impute_nan=False).all_elemental_props["MiracleRadius"]
    elements = sorted({symbol for pair in pairs for symbol in pair if not np.isnan(radii[symbol])})
    while True:
        missing = {
            a: sum(tuple(sorted((a, b))) not in pairs for b in elements if b != a) for a in elements
        }
        worst = max(elements, key=missing.__getitem__)
        if not missing[worst]:
            break
        # At and Po are in almost no pair, Pa lacks two pairs, and Th-U is missing.
        elements.remove(worst)
    enthalpy = np.array(
        [[0 if a == b else pairs[tuple(sorted((a, b)))] for b in elements] for a in elements], float
    )
    return elements, enthalpy, np.array([radii[symbol] for symbol in elements])


def compute_alloys(n_rows: int) -> RawTable:
    """Compute `n_rows` different random alloys of 3 to 5 elements, with amounts in whole per cent.

    The draw is even: each number of elements is equally likely, and so is each composition with
    that number of elements.
    """
    elements, enthalpy, radius = element_data()
    fractions = np.empty((0, len(elements)))
    seen: set[bytes] = set()
    block = 0
    while len(fractions) < n_rows:
        drawn = _draw(block, len(elements))
        new = []
        for row, amounts in enumerate(drawn):
            if (key := amounts.tobytes()) not in seen:
                seen.add(key)
                new.append(row)
        fractions = np.concatenate([fractions, drawn[new] / PER_CENT])[:n_rows]
        block += 1
    formula = [_formula(elements, row) for row in fractions]
    identity = json.dumps([VERSION, formula, elements, enthalpy.tolist(), radius.tolist()])
    return RawTable(
        line=np.arange(1, n_rows + 1),
        formula=formula,
        material_id=[f"alloys-{row}" for row in range(1, n_rows + 1)],
        targets={
            "mixing_enthalpy": mixing_enthalpy(fractions, enthalpy),
            "size_mismatch": size_mismatch(fractions, radius),
        },
        sha256=hashlib.sha256(identity.encode()).hexdigest(),
    )


def mixing_enthalpy(fractions: np.ndarray, enthalpy: np.ndarray) -> np.ndarray:
    """Compute the mixing enthalpy of the regular-solution model.

    Args:
        fractions: (n_rows, n) atomic fractions.
        enthalpy: (n, n) pair enthalpies in kJ/mol with a zero diagonal.

    Returns:
        (n_rows,) eV/atom.
    """
    return 2 * KJ_PER_MOL * np.einsum("ri,ij,rj->r", fractions, enthalpy, fractions, optimize=True)


def size_mismatch(fractions: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Compute the size mismatch (n_rows,), in %, from fractions (n_rows, n) and radii (n,)."""
    mean = fractions @ radius
    return 100 * np.sqrt(np.einsum("ri,ri->r", fractions, (1 - radius / mean[:, None]) ** 2))


def _draw(block: int, n: int) -> np.ndarray:
    """Draw amounts (BLOCK_ROWS, n) in whole per cent; each row adds up to 100."""
    random = np.random.Generator(np.random.Philox(key=[SEED, block]))
    amounts = np.zeros((BLOCK_ROWS, n), np.int64)
    for row, count in enumerate(random.choice(N_ELEMENTS, BLOCK_ROWS)):
        # Cutting 1..100 at count - 1 different places makes every composition of that many elements
        # equally likely.
        cuts = np.sort(random.choice(PER_CENT - 1, count - 1, replace=False)) + 1
        chosen = random.choice(n, count, replace=False)
        amounts[row, chosen] = np.diff([0, *cuts, PER_CENT])
    return amounts


def _formula(elements: list[str], fractions: np.ndarray) -> str:
    return "".join(
        f"{elements[i]}{round(PER_CENT * fractions[i])}" for i in np.flatnonzero(fractions)
    )
