"""Start the consortium's reference server, optimade 1.5.0, in a process of its own on loopback.

    python -m tests.data.download.optimade_server [structures.json]

The file has a list of documents with the names of OPTIMADE; without one, the server has its own 17
structures. It keeps them in memory (mongomock 4.3.0) and prints `port N`.
"""

import json
import socket
import sys
import tempfile
from pathlib import Path

# The provider's own fields that the documents may have, as /info/structures describes them.
FIELDS = [
    {"name": "gap", "type": "float", "unit": "meV", "description": "band gap, by PBE"},
    {"name": "delta_e", "type": "float", "unit": "eV/atom", "description": "formation energy"},
    {"name": "hardness", "type": "float", "description": "hardness, whose unit is not stated"},
    {"name": "label", "type": "string", "description": "a text"},
    {"name": "stability", "type": "dictionary", "description": "energies of several functionals"},
    {"name": "this_provider_field", "type": "string", "description": "of the server's own data"},
]
# Names of the server's own data -> names of OPTIMADE.
NAMES = {
    "task_id": "id",
    "pretty_formula": "chemical_formula_reduced",
    "formula_anonymous": "chemical_formula_anonymous",
}


def main(documents: Path | None = None) -> None:
    """Serve until the process is killed."""
    import uvicorn
    from optimade.server.config import ServerConfig
    from optimade.server.create_app import create_app
    from optimade.server.data import structures

    if documents:
        structures = json.loads(documents.read_text())
    structures = [
        {NAMES.get(key, key).removeprefix("_exmpl_"): one[key] for key in one} for one in structures
    ]
    config = ServerConfig(
        # Otherwise it asks providers.optimade.org for links.
        insert_test_data=False,
        provider_fields={"structures": FIELDS},
        page_limit_max=50,
        log_dir=Path(tempfile.mkdtemp()),
    )
    app = create_app(config)
    app.state.entry_collections["structures"].insert(structures)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print("port", listener.getsockname()[1], flush=True)  # after lines of its own log
        uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
