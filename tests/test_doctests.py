"""The examples in docstrings are right."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import pianolstm

PACKAGE = Path(pianolstm.__file__).parent
MODULES = [f"pianolstm.{p.stem}" for p in sorted(PACKAGE.glob("*.py")) if p.stem != "__init__"]
MODULES += [f"pianolstm.scoring.{p.stem}" for p in sorted((PACKAGE / "scoring").glob("*.py"))]


@pytest.mark.parametrize("name", [n for n in MODULES if not n.endswith("__init__")])
def test_examples(name):
    module = import_module(name)
    failed, attempted = doctest.testmod(module)
    assert failed == 0  # the output above tells which
    assert attempted > 0 or ">>>" not in Path(module.__file__).read_text(encoding="utf-8")
