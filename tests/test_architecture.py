"""The rule of imports: one direction, nothing heavy before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pianolstm

PACKAGE = Path(pianolstm.__file__).parent

# A module imports only from those before it; those of one line are beside each other.
ORDER = [
    {"exceptions"},
    {"plotting", "checks", "files"},
    {"smf", "tempo", "chords", "audio"},
    {"repair"},
    {"midi"},
    {"rolls"},
    {"encoder", "listening"},
    {"tokens"},
    {"store"},
    {"windows"},
    {"constraints", "callbacks"},
    {"vocabulary"},
    {"_jax"},
    {"_model"},
    {"model"},
    {"_learning", "_decoding"},
    {"writing"},
    {"streams", "infilling", "hyperparameters"},
    {"generator"},
    {"scoring"},
    {"datasets"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
del MODULES["__init__"]


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(path, module):
    """Modules of the package that a module imports, anywhere but for the type checker."""
    found = set()
    waiting = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if is_type_checking(node):
            waiting += node.orelse
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                is_package = path.name == "__init__.py"
                parents = f"pianolstm.{module}".split(".")
                parents = parents[: len(parents) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "pianolstm":
                found.add(longest_module(parts[1:]))
    return found - {module}


def longest_module(parts):
    """The module that a dotted name leads to; the rest of it is a name in that module."""
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in MODULES:
            return ".".join(parts[:n])
    return ""


def top(module):
    return module.split(".")[0]


def test_the_reader_of_imports_reads_all_kinds(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "import numpy, pianolstm.midi\n"
        "from pianolstm import plotting, rolls as r\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from pianolstm import generator\n"
        "else:\n    from pianolstm.exceptions import MidiError\n"
        "def f():\n    from .tokens import encode\n    from . import windows\n"
        "    from ._model import networks\n"
    )
    assert imports(path, "datasets") == {
        *("midi", "plotting", "rolls", "exceptions", "tokens", "windows", "_model.networks")
    }
    assert imports(path, "scoring.distribution") >= {"midi", "rolls"}
    path.write_text("from ..tokens import encode\nfrom . import distribution\n")
    assert imports(path, "scoring.other") == {"tokens", "scoring.distribution"}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_those_before_it(module):
    assert top(module) in RANK, f"{module} has no place in the order; see the design"
    for other in imports(MODULES[module], module):
        assert other, f"{module} imports from the package itself"
        allowed = RANK[top(other)] < RANK[top(module)] or top(other) == top(module)
        assert allowed, f"{module} imports {other}, which comes after it or stands beside it"


def test_the_order_names_the_modules_that_there_are():
    assert set(RANK) == {top(module) for module in MODULES}


def test_scoring_is_useful_without_networks():
    scoring = [module for module in MODULES if top(module) == "scoring"]
    assert "scoring.distribution" in scoring
    for module in scoring:
        rooms = {top(other) for other in imports(MODULES[module], module)}
        assert not rooms & {"_jax", "_model", "model", "_learning", "_decoding", "generator"}


def test_learning_and_decoding_do_not_know_each_other():
    for room, other in (("_learning", "_decoding"), ("_decoding", "_learning")):
        modules = [module for module in MODULES if top(module) == room]
        assert len(modules) > 3
        for module in modules:
            assert other not in {top(name) for name in imports(MODULES[module], module)}


def test_no_module_imports_itself_in_a_circle():
    graph = {module: imports(path, module) for module, path in MODULES.items()}
    assert len(graph["rolls"]) >= 3  # the reader found something
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("exceptions") < order.index("generator")


def loaded_by(code):
    """Names of the modules that a fresh interpreter loads while it runs the code."""
    script = (
        "import sys\nbefore = set(sys.modules)\n"
        f"{code}\n"
        "print('\\n'.join(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_importing_the_package_loads_the_standard_library_alone():
    loaded = loaded_by("import pianolstm\npianolstm.__version__, dir(pianolstm)")
    assert "pianolstm" in loaded
    foreign = {n for n in loaded if top(n) not in sys.stdlib_module_names | {"pianolstm"}}
    assert not foreign
    assert {n for n in loaded if n.startswith("pianolstm.")} == set()


USE = """
import io
import pianolstm as pl
roll = pl.PianoRoll.from_notes([0, 2, 3], [2, 3, 9], [60, 60, 64])
encoder = pl.PianoRollEncoder()
(midi,) = encoder.inverse_transform([roll])
midi.write(file := io.BytesIO())
rolls = encoder.fit_transform([midi, file.getvalue()])
pl.describe_midi(midi)
tokenizer = pl.ChordTokenizer()
sequences = tokenizer.fit_transform(rolls)
tokenizer.inverse_transform(sequences)
dataset = pl.WindowDataset(sequences, window_size=4)
list(dataset.batches(2, random_state=0)), dataset.to_numpy(one_hot=9), dataset.split(0.5)
scorer = pl.NoteDistributionScorer().fit(rolls * 2)
scorer.score(rolls), str(scorer.report({'all': rolls}))
chorales = pl.datasets.load_chorales('test')
str(pl.NoveltyScorer().fit(chorales[1:]).passages(chorales[:1])[0])
pl.structure(chorales[0]).returning
pl.measures(roll), pl.repetition(rolls), pl.compare_measures, pl.two_sample_test
pl.rank_correlation([1, 2, 3], [1, 3, 2]), pl.listening_test
pl.audio, pl.callbacks, pl.exceptions, pl.plotting
"""


def test_encoder_tokenizer_windows_and_scorer_never_load_jax():
    loaded = {top(name) for name in loaded_by(USE)}
    assert {"pianolstm", "sklearn", "pretty_midi"} <= loaded
    assert not loaded & {"jax", "jaxlib", "flax", "optax", "matplotlib", "tqdm"}


def test_nothing_but_what_runs_networks_loads_jax():
    rooms = ("_jax", "_model", "model", "_learning", "_decoding")
    run_networks = (*rooms, "writing", "streams", "infilling", "hyperparameters", "generator")
    modules = [m for m in MODULES if top(m) not in run_networks]
    loaded = loaded_by("".join(f"import pianolstm.{module}\n" for module in modules))
    assert {f"pianolstm.{module}" for module in modules} <= loaded
    assert not {top(name) for name in loaded} & {"jax", "jaxlib", "flax", "optax", "matplotlib"}


def test_all_names_lead_somewhere():
    for name in pianolstm.__all__:
        assert getattr(pianolstm, name) is not None
        assert name in dir(pianolstm)
    with pytest.raises(AttributeError, match="module 'pianolstm' has no attribute 'PianoRolls'"):
        pianolstm.PianoRolls
