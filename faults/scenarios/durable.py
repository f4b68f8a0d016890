"""Journal and dead letters."""

GROUP = "Going on after the end"
SCENARIOS: list = []
