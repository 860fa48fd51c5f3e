"""Representations of one dataset side by side."""

from irnet_hpc.aggregate.sections import representations
from tests.aggregate.results import described, findings_of, texts, write_run, write_split


def test_representations_stand_side_by_side_where_all_else_is_alike(tmp_path):
    write_run(tmp_path, 0.06, **described("magpie"))
    write_run(tmp_path, 0.05, **described("elements"))
    write_run(tmp_path, 0.09, "plain-17", **described("magpie"))
    section = representations.section(findings_of(tmp_path))
    (block,) = section.blocks
    assert texts(block) == [
        ["model", "recipe", "training rows", "test rows", "elements", "magpie"],
        ["irnet-17", "onecycle", "80", "10", "0.05000 (n=1)", "0.06000 (n=1)"],
    ]
    assert [cell.bold for cell in block.lines[1]][4:] == [True, False]
    assert {line["features"] for line in section.records} == {"elements", "magpie"}


def test_representations_of_different_splits_do_not_stand_side_by_side(tmp_path):
    """Elements has only the easy split; magpie's mean of 0.1 and 0.3 is no worse for that."""
    for name, maes in (("magpie", (0.1, 0.3)), ("elements", (0.11,))):
        for split, mae in enumerate(maes):
            write_split(tmp_path, mae, split, **described(name))
    findings = findings_of(tmp_path)
    assert len(findings.tasks) == 1 and not representations.section(findings).blocks
    write_split(tmp_path, 0.31, 1, **described("elements"))
    (block,) = representations.section(findings_of(tmp_path)).blocks
    assert [cell.bold for cell in block.lines[1]][4:] == [False, True]  # 0.21 and 0.2
