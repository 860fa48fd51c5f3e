"""Tables as Markdown and CSV."""

import pandas as pd
import pytest

from irnet_hpc.aggregate.document import document
from irnet_hpc.aggregate.mae_table import grid, latex, markdown, tidy_csv
from tests.aggregate.results import tables_of, write_by_hand, write_classical, write_run


def test_markdown_is_aligned_rounded_by_the_sd_and_has_the_best_in_bold(tmp_path):
    write_by_hand(tmp_path)
    (table,) = tables_of(tmp_path)
    assert table.title == "oqmd-magpie, recipe onecycle, protocol honest"
    header, rule, line = markdown(table).splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        *("property", "baseline", "plain-17", "plain-48", "irnet-17", "irnet-48"),
        *("irnet vs plain, 17", "irnet vs plain, 48"),
    ]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        *("formation_energy (eV/atom)", "0.500", "0.120 ± 0.020 (n=3)", "0.120 (n=1)"),
        *("**0.090 ± 0.010 (n=3)**", "0.150 (n=1)", "+25.0 %", "-25.0 %"),
    ]
    ends = [
        [place for place, letter in enumerate(text) if letter == "|"] for text in (header, rule)
    ]
    assert ends == [[place for place, letter in enumerate(line) if letter == "|"]] * 2
    assert line.startswith("| formation_energy (eV/atom) |    0.500 |")
    assert rule.startswith("|----------------------------|---------:|")


def test_markdown_wider_than_the_terminal_continues_below_with_the_property_repeated(tmp_path):
    write_by_hand(tmp_path)
    (table,) = tables_of(tmp_path)
    wrapped = markdown(table, width=90)
    assert all(len(line) <= 90 for line in wrapped.splitlines())
    headers = [line.split("|")[1:-1] for line in wrapped.splitlines() if "property" in line]
    assert [name.strip() for header in headers for name in header[1:]] == [
        cell.text for cell in grid(table)[0][1:]
    ]


@pytest.mark.parametrize(
    ("maes", "texts"),
    [
        ([0.046312], ["0.04631 (n=1)"]),  # four digits where there is no sd
        ([512.0, 602.0], ["557 ± 64 (n=2)"]),  # sd 63.6: no place behind the point
        ([0.1, 0.1], ["0.1000 ± 0.0000 (n=2)"]),
        ([1.0, 1.0 + 1e-12], ["1.0000 ± 0.0000 (n=2)"]),  # never more than five digits
        ([2e-6], ["2.000e-06 (n=1)"]),
    ],
)
def test_digits_follow_the_sd_or_are_four(tmp_path, maes, texts):
    for seed, mae in enumerate(maes):
        write_run(tmp_path, mae, seed=seed, baseline_mae=1000.0)
    (table,) = tables_of(tmp_path)
    assert [cell.text for cell in grid(table)[1][2:]] == texts


def test_the_tidy_csv_has_full_precision_and_reads_back(tmp_path):
    write_by_hand(tmp_path)
    (tmp_path / "tidy.csv").write_text(tidy_csv(tables_of(tmp_path)))
    frame = pd.read_csv(tmp_path / "tidy.csv", float_precision="round_trip").set_index("model")
    assert list(frame.index) == ["plain-17", "plain-48", "irnet-17", "irnet-48"]
    (table,) = tables_of(tmp_path)
    assert frame.loc["irnet-17", "test_mae_mean"] == table.rows[0].scores[2].mae  # bit for bit
    assert frame.loc["irnet-17", "test_mae_sd"] == table.rows[0].scores[2].sd
    assert frame.loc["irnet-48", "improvement_over_plain"] == pytest.approx(-25.0)
    assert pd.isna(frame.loc["plain-17", "improvement_over_plain"])
    assert pd.isna(frame.loc["plain-48", "test_mae_sd"])
    assert frame.loc["plain-17", "seeds"] == "0 1 2"
    assert set(frame["unit"]) == {"eV/atom"}
    assert set(frame["n_train"]) == {80}
    assert set(frame["baseline_mae"]) == {0.5}


def test_without_classical_results_nothing_mentions_them(tmp_path):
    write_by_hand(tmp_path)
    tables = tables_of(tmp_path)
    assert "classical" not in document(tables, [], []) + tidy_csv(tables) + latex(tables[0])


def test_the_csv_has_the_best_classical_model_and_the_improvement_over_it(tmp_path):
    write_by_hand(tmp_path)
    write_classical(tmp_path)
    (tmp_path / "tidy.csv").write_text(tidy_csv(tables_of(tmp_path)))
    frame = pd.read_csv(tmp_path / "tidy.csv").set_index("model")
    assert frame.loc["irnet-17", "best_classical"] == "random_forest"
    assert frame.loc["irnet-17", "best_classical_mae"] == pytest.approx(0.12)
    assert frame.loc["irnet-17", "improvement_over_classical"] == pytest.approx(25.0)
    assert (
        frame.loc["random_forest", ["depth", "n_parameters", "best_classical"]].isna().sum() == 2
    )  # 1000 in write_run
    assert frame.loc["ridge", "test_mae_mean"] == 0.06
