"""Histories of runs, averaged over the runs of a model."""

import numpy as np
import pytest

from irnet_hpc.aggregate.curves import convergence_of
from irnet_hpc.aggregate.figures import convergence_figure
from irnet_hpc.aggregate.notes import problem_notes
from tests.aggregate.results import tables_of, write_history, write_run


def test_convergence_is_the_mean_over_runs_at_the_epochs_that_all_have(tmp_path):
    write_history(write_run(tmp_path, 0.1, seed=0), [0.4, 0.2, 0.1])
    write_history(write_run(tmp_path, 0.1, seed=1), [0.6, 0.4])
    write_history(write_run(tmp_path, 0.1, "plain-17"), [0.9, "inf", 0.5])
    write_history(write_run(tmp_path, 0.1, "plain-48"), [0.8])
    write_run(tmp_path, 0.1, "srnet-17")  # has no history
    (training,), problems = convergence_of(tables_of(tmp_path))
    (depth, (plain, irnet)), (other, _) = training.panels
    assert (depth, other, problems) == (17, 48, {})
    assert (plain.architecture, plain.epochs) == ("plain", (1, 2, 3))
    assert plain.maes == (0.9, np.inf, 0.5)
    assert (irnet.epochs, irnet.maes, irnet.n) == ((1, 2), pytest.approx((0.5, 0.3)), 2)
    panels = [panel for panel in convergence_figure(training).axes if panel.get_visible()]
    assert [panel.get_title(loc="left") for panel in panels] == ["depth 17", "depth 48"]
    assert panels[0].get_yscale() == "log"
    assert {line.get_label(): line.get_ydata().tolist() for line in panels[0].lines} == {
        "plain": pytest.approx([0.9, np.nan, 0.5], nan_ok=True),  # a gap, not a line across it
        "IRNet": pytest.approx([0.5, 0.3]),
    }
    assert panels[0].get_ylabel().startswith("MAE on val of")
    # history.csv counts epochs from 0, people from 1; and no epoch is half of one
    assert [line.get_xdata().tolist() for line in panels[0].lines] == [[2, 3, 4], [2, 3]]
    assert [line.get_marker() for line in panels[0].lines] == [".", ""]  # 0.9 and 0.5 are points
    assert "1 epoch" in panels[0].get_title(loc="right")
    assert panels[1].get_title(loc="right") == "n=1"
    assert all(tick == int(tick) for tick in panels[0].get_xticks())


@pytest.mark.parametrize("maes", [["inf", "nan"], ["inf"]])
def test_a_history_without_a_finite_mae_has_no_curve(tmp_path, maes):
    write_history(write_run(tmp_path, 0.1), maes)
    assert convergence_of(tables_of(tmp_path)) == ((), {})


@pytest.mark.parametrize(
    "content",
    [b"epoch,step\n1,2\n", b"epoch,val_mae\nx,y\n", b"\xff\xfe\x00", b"epoch,val_mae\n1\n"],
)
def test_a_history_that_cannot_be_read_is_a_note(tmp_path, content):
    folder = write_run(tmp_path, 0.1)
    (folder / "history.csv").write_bytes(content)
    curves, problems = convergence_of(tables_of(tmp_path))
    assert curves == ()
    (note,) = problem_notes(problems)
    assert str(folder) in note.lines[0]
