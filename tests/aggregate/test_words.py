"""Names of models and properties in words."""

import pytest

from irnet_hpc.aggregate.words import MODEL_WORDS, in_words, model_words, property_words
from irnet_hpc.runs.classical_grids import GRIDS


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("irnet-17", "IRNet-17"),
        ("plain-48", "Plain-48"),
        ("random_forest", "Random forest"),
        ("irnet", "IRNet"),
        ("custom-3", "Custom-3"),
    ],
)
def test_a_model_has_a_name_in_words(name, words):
    assert model_words(name) == words


def test_every_classical_model_has_words_of_its_own():
    assert set(MODEL_WORDS) == set(GRIDS)
    assert len(set(MODEL_WORDS.values())) == len(GRIDS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("band_gap", "Band gap"),
        ("band_gap_mbj", "Band gap (mBJ)"),
        ("pH", "pH"),
        ("formation_energy,band_gap", "Formation energy, Band gap"),
    ],
)
def test_a_property_keeps_its_capitals(name, words):
    assert property_words(name) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("best classical: random_forest", "best classical: Random forest"),
        ("irnet vs plain, 17", "IRNet vs plain, 17"),
        ("band_gap (eV), irnet-17", "Band gap (eV), IRNet-17"),
        # Parts of longer names stay: packs, hashes, recipes.
        ("oqmd-irnet-17, svr#1a2b3c, my.svr, band_gap_2", None),
        ("lab-band_gap svr.csv", None),
    ],
)
def test_whole_names_within_a_text_become_words(text, words):
    assert in_words(text, {"band_gap"}) == (words or text)
