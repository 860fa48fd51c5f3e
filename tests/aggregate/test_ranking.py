"""Ranks over tasks and critical differences."""

import numpy as np
import pytest
from scipy import stats

from irnet_hpc.aggregate.figures import rank_figure
from irnet_hpc.aggregate.ranking import Ranking, rank_models
from irnet_hpc.aggregate.sections import ranks
from irnet_hpc.aggregate.task_results import tasks_of
from tests.aggregate.results import findings_of, tables_of, write_ranked, write_split


@pytest.mark.parametrize(("n_tasks", "claimed"), [(7, False), (8, True)])
def test_a_critical_difference_of_mean_ranks_is_claimed_from_eight_tasks_on(
    tmp_path, n_tasks, claimed
):
    """Ranks of irnet: 2 once, else 1; of srnet 3, else 2; of plain 1, else 3."""
    write_ranked(tmp_path, n_tasks)
    ranking = rank_models(tasks_of(tables_of(tmp_path)))
    assert [model.partition(",")[0] for model in ranking.models] == [
        "irnet-17",
        "srnet-17",
        "plain-17",
    ]
    n = n_tasks
    assert ranking.ranks == pytest.approx(
        ((2 + n - 1) / n, (3 + 2 * (n - 1)) / n, (1 + 3 * (n - 1)) / n)
    )
    assert (ranking.wins, ranking.left_out) == ((n - 1, 0, 1), (("irnet-48, onecycle", 1),))
    assert (ranking.critical_difference is not None) is claimed
    if claimed:
        by_hand = np.array([[1, 3, 2]] + [[3, 2, 1]] * (n - 1))
        assert ranking.chi2 == pytest.approx(stats.friedmanchisquare(*by_hand.T).statistic)
        by_hand = 2.343 * (3 * 4 / (6 * 8)) ** 0.5  # 1.17
        assert ranking.critical_difference == pytest.approx(by_hand, abs=2e-3)
        # 1.125, 2.125 and 2.75: neighbours cannot be told apart, the ends can.
        assert ranking.cliques == ((0, 1), (1, 2))
        figure = rank_figure(ranking)
        assert {"critical difference 1.17"} <= {text.get_text() for text in figure.axes[0].texts}
    (block,) = ranks.section(findings_of(tmp_path)).blocks
    assert ("too few" in block.title) is not claimed


def test_a_model_of_fewer_splits_has_no_rank_among_those_of_all(tmp_path):
    """SRNet's 0.11 on the easy split is below IRNet's mean of 0.2, but above IRNet's 0.1 there."""
    for name in ("p0", "p1"):
        for split, mae in enumerate((0.1, 0.3)):
            write_split(tmp_path, mae, split, property=name)
            write_split(tmp_path, mae + 0.05, split, "plain-17", property=name)
        write_split(tmp_path, 0.11, 0, "srnet-17", property=name)
    ranking = findings_of(tmp_path).ranking
    assert [model.partition(",")[0] for model in ranking.models] == ["irnet-17", "plain-17"]
    assert (ranking.ranks, ranking.wins) == ((1.0, 2.0), (2, 0))


def test_ranks_within_the_critical_difference_are_joined_in_the_longest_bars():
    models, ranks = ("a", "b", "c", "d"), (1.0, 1.5, 1.9, 3.9)
    ranking = Ranking(models, ranks, (0,) * 4, ("t",) * 9, (), 9, 20.0, 0.001, 1.0)
    assert ranking.cliques == ((0, 2),)
    assert [ranking.is_as_good_as_best(rank) for rank in ranks] == [True, True, True, False]


def test_no_ranks_differ_where_friedmans_test_finds_nothing():
    """Nemenyi's test comes after Friedman's: with p = 0.5 it is not asked."""
    models, ranks = ("a", "b", "c", "d"), (1.0, 1.5, 1.9, 3.9)
    ranking = Ranking(models, ranks, (0,) * 4, ("t",) * 9, (), 9, 1.0, 0.5, 1.0)
    assert ranking.cliques == ((0, 3),)
    assert all(map(ranking.is_as_good_as_best, ranks))
