"""Cost beside the MAE."""

from irnet_hpc.aggregate.sections import costs
from tests.aggregate.results import findings_of, write_run


def test_cost_marks_what_nothing_beats_in_both_mae_and_hours(tmp_path):
    """A network and a classical model on the same rows are compared with each other, too."""
    write_run(tmp_path, 0.10, "plain-17", device_hours=1.0, n_parameters=4_705_665)
    write_run(tmp_path, 0.09, "ridge", device_hours=3.5)  # dearer than irnet-17, and worse
    write_run(tmp_path, 0.08, "irnet-17", device_hours=2.0)
    write_run(
        tmp_path, 0.09, "irnet-48", device_hours=4.0, n_parameters=None
    )  # dearer than irnet-17, and worse
    for seed in (1, 2):
        write_run(tmp_path, 0.08, "irnet-17", device_hours=2.0 + seed, seed=seed)
    (block,) = costs.section(findings_of(tmp_path)).blocks
    lines = {line[0].text: [cell.text for cell in line] for line in block.lines}
    assert lines["plain-17"][2:5] == ["4,705,665", "1", "1"]
    assert lines["irnet-17"][3:5] == ["3", "3"]  # (2 + 3 + 4) / 3 hours a run
    assert lines["irnet-48"][2] == "not counted"
    assert [line[-1].text for line in block.lines[1:]] == ["yes", "yes", "no", "no"]
    assert not any(cell.bold for line in block.lines for cell in line)
