"""tests/faults/faults.yaml is whole: every fault and every row once, with tests that exist, or a word why there are none."""
import ast, functools, os, re, sys

import pytest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "faults"))
import table  # noqa: E402

ENTRIES = table.load()
NAMES = [table.name_of(entry) for entry in ENTRIES]


@functools.lru_cache(None)
def functions(path):
    """The tests of a file: pytest's functions, or those that cmocka is given; not what runs with SOAK=1 only."""
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        text = f.read()
    if path.endswith(".py"):
        return {node.name for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
                and not any("SOAK" in ast.unparse(mark) for mark in node.decorator_list)}
    return {name for name in re.findall(r"^static void (\w+)\(void \*\*\w+\)", text, re.M) if len(re.findall(rf"\b{name}\b", text)) > 1}


def test_every_number_stands_there_once():
    assert NAMES == [str(n) for n in range(1, 73)] + [f"{letter}{n}" for letter, last in (("K", 25), ("J", 14), ("C", 7)) for n in range(1, last + 1)]


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_it_has_a_case_or_says_why_not(entry):
    assert set(entry) <= {"number", "row", "what", "expect", "tests", "why_not", "missing"} and entry["what"]
    assert entry.get("tests") or entry.get("why_not") or entry.get("missing"), "neither tests nor why_not"
    assert not ("why_not" in entry and "tests" in entry)
    for test in entry.get("tests", []):
        path, name = test.split("::")
        assert name in functions(path), f"{test} does not exist, or not without SOAK=1"


def test_it_would_see_a_wrong_name():
    assert "test_it_would_see_a_wrong_name" in functions("tests/unit/test_faults.py") and "functions" not in functions("tests/unit/test_faults.py")
    assert "test_a_message_of_a_byte_a_second" not in functions("tests/faults/test_channel_faults.py")
    assert "masks_are_fresh" in functions("tests/unit/proto/test_websocket.c") and "take_close" not in functions("tests/unit/proto/test_websocket.c")
