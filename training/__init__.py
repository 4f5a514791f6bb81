"""One resumable run: its settings, state, steps, plan, log and recovery."""
