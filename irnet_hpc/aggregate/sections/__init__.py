"""The sections of the report. Each answers one question: `section(findings)` makes a Section.

To add a section, write a module here and add a row to SECTIONS. SECTION_PARTS of
aggregate/page/page.py decides where the page shows it.
"""

from irnet_hpc.aggregate.sections import (
    costs,
    depths,
    differences,
    ensembles,
    folds,
    importance,
    leaderboard,
    mae_intervals,
    optimism,
    ranks,
    representations,
    size_and_chemistry,
    tasks,
)

# The functions that make a Section from the findings, in the order of the report.
SECTIONS = (
    depths.section,
    tasks.section,
    folds.section,
    leaderboard.section,
    mae_intervals.section,
    ensembles.section,
    differences.section,
    size_and_chemistry.size_section,
    size_and_chemistry.chemistry_section,
    representations.section,
    optimism.section,
    importance.section,
    costs.section,
    ranks.section,
)
