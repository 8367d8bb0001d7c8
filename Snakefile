# The book as a graph: experiments -> executed chapters -> HTML.
# `make book` runs it; `retrieval-geometry build --help` lists its settings.
# Sources are no inputs: an output carries a digest of what it was made from, and `build` forces those that are
# stale (`retrieval_geometry.book.graph`). So only the order stands here, and times of files do not count.
import json
import os
import shlex
import sys
from pathlib import Path

from retrieval_geometry._sources import Sources
from retrieval_geometry.book.graph import PAGES, SETTINGS, experiments_of, result_of
from retrieval_geometry.book.project import Project

project, sources = Project.find(Path(workflow.basedir)), Sources()
chapters = project.chapter_names()
python = sys.executable
# `build` passes settings on as they are; `snakemake --config` reads its values as YAML.
defaults = {"profile": "quick", "data_root": "data", "device": "cpu", "seed": 0}
settings = json.loads(os.environ[SETTINGS]) if SETTINGS in os.environ else {**defaults, **config}
profile = settings["profile"]
arguments = shlex.join(f"--{key.replace('_', '-')}={settings[key]}" for key in defaults)


def experiment_inputs(wildcards):
    """Results that are made first: these experiments change one thing of models of the comparison."""
    after = wildcards.experiment.startswith(("wasserstein-", "rankmi-"))
    return [ancient(result_of("learning-bench", profile))] if after else []


def chapter_inputs(wildcards):
    script = project.chapters / f"{wildcards.chapter}.py"
    return [ancient(result_of(name, profile)) for name in experiments_of(sources, script)]


rule book:
    input: PAGES
    default_target: True


rule experiment:
    input: experiment_inputs
    output: "build/results/{experiment}-" + profile + ".json"
    params: settings=lambda wildcards: arguments  # a function: braces in it are left alone
    # One thread a job: small matrices gain nothing from more, and jobs side by side use the cores.
    threads: 1
    # Before the chapters that could begin at once: these fill the cores while the last experiment runs.
    priority: 1
    message: "running experiment {wildcards.experiment} (profile " + profile + ")"
    shell: "{python:q} -m retrieval_geometry run {wildcards.experiment:q} {params.settings} --output {output:q}"


rule chapter:
    input: chapter_inputs
    output: "build/executed/{chapter}.ipynb"
    params: settings=lambda wildcards: arguments
    message: "executing chapter {wildcards.chapter}"
    shell: "{python:q} -m retrieval_geometry.book execute {wildcards.chapter:q} {params.settings}"


rule html:
    input: ancient(expand("build/executed/{chapter}.ipynb", chapter=chapters))
    # Snakemake removes the output of a job that fails: a stamp, so that the pages of the last good build stay.
    output: PAGES
    threads: workflow.cores
    message: "building the HTML pages"
    shell: "{python:q} -m retrieval_geometry.book html"
