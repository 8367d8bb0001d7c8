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
from retrieval_geometry.experiments.registry import find

project, sources = Project.find(Path(workflow.basedir)), Sources()
chapters = project.chapter_names()
python = sys.executable
# `build` passes on settings as they are, and what it makes; `snakemake --config` reads its values as YAML.
defaults = {"profile": "quick", "data_root": "data", "device": "cpu", "seed": 0}
given = json.loads(os.environ.get(SETTINGS, "{}"))
settings = {**defaults, **config, **given}
profile, again = settings["profile"], given.get("again")
arguments = shlex.join(f"--{key.replace('_', '-')}={settings[key]}" for key in defaults)


def made(path):
    """An input. One that `build` does not make has no say in what is made, whatever its time."""
    return path if again is None or path in again else ancient(path)


def experiment_inputs(wildcards):
    """What is made first, if both are: an experiment goes on from what those that it needs have kept."""
    own = result_of(wildcards.experiment, profile)
    first = [result_of(name, profile) for name in find(wildcards.experiment).needs]
    return [path for path in first if again is None or {path, own} <= set(again)]


def parts_of(wildcards):
    """As many parts as there are cores, if the experiment is made: each keeps a share of the work."""
    name, n = wildcards.experiment, workflow.cores
    wanted = find(name).parts and n > 1 and result_of(name, profile) in (again or ())
    return [f"build/parts/{name}/{number}-{n}" for number in range(1, n + 1)] if wanted else []


def chapter_inputs(wildcards):
    script = project.chapters / f"{wildcards.chapter}.py"
    return [made(result_of(name, profile)) for name in experiments_of(sources, script)]


def html_inputs(wildcards):
    return [made(f"build/executed/{chapter}.ipynb") for chapter in chapters]


rule book:
    input: PAGES
    default_target: True


rule part:
    input: experiment_inputs
    output: temp(touch("build/parts/{experiment}/{number}-{of}"))
    params: settings=lambda wildcards: arguments
    threads: 1
    priority: 1
    message: "running part {wildcards.number} of {wildcards.of} of {wildcards.experiment}"
    shell: "{python:q} -m retrieval_geometry run {wildcards.experiment:q} {params.settings} --part {wildcards.number}/{wildcards.of}"


rule experiment:
    input: experiment_inputs, parts_of
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
    input: html_inputs
    # Snakemake removes the output of a job that fails: a stamp, so that the pages of the last good build stay.
    output: PAGES
    params: settings=lambda wildcards: arguments
    threads: workflow.cores
    message: "building the HTML pages"
    shell: "{python:q} -m retrieval_geometry.book html {params.settings}"
