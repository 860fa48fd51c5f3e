"""Structures for the reference server, and a relay in front of it that can have faults."""

import urllib.error
import urllib.request

from tests.data.http_server import Answer

A = 5.6  # Å, the edge of every cubic cell here
SITES = [
    *([0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]),
    *([0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [0.5, 0.5, 0.5]),
]
METALS = ("Ag", "Cs", "K", "Li", "Na", "Rb")


def rock_salt(id_: str, metal: str, halogen: str, **other) -> dict:
    """Return the document of a rock salt, such as NaCl, or one that is like it but for `other`."""
    elements = sorted([metal, halogen])
    formula = "".join(elements)
    return {
        "id": id_,
        "last_modified": "2024-01-01T00:00:00Z",
        "elements": elements,
        "nelements": 2,
        "elements_ratios": [0.5, 0.5],
        "chemical_formula_reduced": formula,
        "chemical_formula_descriptive": formula,
        "chemical_formula_anonymous": "AB",
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": [[A, 0, 0], [0, A, 0], [0, 0, A]],
        "cartesian_site_positions": [[x * A for x in site] for site in SITES],
        "nsites": 8,
        "species": [pure(metal), pure(halogen)],
        "species_at_sites": [metal] * 4 + [halogen] * 4,
        "structure_features": [],
        **other,
    }


def pure(symbol: str) -> dict:
    return {"name": symbol, "chemical_symbols": [symbol], "concentration": [1.0]}


def documents() -> list[dict]:
    """Return 18 crystals with distinct formulas, and one of each kind that cannot be used."""
    pairs = [(metal, halogen) for halogen in ("Br", "Cl", "I") for metal in METALS]
    found = [
        rock_salt(
            f"t-{n}",
            *pair,
            gap=5000 + n,
            delta_e=-2 - n / 100,
            hardness=n / 10,
            stability={"pbe": {"hull": n / 1000}},
            label="a text",
        )
        for n, pair in enumerate(pairs)
    ]
    holes = pure("K") | {"chemical_symbols": ["K", "vacancy"], "concentration": [0.9, 0.1]}
    group = pure("Na") | {"attached": ["H"], "nattached": [3]}
    odd = {
        "holes": {"species": [holes, pure("F")], "structure_features": ["disorder"]},
        "group": {"species": [group, pure("F")], "structure_features": ["site_attachments"]},
        "layer": {"dimension_types": [1, 1, 0], "nperiodic_dimensions": 2},
        "nowhere": {"cartesian_site_positions": None},
    }
    metals = {"holes": "K", "group": "Na", "layer": "Rb", "nowhere": "Li"}
    return found + [rock_salt(id_, metals[id_], "F", gap=9000, **odd[id_]) for id_ in odd]


class Relay:
    """Pass requests on to the reference server. Its answers name the host that was asked.

    A page has 7 entries, if none are asked for: optimade 1.5.0 gives 20, whatever the `page_limit`
    of its configuration says.
    """

    def __init__(self, port: int):
        self.port = port

    def __call__(self, path: str, headers: dict[str, str]) -> Answer:
        if path.startswith("/v1/structures") and "page_limit=" not in path:
            path += f"{'&' if '?' in path else '?'}page_limit=7"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        request.add_header("Host", headers["Host"])
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                request, timeout=600
            ) as response:
                return Answer(response.read())
        except urllib.error.HTTPError as error:
            return Answer(error.read(), error.code)
