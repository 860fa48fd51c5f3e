"""The results in words: nothing is claimed that the report's own statistics do not support."""

import re

import numpy as np
import pytest

from irnet_hpc.aggregate.page.summary import are_alike, extent, sentences
from irnet_hpc.aggregate.sections.differences import Pair, differences_of
from irnet_hpc.runs.predictions import Predictions
from tests.aggregate.results import (
    findings_of,
    write_by_hand,
    write_classical,
    write_predictions,
    write_ranked,
    write_run,
    write_split,
)

FORMULAS = [f"Fe{number}O" for number in range(1, 500)]
TASK = "oqmd-magpie formation_energy"
DEPTH = "Depth, formation_energy"


def texts_of(results):
    findings = findings_of(results)
    return {sentence.about: sentence.text for sentence in sentences(findings)}, findings


def write(results, errors, model="irnet-17", **changes):
    write_predictions(write_run, results, errors, model, formulas=FORMULAS, **changes)


def write_two(results, irnet, forest, n_seeds=3, **changes):
    """Write a network, whose seeds differ by 0.001, and a forest, with these errors."""
    for seed in range(n_seeds):
        write(results, np.array(irnet) + 0.001 * seed, seed=seed, val_mae=0.01, **changes)
    write(results, forest, "random_forest", **changes)


def test_sentences_follow_from_the_tables(tmp_path):
    """Without predictions there is no interval: numbers are stated, and nothing is claimed."""
    write_by_hand(tmp_path)
    texts, findings = texts_of(tmp_path)
    assert extent(findings) == "8 finished runs of 4 models on 1 task, 8 device-hours in total."
    assert texts[TASK] == (
        "irnet-17, chosen by val among 4, has a test MAE of 0.090 eV/atom from 80 training rows "
        "(baseline 0.500)."
    )
    assert "the plain network has 0.120 and 0.120 with 17 and 48 layers" in texts[DEPTH]
    assert "IRNet has 0.090 and 0.150 with 17 and 48 layers, which is not tested" in texts[DEPTH]
    assert "%" not in texts[DEPTH] + texts[TASK]
    assert "2 of 4" in texts["Claims"]


def test_a_difference_that_the_interval_supports_is_claimed(tmp_path):
    """0.101 is half of the forest's 0.202, and 80 % below the baseline's 0.5."""
    write_two(tmp_path, [0.1] * 40, [0.202] * 40)
    texts, _ = texts_of(tmp_path)
    assert "80 % below the baseline" in texts[TASK]
    assert "50 % below the best classical model (random_forest" in texts[TASK]


@pytest.mark.parametrize(
    ("irnet", "forest"),
    [
        ([0.1] * 40, [0.1] * 38 + [2.0, 1.0]),  # two rows make the difference
        ([0.1, 0.3] * 20, [0.3, 0.11] * 20),  # a small difference in much noise
        ([0.1] * 30 + [2.0] + [0.1] * 9, [0.12] * 40),  # better in all rows but one
        ([0.2] * 40, [0.201] * 40),  # less than the seeds differ
    ],
)
def test_a_difference_within_the_interval_is_not_claimed(tmp_path, irnet, forest):
    write_two(tmp_path, irnet, forest)
    texts, findings = texts_of(tmp_path)
    ((_, differences),) = differences_of(findings.tables, Predictions())
    assert not differences[0].excludes_zero
    assert "cannot be distinguished from the best classical model" in texts[TASK]
    assert "below the best classical" not in texts[TASK]
    shown = re.search(r"95 % interval (\S+) to (\S+)\)", texts[TASK]).groups()
    known = differences[0].interval
    assert list(map(float, shown)) == pytest.approx(known, abs=0.1 * (known[1] - known[0]))


def test_below_three_runs_no_model_is_called_better(tmp_path):
    write_two(tmp_path, [0.1] * 40, [0.3] * 40, n_seeds=2)
    texts, _ = texts_of(tmp_path)
    assert "0.3" in texts[TASK] and "%" not in texts[TASK]


def test_a_percentage_over_classical_needs_predictions(tmp_path):
    """Three seeds at 0.05 to 0.07 and a forest at 0.12, as results without predictions."""
    write_classical(tmp_path)
    for seed in range(3):
        write_run(tmp_path, 0.05 + 0.01 * seed, seed=seed)
    texts, _ = texts_of(tmp_path)
    assert "random_forest, 0.12" in texts[TASK] and "%" not in texts[TASK]


def test_an_mae_whose_interval_contains_the_baselines_is_not_below_it(tmp_path):
    """The mean of 39 errors of 0.1 and one of 14 is 0.45, with an interval far beyond 0.5."""
    for seed in range(3):
        write(tmp_path, [0.1] * 39 + [14.1], seed=seed)
    texts, _ = texts_of(tmp_path)
    assert "not distinguishable from the baseline's 0.5" in texts[TASK]
    assert "1 of 40 test rows (Fe40O) makes 78 % of it; without it it is 0.1" in texts[TASK]


def test_a_model_above_the_baseline_is_said_to_be(tmp_path):
    for seed in range(3):
        write(tmp_path, [0.75] * 40, seed=seed)
    assert "50 % above the baseline" in texts_of(tmp_path)[0][TASK]


def test_a_failed_run_is_named_before_anything_is_claimed_of_it(tmp_path):
    for seed in range(3):
        write(tmp_path, [5e4] * 40, seed=seed)
    text = texts_of(tmp_path)[0][TASK]
    assert "3 of 3 runs failed" in text and "1e+05 times the baseline's" in text


def test_a_model_of_fewer_splits_is_neither_chosen_nor_preferred(tmp_path):
    """SRNet has seen only the easy split, where IRNet has 0.1, too; 0.2 is IRNet's mean."""
    for split, mae in enumerate((0.1, 0.3)):
        write_split(tmp_path, mae, split)
    write_split(tmp_path, 0.11, 0, "srnet-17")
    text = texts_of(tmp_path)[0][TASK]
    assert text.startswith("irnet-17 has a test MAE of 0.20 eV/atom")
    assert "srnet" not in text


@pytest.mark.parametrize(
    ("irnet", "differs"), [([0.1] * 40, True), ([0.1, 0.3] * 19 + [0.1, 0.3], False)]
)
def test_what_test_prefers_is_said_to_differ_only_if_the_interval_says_so(tmp_path, irnet, differs):
    """The forest (0.205) has the lower MAE on val; on test IRNet has 0.101 or 0.201."""
    for seed in range(3):
        write(tmp_path, np.array(irnet) + 0.001 * seed, seed=seed, val_mae=0.9)
    write(tmp_path, [0.3, 0.11] * 20, "random_forest", val_mae=0.1)
    text = texts_of(tmp_path)[0][TASK]
    assert text.startswith("random_forest, chosen by val") and "is that of irnet-17" in text
    assert ("on test the two differ" in text) is differs
    assert ("on test the two cannot be told apart" in text) is not differs


def test_the_model_that_test_prefers_is_named_but_not_chosen(tmp_path):
    write_run(tmp_path, 0.456, "plain-17", val_mae=0.1)
    write_run(tmp_path, 0.425, "irnet-17", val_mae=0.2)
    text = texts_of(tmp_path)[0][TASK]
    assert text.startswith("plain-17, chosen by val") and "0.4250, is that of irnet-17" in text


@pytest.mark.parametrize(
    ("deep", "claimed"), [(0.3, "+200 %"), (0.05, "-50 %"), (0.1, None), (0.1005, None)]
)
def test_a_change_with_depth_is_claimed_only_beyond_its_interval(tmp_path, deep, claimed):
    for seed in range(3):
        for model, error in (("irnet-17", 0.1), ("irnet-48", deep), ("plain-17", 0.1)):
            # The mean over seeds stays; seeds differ by 0.01.
            write(tmp_path, [error + 0.01 * (seed - 1)] * 40, model, seed=seed)
        write(tmp_path, [0.2] * 40, "plain-48", seed=seed)
    text = texts_of(tmp_path)[0][DEPTH]
    assert "(+100 %)" in text  # plain
    assert (claimed in text) if claimed else ("IRNet has 0.10" in text)
    assert ("cannot be told apart" in text) == (claimed is None)


@pytest.mark.parametrize(
    ("n_tasks", "words"), [(3, "at least 8 tasks are needed"), (9, "critical difference")]
)
def test_ranks_are_claimed_from_eight_tasks_on(tmp_path, n_tasks, words):
    write_ranked(tmp_path, n_tasks)
    text = texts_of(tmp_path)[0]["Ranks"]
    assert words in text and "irnet-17, onecycle has the lowest mean rank" in text


def test_ranks_that_friedmans_test_does_not_tell_apart_are_not_claimed(tmp_path):
    """Each of two models wins four of eight tasks: Friedman's chi2 is 0."""
    for task in range(8):
        for number, model in enumerate(("plain-17", "irnet-17")):
            write_run(tmp_path, 0.1 + 0.1 * ((task + number) % 2), model, property=f"p{task}")
    text = texts_of(tmp_path)[0]["Ranks"]
    assert "no ranks differ" in text
    # Each has rank 1 four times and rank 2 four times.
    assert "irnet-17, onecycle and plain-17, onecycle share the lowest mean rank (1.50)" in text


def test_the_rows_that_decide_a_difference_are_named(tmp_path):
    """Each of two rows makes 0.5 of 1.1 over 200 rows; without them the difference is 0.1."""
    write_two(tmp_path, [1.0] * 200, [101.001] * 2 + [1.101] * 198)
    text = texts_of(tmp_path)[0][TASK]
    assert "2 of 200 test rows (Fe1O, Fe2O) make 91 % of it; without them it is -0.1" in text


def test_nothing_is_claimed_that_the_table_of_all_models_cannot_tell_apart(tmp_path):
    """Against the forest alone p is 0.02; with five classical models, Holm's makes it 0.08."""
    irnet = np.linspace(0.2, 0.4, 40)
    forest = irnet + 0.04 + 0.1 * np.tile([1.0, -1.0], 20)
    write_two(tmp_path, irnet, forest)
    texts, findings = texts_of(tmp_path)
    assert "and 11 % below the best classical model" in texts[TASK]
    for model in ("ridge", "svr", "bagging", "extra_trees"):
        write(tmp_path, forest + 0.001, model, val_mae=0.9)
    texts, findings = texts_of(tmp_path)
    assert "cannot be distinguished from the best classical model" in texts[TASK]
    network = next(table for table in findings.tables if table.recipe != "grid")
    # Its own table has these two models alone, and says the same as the table of all six.
    assert network.rows[0].best_classical.best
    of_all = {str(line.model): line.p_against_best for line in findings.all_models[0].lines}
    assert network.rows[0].best_classical.p_against_best == of_all["random_forest"]
    assert all(line.best for line in findings.all_models[0].lines)


def test_two_models_that_are_best_of_different_tables_can_still_differ(tmp_path):
    """Each is the only one of its own table, and the table of both tells them apart."""
    write_two(tmp_path, [0.1] * 40, [0.202] * 40)
    findings = findings_of(tmp_path)
    lines = {str(line.model): line for line in findings.all_models[0].lines}
    network, forest = lines["irnet-17"], lines["random_forest"]
    assert network.score.best and forest.score.best  # each in its own table
    assert not are_alike(Pair(network.model, network.score, "", forest.score), findings)
