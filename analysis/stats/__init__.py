"""Statistics on plain numbers: intervals, tests, permutation importance, the Pareto front.

tests: means, Wilson intervals, McNemar, Holm. crossed: the bootstrap over runs and test images.
Imports numpy, scipy and pandas, and nothing of this project but `analysis.errors` and `analysis.formatting`.
"""
