"""Speed, measured as ratios to the plain loop within one interleaved run."""
