"""Cross-validate matminer's Magpie features with a random forest, as a user would write it.

python benchmarks/rival_matminer.py gaps.csv

benchmarks/rivals.py runs it beside rival_irnet.py, with the same table and folds.
"""

import sys

import pandas as pd
from matminer.featurizers.composition import ElementProperty
from matminer.featurizers.conversions import StrToComposition
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import mean_absolute_error
from sklearn.model_selection import KFold

table = pd.read_csv(sys.argv[1])
magpie = ElementProperty.from_preset("magpie", impute_nan=True)
table = StrToComposition().featurize_dataframe(table, "formula", pbar=False)
table = magpie.featurize_dataframe(table, "composition", pbar=False)
x, y = table[magpie.feature_labels()], table["band_gap"]
maes = []
for train, test in KFold(5, shuffle=True, random_state=0).split(x):
    forest = RandomForestRegressor(n_estimators=100, n_jobs=-1, random_state=0)
    forest.fit(x.iloc[train], y.iloc[train])
    maes.append(mean_absolute_error(y.iloc[test], forest.predict(x.iloc[test])))
print(*maes)
