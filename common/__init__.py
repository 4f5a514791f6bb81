"""What everything stands on: command lines and errors, whole files, devices, pixel ranges."""
