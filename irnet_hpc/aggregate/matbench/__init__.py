"""Write Matbench's official result files, by Matbench's own package in an environment of its own.

`files.write_matbench` chooses the runs and checks the files, `environment` installs the package,
and `record.py` is run there: it records our predictions and scores them.
"""
