"""The fault suite: what goes wrong in real runs, done on purpose and in simulation, with a verdict each."""
