"""What this project asks of each of its DAGs: it can be imported, has tags, and tries again twice.

`astro dev pytest` runs this file. Change it to what you ask of yours.
"""

from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

BAG = DagBag(Path(__file__).parents[2] / "dags")
DAGS = pytest.mark.parametrize("dag", BAG.dags.values(), ids=BAG.dags)


def test_every_file_can_be_imported():
    assert not BAG.import_errors


@DAGS
def test_it_has_tags(dag):
    assert dag.tags


@DAGS
def test_its_tasks_are_tried_again_twice(dag):
    assert all(task.retries >= 2 for task in dag.tasks)
