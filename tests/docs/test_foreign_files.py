"""The sizes in docs/foreign-files.md are those by which files are refused."""

from pathlib import Path

from phiquant.host import foreign
from phiquant.targets.admission import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "foreign-files.md"

KINDS = {
    "config.json, adapter_config.json": foreign.CONFIG,
    "tokenizer.json": foreign.TOKENIZER,
    "other JSON files of a tokenizer, generation_config.json": foreign.TOKENIZER_SETTINGS,
    "tokenizer.model": foreign.TOKENIZER_MODEL,
    "vocab.json, merges.txt": foreign.VOCABULARY,
    "a chat template": foreign.TEMPLATE,
    "model.safetensors.index.json": foreign.WEIGHT_INDEX,
    "phiquant.json": foreign.RECORD,
    "genai_config.json": foreign.RUNTIME_SETTINGS,
    "settings that a runtime is given": SETTINGS,
    "an ONNX graph, without its external data": foreign.ONNX_GRAPH,
    "an OpenVINO graph (XML)": foreign.OPENVINO_GRAPH,
    "a text to calibrate or to measure on": foreign.TEXT,
    "a TOML file of devices": foreign.TABLE,
    "an importance matrix": foreign.IMATRIX,
    "a wheel for `demo --wheel`": foreign.WHEEL,
}


def test_every_size_is_on_the_page():
    kinds = {kind for kind in vars(foreign).values() if isinstance(kind, foreign.FileKind)}
    unlimited = {foreign.WEIGHTS, foreign.STORED, foreign.CARD}
    assert kinds - unlimited <= set(KINDS.values())


def test_the_page_says_what_is_refused():
    text = PAGE.read_text(encoding="utf-8")
    rows = text.partition("<!-- caps -->")[2].partition("<!-- end of caps -->")[0]
    cells = [row.strip("|").split("|") for row in rows.strip().splitlines()[2:]]
    stated = {name.strip(): float(size) * foreign.MIB for name, size in cells}
    assert stated == {name: kind.most for name, kind in KINDS.items()}
