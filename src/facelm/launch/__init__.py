"""How runs start, stop and go on: config to objects, ranks, jobs, resuming, sweeps."""
