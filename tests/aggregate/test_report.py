"""The report as a whole: sections, notes, a matrix, and its Python interface."""

import zipfile

import pytest

from irnet_hpc.aggregate.mae_table import HOW_TO_READ
from irnet_hpc.aggregate.notes import Note
from irnet_hpc.aggregate.report import make_tables
from irnet_hpc.files import write_json
from irnet_hpc.runs.spec import RunSpec, run_folder
from irnet_hpc.runs.state_names import GapState
from tests.aggregate.results import (
    aggregate,
    write_both,
    write_by_hand,
    write_run,
    write_sizes,
    write_three,
)


def test_with_a_matrix_every_cell_without_a_result_says_why(tmp_path):
    results = tmp_path / "results"
    write_run(results, 0.1, "irnet-17")
    failed, by_hand = write_run(results, 0.1, "plain-17"), write_run(results, 0.1, "plain-48")
    for folder in (failed, by_hand):
        (folder / "result.json").unlink()
    write_json(failed / "error.json", {"error": "out of memory"})
    stale = write_run(results, 0.1, "irnet-24", key="f" * 64)
    matrix = tmp_path / "m.yaml"
    matrix.write_text(
        "packs: [oqmd-magpie]\nproperties: [formation_energy]\n"
        "models: [{architectures: [plain, irnet], depths: [17, 48]}, irnet-24]\n"
    )
    report = make_tables(results, matrix=matrix)
    gaps = report.findings.gaps
    assert report.notes[0] == Note(f"{matrix}: 1 of 5 cells are done")
    absent = run_folder(results, RunSpec("oqmd-magpie", "formation_energy", "irnet", 48))
    assert {folder: gap.state for folder, gap in gaps.items()} == {
        failed: GapState.FAILED,
        by_hand: GapState.UNFINISHED,
        absent: GapState.NOT_RUN,
        stale: GapState.STALE,
    }
    assert gaps[failed].why == "out of memory"
    text = report.markdown()
    assert f"not run (1):\n\n- {absent}\n" in text
    assert f"{matrix}: 1 of 5 cells are done.\n" in text


def test_all_sections_are_in_the_document_in_order_and_notes_come_last(tmp_path):
    write_sizes(tmp_path)
    report = make_tables(tmp_path)
    text, headings = report.markdown(), [section.heading for section in report.sections]
    places = [text.index(f"## {heading}\n") for heading in [*headings, "Notes"]]
    assert "MAE against training rows" in headings
    assert places == sorted(places) and places[0] > text.index(HOW_TO_READ)
    # The predictions that differences need, and those of ridge and its rivals: ridge needs one run.
    assert len(report.findings.problems) == 8


def test_one_table_alone_needs_no_section(tmp_path):
    write_run(tmp_path, 0.1)
    assert make_tables(tmp_path).sections == ()


def test_the_text_says_that_the_two_protocols_train_on_different_rows(tmp_path):
    write_both(tmp_path)
    text = make_tables(tmp_path).markdown()
    assert "## Optimism of selecting on test" in text
    assert "trained without the rows of val" in text


def test_the_report_is_a_frame_and_writes_what_the_command_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_by_hand(tmp_path / "results")
    report = make_tables("results", diagnose=True)
    assert len(repr(report)) < 80  # a notebook shows it
    frame = report.frame().set_index("model")
    assert frame.loc["irnet-17", ["test_mae_mean", "test_mae_sd", "n_runs"]].tolist() == [
        *(pytest.approx(0.09), pytest.approx(0.01), 3)
    ]
    assert set(frame["unit"]) == {"eV/atom"}
    files = report.write("python")
    assert (
        aggregate("results", "--tables", "command", "--html", "c.html", cwd=tmp_path).returncode
        == 0
    )
    assert sorted(path.name for path in files) == sorted(
        path.name for path in (tmp_path / "command").iterdir()
    )
    assert all(
        path.read_bytes() == (tmp_path / "command" / path.name).read_bytes() for path in files
    )
    page = report.write_page("p.html")
    assert page.read_bytes() == (tmp_path / "c.html").read_bytes()


def test_each_file_of_predictions_is_opened_once(tmp_path, monkeypatch):
    """Six runs in ensembles, intervals, differences and a diagnosis: six openings."""
    write_three(tmp_path)
    opened = []

    class Counted(zipfile.ZipFile):
        def __init__(self, path, *arguments, **options):
            opened.append(str(path))
            super().__init__(path, *arguments, **options)

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    report = make_tables(tmp_path, diagnose=True)
    assert {section.name for section in report.sections} >= {
        "intervals",
        "ensembles",
        "differences",
    }
    assert report.findings.diagnoses
    assert len(opened) == len(set(opened)) == 9
