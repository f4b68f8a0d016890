"""What may go wrong, tried for real and in simulation."""
