"""Hold what a model knows of the formulas that it has seen."""

import hashlib

import numpy as np

from irnet_hpc.data.known_formulas import hash_formulas, hashes_of


def test_each_formula_is_found_in_the_role_it_had():
    known = hash_formulas(["NaCl", "Fe2O3", "NaCl"], ["O2Si"])
    assert len(known.train) == 2 and len(known.val) == 1
    assert known.roles_of(["O2Si", "NaCl", "ClK", "Fe2O3"]) == ["val", "train", "", "train"]
    assert known.n_seen(["NaCl", "NaCl", "ClK", "O2Si"]) == 2
    assert known.roles_of([]) == []


def test_a_model_that_has_seen_no_val_formula_marks_none_as_val():
    assert hash_formulas(["NaCl"], []).roles_of(["NaCl", "ClK"]) == ["train", ""]


def test_a_hash_is_the_first_eight_bytes_of_blake2b_as_a_signed_number():
    for formula in ("NaCl", "Fe2O3", "Ag"):
        digest = hashlib.blake2b(formula.encode(), digest_size=8).digest()
        assert hashes_of([formula]).tolist() == [int.from_bytes(digest, "big", signed=True)]


def test_no_two_of_many_formulas_share_a_hash():
    formulas = [f"Fe{a}Ni{b}O{c}" for a in range(1, 40) for b in range(1, 40) for c in range(1, 40)]
    assert len(np.unique(hashes_of(formulas))) == len(formulas)
