"""Frames -> tidy tables and decisions, without sentences.

recipes and selection choose each strategy's recipe by val; comparison, pairwise, per_class, data_size and target are
the tables; verdict decides; analysis bundles what a report is made of. Imports sources and stats.
"""
