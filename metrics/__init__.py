"""How good samples are: distances, features, evaluation of a run, plots."""
