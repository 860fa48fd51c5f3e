"""Whether this environment can run a matrix: checks grouped by what they are about, each with a verdict and what to do."""
