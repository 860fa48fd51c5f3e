"""The sections of the report, one question each: `section(findings)` makes a Section.

To add one: a module here, and a row in SECTIONS. On the page it stands where SECTION_PARTS of
aggregate/page/page.py puts it.
"""

from irnet_hpc.aggregate.sections import (
    costs,
    depths,
    differences,
    ensembles,
    mae_intervals,
    optimism,
    ranks,
    representations,
    size_and_chemistry,
    tasks,
)

# In the order of the report. Each makes a Section from the findings.
SECTIONS = (
    depths.section,
    tasks.section,
    mae_intervals.section,
    ensembles.section,
    differences.section,
    size_and_chemistry.size_section,
    size_and_chemistry.chemistry_section,
    representations.section,
    optimism.section,
    costs.section,
    ranks.section,
)
