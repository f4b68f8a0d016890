"""Whole ways: a source, steps, options and a sink drawn at random, with something that goes wrong, held against a model in
plain Python. `python3 dev.py ways --cases 1000` draws new ones, `--only SEED` repeats one.

`case.py` draws, from tables in `steps.py`, `sources.py` and `sinks.py`; `model.py` says what must come out; `runner.py` has
the line do it and compares. A new form, source or sink is a line in its table.
"""
