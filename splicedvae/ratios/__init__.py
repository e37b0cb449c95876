"""Splicing ratios without a network: scores, ceilings, baselines and what these read of cells."""
