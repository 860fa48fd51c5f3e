"""Architectures against depths."""

from irnet_hpc.aggregate.sections import depths
from tests.aggregate.results import findings_of, texts, write_run


def test_architecture_times_depth_is_a_table_of_its_own_where_networks_are_many(tmp_path):
    for model in (
        "plain-10",
        "plain-17",
        "plain-48",
        "irnet-10",
        "irnet-17",
        "irnet-48",
        "brnet-17",
    ):
        write_run(tmp_path, 0.1, model)
    (block,) = depths.section(findings_of(tmp_path)).blocks
    assert texts(block)[0] == ["architecture", "10 layers", "17 layers", "48 layers"]
    assert texts(block)[-1] == ["brnet", "does not exist", "0.1000 (n=1)", "does not exist"]
