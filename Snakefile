# The book as a graph: experiments -> executed chapters -> HTML.
# `make book` runs it; `retrieval-geometry build --help` lists its settings.
import shlex
import sys
from pathlib import Path

from retrieval_geometry.book.graph import SOURCE, experiments_of, module_files, recorded_of
from retrieval_geometry.book.project import Project

project = Project.find(Path(workflow.basedir))
chapters = project.chapter_names()
python = sys.executable
profile = config.get("profile", "quick")
data_root = str(config.get("data_root", "data"))
device = config.get("device", "cpu")
seed = int(config.get("seed", 0))
settings = f"--profile {profile} --data-root {shlex.quote(data_root)} --device {device} --seed {seed}"


def source_of(wildcards):
    return project.chapters / f"{wildcards.chapter}.py"


def experiment_source(name):
    """An experiment called `paper-part` is defined in `experiments/paper.py`."""
    source = SOURCE / "experiments" / f"{name.split('-')[0]}.py"
    recorded = recorded_of(source, project.root / "book" / "results")
    inputs = [str(source), *map(str, [*module_files(source), *recorded])]
    if name.startswith(("wasserstein-", "rankmi-")):  # they change one thing of models of the comparison
        inputs.append(f"build/results/learning-bench-{profile}.json")
    return inputs


def chapter_inputs(wildcards):
    results = [f"build/results/{name}-{profile}.json" for name in experiments_of(source_of(wildcards))]
    recorded = recorded_of(source_of(wildcards), project.root / "book" / "results")
    return [str(source_of(wildcards)), *map(str, [*module_files(source_of(wildcards)), *recorded]), *results]


rule book:
    input: "build/html/.complete"
    default_target: True


rule experiment:
    input: lambda wildcards: experiment_source(wildcards.experiment)
    output: "build/results/{experiment}-" + profile + ".json"
    params: settings=settings
    # One thread a job: small matrices gain nothing from more, and jobs side by side use the cores.
    threads: 1
    # Before the chapters that could begin at once: these fill the cores while the last experiment runs.
    priority: 1
    message: "running experiment {wildcards.experiment} (profile " + profile + ")"
    shell: "{python} -m retrieval_geometry run {wildcards.experiment} {params.settings} --output {output}"


rule chapter:
    input: chapter_inputs
    output: "build/executed/{chapter}.ipynb"
    params: settings=settings
    message: "executing chapter {wildcards.chapter}"
    shell: "{python} -m retrieval_geometry.book execute {wildcards.chapter} {params.settings}"


rule html:
    input:
        expand("build/executed/{chapter}.ipynb", chapter=chapters),
        "_config.yml",
        "_toc.yml",
        "book/index.md",
        "book/references.bib",
        [str(path) for path in (project.root / "book" / "_static").glob("*")],
        [str(path) for path in sorted((SOURCE / "book").glob("*.py"))],
    # Snakemake removes the output of a job that fails: a stamp, so that the pages of the last good build stay.
    output: "build/html/.complete"
    threads: workflow.cores
    message: "building the HTML pages"
    shell: "{python} -m retrieval_geometry.book html"
