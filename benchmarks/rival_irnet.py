"""Cross-validate irnet_hpc.fit, which chooses its model within the training part of each fold.

python benchmarks/rival_irnet.py gaps.csv                        # the default models
python benchmarks/rival_irnet.py gaps.csv models=extra_trees     # with an argument of fit

benchmarks/rivals.py runs it beside rival_matminer.py, with the same table and folds.
"""

import sys

import pandas as pd
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import KFold

import irnet_hpc

table, options = pd.read_csv(sys.argv[1]), dict(word.split("=") for word in sys.argv[2:])
maes = []
for train, test in KFold(5, shuffle=True, random_state=0).split(table):
    model = irnet_hpc.fit(table.iloc[train], "band_gap", **options)
    predicted = model.predict(table["formula"].iloc[test])["predicted_band_gap"]
    maes.append(mean_absolute_error(table["band_gap"].iloc[test], predicted))
print(*maes)
