"""BENCHMARKS: tables with published parts, on which models are compared row by row.

`crabnet:NAME` names a table of CrabNet's benchmark, with its parts train, val and test.
`matbench:TASK` names a task of Matbench v0.1, whose rows have five official folds. Both come from
wheels (download/wheel_tables.py). Their rows and values are packed as they are: a number is
comparable to a published one only if no row is left out and none changes its part.
"""

import builtins
from typing import NamedTuple

from irnet_hpc.data.properties import PROPERTIES
from irnet_hpc.data.sources import OQMD, Source
from irnet_hpc.errors import UserError, check_choice

CRABNET = "crabnet:"  # prefix of CrabNet's tables
MATBENCH = "matbench:"  # prefix of Matbench's tasks
N_FOLDS = 5
CRABNET_PAPER = "Wang et al., npj Comput. Mater. 7, 77 (2021)"
MATBENCH_PAPER = "Dunn et al., npj Comput. Mater. 6, 138 (2020)"
MP_PAPER = "Jain et al., APL Mater. 1, 011002 (2013)"
AFLOW_PAPER = "Curtarolo et al., Comput. Mater. Sci. 58, 218 (2012)"


class Benchmark(NamedTuple):
    """A table of a benchmark. Its property has the unit of PROPERTIES, or else `unit`."""

    property: str
    citation: str
    file: str = ""  # the name of a Matbench task's file in CrabNet's wheel, if it is another one
    unit: str = ""
    of_formula: bool = True  # False: rows are structures, and several may have one formula

    @builtins.property
    def units(self) -> dict[str, str]:
        """Return property -> unit."""
        return {self.property: self.unit or PROPERTIES[self.property].unit}


CRITEXAM = f"Bartel et al., npj Comput. Mater. 6, 97 (2020); {MP_PAPER}"
CRABNET_TABLES = {
    "OQMD_Formation_Enthalpy": Benchmark("formation_energy", OQMD),
    "OQMD_Bandgap": Benchmark("band_gap", OQMD),
    "OQMD_Volume_per_atom": Benchmark("volume_per_atom", OQMD),
    "OQMD_Energy_per_atom": Benchmark("energy_per_atom", OQMD),
    "CritExam__Ef": Benchmark("formation_energy", CRITEXAM),
    "CritExam__Ed": Benchmark("decomposition_energy", CRITEXAM, unit="eV/atom"),
    "mp_bulk_modulus": Benchmark("bulk_modulus", MP_PAPER),
    "mp_shear_modulus": Benchmark("shear_modulus", MP_PAPER),
    "mp_elastic_anisotropy": Benchmark("elastic_anisotropy", MP_PAPER, unit="1"),
    "mp_e_hull": Benchmark("energy_above_hull", MP_PAPER),
    "mp_mu_b": Benchmark("total_magnetization", MP_PAPER),
    "aflow__Egap": Benchmark("band_gap", AFLOW_PAPER),
    "aflow__energy_atom": Benchmark("energy_per_atom", AFLOW_PAPER),
    "aflow__ael_bulk_modulus_vrh": Benchmark("bulk_modulus", AFLOW_PAPER),
    "aflow__ael_shear_modulus_vrh": Benchmark("shear_modulus", AFLOW_PAPER),
    "aflow__ael_debye_temperature": Benchmark("debye_temperature", AFLOW_PAPER, unit="K"),
    "aflow__agl_thermal_conductivity_300K": Benchmark(
        "thermal_conductivity", AFLOW_PAPER, unit="W/(m K)"
    ),
    "aflow__agl_thermal_expansion_300K": Benchmark("thermal_expansion", AFLOW_PAPER, unit="1/K"),
}
# Properties and units as in matbench_v0.1_dataset_metadata.json of matbench 0.6.
MATBENCH_TASKS = {
    "steels": Benchmark("yield_strength", MATBENCH_PAPER, "steels_yield", "MPa"),
    "expt_gap": Benchmark("band_gap", MATBENCH_PAPER),
    "jdft2d": Benchmark("exfoliation_energy", MATBENCH_PAPER, "", "meV/atom", False),
    "phonons": Benchmark("last_phdos_peak", MATBENCH_PAPER, "", "1/cm", False),
    "dielectric": Benchmark("refractive_index", MATBENCH_PAPER, "", "1", False),
    "log_gvrh": Benchmark(
        "log10_shear_modulus", MATBENCH_PAPER, "elasticity_log10(G_VRH)", "log10(GPa)", False
    ),
    "log_kvrh": Benchmark(
        "log10_bulk_modulus", MATBENCH_PAPER, "elasticity_log10(K_VRH)", "log10(GPa)", False
    ),
    "perovskites": Benchmark(
        "formation_energy_per_cell", MATBENCH_PAPER, "castelli", "eV/cell", False
    ),
    "mp_gap": Benchmark("band_gap", f"{MATBENCH_PAPER}; {MP_PAPER}", of_formula=False),
    "mp_e_form": Benchmark("formation_energy", f"{MATBENCH_PAPER}; {MP_PAPER}", of_formula=False),
}
# Tasks of Matbench whose target is a class, which our networks do not predict.
CLASSIFICATIONS = ("expt_is_metal", "glass", "mp_is_metal")


def is_benchmark(identity: str) -> bool:
    """Tell by the source in a pack's identity whether the pack has published parts."""
    return identity.startswith((CRABNET, MATBENCH))


def benchmark_source(text: str) -> Source:
    """Describe a benchmark by its name, such as `crabnet:OQMD_Bandgap` or `matbench:steels`.

    Tables of OQMD may be joined by +: their formulas are the same, but their parts are not. In the
    joint table no formula trains that tests any of the properties.

    Raises:
        UserError: if there is no such table.
    """
    if text.startswith(MATBENCH):
        return _matbench_source(text)
    names = tables_of(text)
    tables = [CRABNET_TABLES[name] for name in names]
    citation = "; ".join(dict.fromkeys([*(table.citation for table in tables), CRABNET_PAPER]))
    units = {name: unit for table in tables for name, unit in table.units.items()}
    return Source(
        f"CrabNet's benchmark {' + '.join(names)}, with its published parts",
        tuple(units),
        _licence(names[0]),
        citation,
        polymorphs=True,
        is_verbatim=True,
        units=tuple(units.items()),
    )


def _matbench_source(text: str) -> Source:
    task = task_of(text)
    table = MATBENCH_TASKS[task]
    structures = "" if table.of_formula else ", composition only"
    return Source(
        f"task {task} of Matbench v0.1, with its official folds{structures}",
        tuple(table.units),
        "Matbench (MIT); the data as their authors state, see the citation",
        f"{table.citation}; read from CrabNet's wheel, {CRABNET_PAPER}",
        polymorphs=True,
        is_verbatim=True,
        has_folds=True,
        units=tuple(table.units.items()),
    )


def _licence(name: str) -> str:
    """State the licence of a table by the family of its name."""
    by_family = {
        "OQMD": "CC BY 4.0 (OQMD)",
        "mp": "CC BY 4.0 (Materials Project)",
        "CritExam": "CC BY 4.0 (Materials Project)",
        "aflow": "open to research with citation; we found no named licence, see aflow.org",
    }
    return by_family[name.split("_")[0]] + "; files of CrabNet (MIT)"


def tables_of(text: str) -> tuple[str, ...]:
    """Return the tables that `crabnet:NAME` or `crabnet:NAME+NAME` names.

    >>> tables_of("crabnet:OQMD_Bandgap+OQMD_Formation_Enthalpy")
    ('OQMD_Bandgap', 'OQMD_Formation_Enthalpy')
    """
    names = tuple(text.removeprefix(CRABNET).split("+"))
    for name in names:
        check_choice("table of CrabNet", name, CRABNET_TABLES)
    joinable = len(names) == 1 or all(name.startswith("OQMD_") for name in names)
    if not joinable or len(set(names)) < len(names):
        known = ", ".join(name for name in CRABNET_TABLES if name.startswith("OQMD_"))
        raise UserError(f"only different tables of OQMD can be joined ({known}), got {text!r}")
    return names


def task_of(text: str) -> str:
    """Return the task that `matbench:TASK` names; a leading `matbench_` may be left out."""
    task = text.removeprefix(MATBENCH).removeprefix("matbench_")
    if task in CLASSIFICATIONS:
        raise UserError(
            f"task {task} of Matbench predicts a class, which networks here do not; "
            f"tasks with a number: {', '.join(MATBENCH_TASKS)}"
        )
    return check_choice("task of Matbench", task, MATBENCH_TASKS)
