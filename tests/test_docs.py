"""README and docs: each Python block runs, page by page, and what a page includes is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
INCLUDE = re.compile(r'^--8<-- "(?P<path>[^"]+)"$', re.MULTILINE)


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """Line of the page on which each block begins, and its code; blocks of includes left out."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start("code")), dedent(match["code"]))
        for match in FENCE.finditer(text)
        if match["language"].split()[:1] == ["python"] and INCLUDE.sub("", match["code"]).strip()
    ]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if python_blocks(p)], ids=name_of)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    try:
        for line, code in python_blocks(page):
            # Empty lines before the code, so that a traceback points into the page.
            exec(compile("\n" * line + code, str(page), "exec"), namespace)
    finally:
        plt.close("all")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_name_their_language(page):
    text = page.read_text(encoding="utf-8")
    blocks = list(FENCE.finditer(text))
    assert 2 * len(blocks) == text.count("```"), "each block is closed"
    assert all(match["language"] for match in blocks)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_included_files_exist(page):
    for match in INCLUDE.finditer(page.read_text(encoding="utf-8")):
        assert (ROOT / match["path"]).is_file(), match["path"]


def test_every_example_is_shown():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    shown = {match["path"] for match in INCLUDE.finditer(text)}
    assert {name_of(example) for example in ROOT.glob("examples/*.py")} <= shown


def test_api_pages_name_everything_public():
    import pianolstm as pl

    text = "".join(page.read_text(encoding="utf-8") for page in ROOT.glob("docs/api/*.md"))
    documented = set(re.findall(r"^::: pianolstm\.([\w.]+)$", text, re.MULTILINE))
    modules = ("audio", "callbacks", "constraints", "datasets", "exceptions", "plotting")
    names = {name for name in pl.__all__ if name not in (*modules, "__version__")}
    for module in ("audio", "callbacks", "constraints", "datasets", "plotting"):
        names |= {f"{module}.{name}" for name in getattr(pl, module).__all__}
    assert names <= documented


def test_error_pages_quote_the_source():
    """Each message that docs/errors.md lists is in the source, with … for what it fills in."""
    templates = set()
    for path in ROOT.glob("src/pianolstm/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
                templates.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                templates.add(node.value)
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    messages = [m for row in rows for m in re.findall(r"^`([^`]*)`$", row[-3].strip())]
    assert len(messages) > 40
    assert not [m for m in messages if not any(m in template for template in templates)]
