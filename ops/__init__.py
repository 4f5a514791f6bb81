"""The fast kernels of the networks, each equal to a few lines of plain PyTorch."""
