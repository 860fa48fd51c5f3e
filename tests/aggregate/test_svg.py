"""Figures within the page."""

import re

from irnet_hpc.aggregate.figures import figure_of
from irnet_hpc.aggregate.page.svg import inline_svg
from irnet_hpc.aggregate.panels import draw_depths
from irnet_hpc.aggregate.tables import tabulate
from irnet_hpc.runs.collect import collect_runs
from tests.aggregate.results import EVIL, write_run


def test_a_chart_keeps_the_digits_of_its_numbers_and_takes_the_pages_colours(tmp_path):
    for model, mae in (("irnet-17", 0.17912), ("irnet-48", 0.18131)):
        write_run(tmp_path, mae, model)
    (table,) = tabulate(collect_runs(tmp_path)[0])
    svg = inline_svg(figure_of([lambda panel: draw_depths(panel, table, table.rows[0])]), "x", EVIL)
    assert re.search(r">0\.1\d{3}<", svg)  # a tick such as 0.1795, not 0.17
    assert "var(--blue)" in svg and "#0072b2" not in svg
    assert not re.search(r"<script|<style|<metadata|<!--|<\?xml|rgb\(", svg)
    assert all(reference.startswith("x-") for reference in re.findall(r"#([\w-]+)[)\"]", svg))
    assert "<script" not in svg and "&lt;script" in svg
