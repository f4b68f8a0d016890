"""Functions of `@task.taktline` whose source is what the call gives their first parameter, in whatever order it is called."""

import os

from airflow.sdk import dag, task

from taktline import line, write

DATA = os.environ["TAKTLINE_TEST_DATA"]


@dag(schedule=None, tags=["test"])
def arguments():
    @task
    def some(name):
        return f"{DATA}/{name}.jsonl"

    @task.taktline(sink=f"{DATA}/made/by/name/{{{{ task.task_id }}}}.jsonl")
    def by_name(path, columns):
        return line(lambda record: {name: record[name] for name in columns})

    @task.taktline(sink=f"{DATA}/made/behind_context.jsonl")
    def behind_context(params, path=f"{DATA}/first.jsonl", columns=()):
        return line(dict)

    @task.taktline(source=f"{DATA}/second.jsonl", sink=f"{DATA}/made/said.jsonl")
    def said(path):
        return line(dict)

    @task.taktline(source=f"{DATA}/second.jsonl", sink=f"{DATA}/made/{{{{ task.task_id }}}}.jsonl")
    def returned(path):
        return line(dict), f"{DATA}/first.jsonl"

    @task.taktline
    def mapped(path, suffix, columns=("n",)):
        name = os.path.basename(path).partition(".")[0]
        os.makedirs(f"{DATA}/made/mapped", exist_ok=True)
        return line(dict), path, write(f"{DATA}/made/mapped/{name}-of-function{suffix}")

    @task.taktline(sink=f"{DATA}/made/mapped/{{{{ ti.map_index }}}}.jsonl")
    def mapped_line(path, columns):
        return line(lambda record: {name: record[name] for name in columns})

    by_name(columns=["n"], path=some(name="first"))
    behind_context(columns=["n"])
    said(some(name="first"))
    returned(some(name="second"))
    both = some.expand(name=["first", "second"])
    mapped.partial(suffix=".jsonl").expand(path=both)
    mapped_line.partial(columns=["n"]).expand(path=both)


arguments()
