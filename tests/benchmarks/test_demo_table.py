"""The README's table is what `phiquant demo --json` printed."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"


@pytest.fixture
def demo_table(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import demo_table

    yield demo_table
    for name in ("demo_table", "marked", "tables"):
        sys.modules.pop(name, None)


def artifact(target, precision, mean, positions, measured_in="llama.cpp 1"):
    return {
        "target": target,
        "precision": precision,
        "type": "Q8_0",
        "nbytes": 142_960_000,
        "bits_per_weight": 8.506,
        "verification": {
            "runtime": "llama.cpp 1",
            "measured_in": measured_in,
            "figures": {
                "mean": mean,
                "top1_agreement": {"value": 0.9512, "error": 0.01},
                "positions": positions,
            },
            "generation": {"tokens_per_second": 143.26},
        },
    }


DEMO = {
    "seconds": {"first": 19.2, "all": 171.8},
    "moved": {"mean": {"value": 0.3149, "error": 0.012}},
    "artifacts": [
        artifact("gguf", "int8", {"value": 0.00761, "error": 0.00042}, 2048),
        artifact("mlx", "fp32", {"value": 0.0, "error": 0.0}, 1024, "the reference"),
    ],
}


def test_the_table_and_its_notes(demo_table, tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    around = ["above", "<!-- demo -->", "<!-- end -->", "<!-- other -->", "x", "<!-- end -->", ""]
    page.write_text("\n".join(around))
    monkeypatch.setattr(demo_table, "README", page)
    (tmp_path / "demo.json").write_text(json.dumps(DEMO))
    monkeypatch.setattr(sys, "argv", ["demo_table.py", str(tmp_path / "demo.json")])
    demo_table.main()
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line in around and line] == around[:-1]
    assert "| gguf | INT8 | Q8_0 | 143.0 | 8.51 | 0.0076 ± 0.0004 | 95.1 % | 143.3 |" in lines
    assert "| mlx | FP32 | Q8_0 | 143.0 | 8.51 | 0 \\* | 95.1 % \\* | 143.3 |" in lines
    words = " ".join(page.read_text(encoding="utf-8").split())
    assert "over 2,048 positions for INT8, 1,024 positions for FP32" in words
    assert "first row came after 19 seconds, the last after 172" in words
    assert "the network as published, from which its KL divergence is 0.31." in words


def test_the_readme_has_a_place_for_it(demo_table):
    page = demo_table.README.read_text(encoding="utf-8")
    assert page.count(f"<!-- {demo_table.PART} -->\n\n{demo_table.TABLE.head}\n") == 1
