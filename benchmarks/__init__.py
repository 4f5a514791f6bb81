"""Speed and memory, measured: ours, and beside it that of a peer's checkout where there is one."""
