"""Tracebacks of workers that were launched from a notebook show the lines of its cells, under the cells' names."""

from __future__ import annotations

import pytest

from taktline._crew.cells import in_cells

STEPS = """
from taktline import line

def half(n):
    return 1 / (n - 7)
"""
RUN = """
try:
    list(line(abs, half)(range(40), how="line", workers=2, start={start!r}, progress=False))
except ZeroDivisionError as error:
    print(error.__notes__[-1])
"""


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_a_workers_traceback_shows_the_cells_line(start):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [nbformat.v4.new_code_cell(each) for each in ("1", STEPS.strip(), RUN.format(start=start))]
    made = nbformat.v4.new_notebook(cells=cells)
    done = nbclient.NotebookClient(made, timeout=120, kernel_name="python3").execute()
    said = "".join(output.text for output in done.cells[-1].outputs if output.get("name") == "stdout")
    assert "Cell In[2], line 4, in half" in said
    assert "return 1 / (n - 7)" in said
    assert "ipykernel" not in said


LAMBDAS = """
flow = line(abs,
            lambda n: 1 / (n - 7))
print(flow.steps[1].name)
for how in ("loop", "line"):
    try:
        list(flow(range(40), how=how, workers=2, start={start!r}, progress=False))
    except ZeroDivisionError as error:
        print(error.__notes__[-1].splitlines()[0])
"""


@pytest.mark.parametrize("start", ["launch", "fork"])
def test_a_lambda_is_named_by_its_cell(start):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [
        nbformat.v4.new_code_cell(each) for each in ("from taktline import line", LAMBDAS.format(start=start).strip())
    ]
    made = nbformat.v4.new_notebook(cells=cells)
    done = nbclient.NotebookClient(made, timeout=120, kernel_name="python3").execute()
    said = "".join(output.text for output in done.cells[-1].outputs if output.get("name") == "stdout")
    assert said.splitlines() == ["lambda at In[2]:2", *["at record 7 in step 'lambda at In[2]:2'"] * 2]


def test_lines_that_are_there_and_files_stay_as_they_are():
    trace = '  File "/no/such/file.py", line 3, in f\n    g()\n  File "/no/other.py", line 1, in g\nValueError: no\n'
    assert in_cells(trace) == trace
