"""The results in words."""

from irnet_hpc.aggregate.page.summary import extent, sentences
from tests.aggregate.results import findings_of, write_by_hand


def test_sentences_follow_from_the_tables(tmp_path):
    """Plain stays at 0.12, IRNet goes from 0.09 to 0.15; 0.09 is 82 % below 0.5."""
    write_by_hand(tmp_path)
    findings = findings_of(tmp_path)
    texts_about = {sentence.about: sentence.text for sentence in sentences(findings)}
    assert extent(findings) == "8 finished runs of 4 models on 1 task, 8 device-hours together."
    assert texts_about["oqmd-magpie formation_energy"] == (
        "irnet-17, the best of 4 by val, has a test MAE of 0.090 eV/atom from 80 training rows, "
        "82 % below the baseline."
    )
    depth = texts_about["Depth, formation_energy"]
    assert "the plain network goes from 0.120 to 0.120 (+0 %) between 17 and 48 layers" in depth
    assert "IRNet goes from 0.090 to 0.150 (+67 %)" in depth
    assert "2 of 4" in texts_about["Claims"]
