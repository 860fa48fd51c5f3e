"""The one screen that `aggregate` prints: what it has, and that it fits into the terminal."""

import json

import pytest

from irnet_hpc.aggregate.report import make_tables
from irnet_hpc.aggregate.screen import MAX_LINES, MIN_WIDTH, screen, written_lines
from irnet_hpc.files import write_json
from irnet_hpc.models.architectures import custom_name, parse_layers
from tests.aggregate.results import (
    PAPER,
    aggregate,
    write_by_hand,
    write_classical,
    write_everything,
    write_irnet_and_forest,
    write_joint,
    write_ranked,
    write_run,
)


def write_one_failure(results):
    failed = write_run(results, 0.1, "irnet-24")
    (failed / "result.json").unlink()
    write_json(failed / "error.json", {"error": "out of memory"})
    return failed


def test_the_models_of_one_pack_are_sorted_by_mae_and_the_best_are_marked(tmp_path):
    write_irnet_and_forest(tmp_path)
    write_run(tmp_path, 0.35, "ridge", n_test=4)
    lines = screen(make_tables(tmp_path), 100).splitlines()
    models = [line for line in lines if line.startswith(("IRNet", "Random", "Ridge", "Training"))]
    assert [line.split("  ")[0] for line in models[:4]] == [
        *("IRNet-17", "Random forest", "Ridge regression", "Training median")
    ]
    assert [" *" in line for line in models[:4]] == [True, True, False, False]


def test_a_failed_cell_is_counted_with_its_reason(tmp_path):
    write_by_hand(tmp_path)
    failed = write_one_failure(tmp_path)
    text = " ".join(screen(make_tables(tmp_path), 400).split())
    assert "without a result: 1 failed" in text and f"{failed}: out of memory" in text


def test_several_packs_show_the_best_model_of_each_task(tmp_path):
    write_by_hand(tmp_path)
    write_run(tmp_path, 0.2, pack="jarvis-magpie", identity={"source": "jarvis"})
    write_run(tmp_path, 0.1, "ridge", pack="jarvis-magpie", identity={"source": "jarvis"})
    shown = screen(make_tables(tmp_path), 100)
    assert "IRNet-17" in shown and "Ridge regression" in shown
    assert "Plain-17" not in shown.split("\n\n")[0]


def test_results_of_protocol_paper_alone_have_a_screen(tmp_path):
    write_run(tmp_path, 0.1, **PAPER)
    write_run(tmp_path, 0.1, pack="jarvis-magpie", **PAPER)
    assert "selected on test" in screen(make_tables(tmp_path), 100)


@pytest.mark.parametrize("write", [write_everything, write_classical, lambda r: write_ranked(r, 9)])
@pytest.mark.parametrize("width", [MIN_WIDTH, 77, 200])
def test_no_line_is_wider_than_the_terminal_and_all_fit_on_a_screen(tmp_path, write, width):
    write(tmp_path)
    lines = screen(make_tables(tmp_path), width).splitlines()
    assert max(len(line) for line in lines if "/" not in line) <= width  # paths stay whole
    assert len(lines) <= 24 + 40 * 24 // width
    assert all(line.isprintable() for line in lines)


def test_more_models_than_a_screen_has_lines_are_counted(tmp_path):
    for width in range(2, 32):
        layers = f"{width}A-1"
        name, depth = custom_name(layers), parse_layers(layers).depth
        write_run(tmp_path, width / 100, architecture=name, depth=depth, layers=layers)
    lines = screen(make_tables(tmp_path), 100).splitlines()
    assert f"and {30 - MAX_LINES} more, in mae.md" in lines
    assert any(line.startswith("Training") for line in lines)  # the baseline is always shown


def test_the_screen_has_no_markdown_and_all_prints_everything(tmp_path):
    write_irnet_and_forest(tmp_path / "results", n_seeds=2)
    done = aggregate(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not {"\\", "|", "**"} & set(done.stdout) and "##" not in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) <= 30 and lines[-1].startswith("next: ")
    everything = aggregate("--all", cwd=tmp_path)
    assert everything.stdout.count("\n") > 2 * len(lines)
    assert "## Differences" in everything.stdout


def test_json_has_the_best_of_each_task(tmp_path):
    write_by_hand(tmp_path / "results")
    done = aggregate("--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (best,) = json.loads(done.stdout)["best"]
    assert (best["model"], best["n_runs"], best["unit"]) == ("irnet-17", 3, "eV/atom")
    assert best["test_mae_mean"] == pytest.approx(0.09)


def test_models_that_differ_in_their_start_alone_can_be_told_apart(tmp_path):
    write_joint(tmp_path, 0.1, 0.2)
    write_run(tmp_path, 0.12)
    write_run(tmp_path, 0.3, property="band_gap", unit="eV", n_test=6)
    write_run(tmp_path, 4.0, "irnet-48")  # far above the baseline
    lines = screen(make_tables(tmp_path), 60).splitlines()
    forms = [line for line in lines if line.startswith("IRNet-17")][:2]
    assert ["one net" in line for line in forms] == [True, False]
    assert any(line.startswith("IRNet-48") and "far abo" in line for line in lines)


def test_written_files_are_listed_and_figures_are_counted(tmp_path):
    files = [tmp_path / name for name in ("mae.md", "mae.csv", "a.png", "a.pdf", "b.png")]
    text = " ".join(" ".join(written_lines(files, 60)).split())
    assert "mae.md, mae.csv, 2 figures" in text and str(tmp_path) in text
