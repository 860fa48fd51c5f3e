"""Record predictions with Matbench's own package, which scores them; run in its environment.

    python -I record.py request.json answer.json

The request has the tables of tasks, and for each file its tasks, folds, predictions and metadata;
`files.py` makes it. The answer has Matbench's scores of each file, as they are read back from it.
"""

import gzip
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Its wheel has random predictions for all tasks, and their scores from the official tables.
RANDOM = "tests/mb_all_tasks_random.json"
RTOL = 1e-12  # relative; sums of numpy's releases may differ in the last bits


def main(request_path: str, answer_path: str) -> None:
    """Write the files of a request, and the scores that are read back from them."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    for task, rows in request["tables"].items():
        lay_table(task, rows)
    check_order(request["tables"])
    answer = [record(file) for file in request["files"]]
    Path(answer_path).write_text(json.dumps(answer), encoding="utf-8")


def lay_table(task: str, rows: list[list]) -> None:
    """Put the table of a task where matminer looks for it.

    Seen with matminer 0.10.1: `load_dataset` reads `$MATMINER_DATA/<task>.json.gz`, and checks its
    sha256 against its own list, which it loads into `_dataset_dict`. Our file has other bytes than
    the official one, so the list gets its hash; `check_order` checks the contents.

    Args:
        task: such as `matbench_steels`.
        rows: formula and target of each row, in the official order. Of tasks on structures, the
            formula stands in the column of structures, which recording does not read.
    """
    from matbench.metadata import mbv01_metadata
    from matminer.datasets import dataset_retrieval

    known = mbv01_metadata[task]
    table = {
        "index": list(range(len(rows))),
        "columns": [known.input_type, known.target],
        "data": rows,
    }
    body = gzip.compress(json.dumps(table).encode())
    (Path(os.environ["MATMINER_DATA"]) / f"{task}.json.gz").write_bytes(body)
    datasets = dataset_retrieval._dataset_dict or dataset_retrieval._load_dataset_dict()
    # Without an address, nothing can be downloaded in its place.
    datasets[task] |= {"hash": hashlib.sha256(body).hexdigest(), "url": None}
    dataset_retrieval._dataset_dict = datasets


def check_order(tables: Mapping[str, Any]) -> None:
    """Check that the rows of tables are the official ones, in the official order.

    Scored with our tables, Matbench's own random predictions must have the MAE that its wheel says.
    """
    import matbench
    from matbench.task import MatbenchTask

    recorded = json.loads((Path(matbench.__file__).parent / RANDOM).read_text(encoding="utf-8"))
    for name in tables:
        task = MatbenchTask(name, autoload=True)
        for fold, key in task.folds_map.items():
            known = recorded["tasks"][name]["results"][key]
            task.record(fold, [known["data"][own] for own in task.validation[key].test])
            found, official = task.results[key].scores.mae, known["scores"]["mae"]
            if abs(found - official) > RTOL * official:
                sys.exit(
                    f"the table of {name} is not the official one: random predictions of fold "
                    f"{fold} must have the MAE {official}, got {found}"
                )


def record(file: Mapping[str, Any]) -> dict[str, Any]:
    """Record the predictions of one file, write it, and return what is read back from it."""
    from matbench.bench import MatbenchBenchmark

    benchmark = MatbenchBenchmark(subset=list(file["tasks"]))
    for task in benchmark.tasks:
        task.load()
        for fold, key in task.folds_map.items():
            run = file["tasks"][task.dataset_name][str(fold)]
            rows = task.validation[key].test
            if set(rows) != run["predictions"].keys():
                sys.exit(
                    f"the test rows of {task.dataset_name}, fold {fold}, must be the "
                    f"{len(rows)} official ones, got {len(run['predictions'])} rows"
                )
            predictions = [run["predictions"][own] for own in rows]
            task.record(fold, predictions, params=run["params"])
    benchmark.add_metadata(file["metadata"])
    benchmark.to_file(file["path"])
    # Its loader checks the hash, the ids, the folds and the types of a file.
    read = MatbenchBenchmark.from_file(file["path"])
    if not read.is_valid or not read.is_recorded:
        sys.exit(f"{file['path']} is not valid: {read.validate()}")
    return {
        task.dataset_name: {
            "mae": task.scores.mae.mean,
            "sd": task.scores.mae.std,
            "folds": [task.results[key].scores.mae for key in task.folds_map.values()],
        }
        for task in read.tasks
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
