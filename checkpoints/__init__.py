"""Which file of a run is which, and how weights are stored and read back."""
