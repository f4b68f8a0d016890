"""Hosts that are killed and frozen at random while a scheduler has tasks on them: `python3 dev.py hosts`."""
