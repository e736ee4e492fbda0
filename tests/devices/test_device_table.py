"""The shipped tables, a user's file, and the machine at hand."""

from fnmatch import fnmatchcase

import pytest

from phiquant.devices import this_machine as here
from phiquant.devices.device import CLASSES
from phiquant.devices.engines import engines
from phiquant.devices.table import devices, find_device, read_user_devices
from phiquant.errors import InputError, RequestError
from phiquant.phi.family import family
from phiquant.recipe import Recipe
from phiquant.targets.table import MODULES, target

MINE = """
[engine.tpu]
target = "onnx"
provider = "tpu"
computes = ["int8"]
efficiency = 0.5
basis = "a guess"
types.int8 = ["int8-b32"]

[board]
title = "A board"
class = "iot"
memory_gib = 2
usable_gib = 1.5
bandwidth_gbs = 10
engines = ["tpu", "gguf-cpu-arm"]
source = "its label"

[larger]
like = "board"
memory_gib = 4
usable_gib = 3

[pi]
like = "raspberry-pi-5-8gb"
"""
WANTED = [
    "raspberry-pi-5-4gb",
    "raspberry-pi-5-8gb",
    "raspberry-pi-5-16gb",
    "jetson-orin-nano-8gb",
    "gateway-arm64-4gb",
    "gateway-x86-8gb",
    "iphone-15-pro",
    "iphone-16",
    "ipad-m4-8gb",
    "snapdragon-8-gen-3",
    "dimensity-9300",
    "pixel-9",
    "snapdragon-x-elite",
    "core-ultra-200v",
    "ryzen-ai-300",
    "pc-avx2-16gb",
    "workstation-amx-64gb",
    "macbook-m1-8gb",
    "macbook-m2-16gb",
    "macbook-m3-16gb",
    "macbook-m4-16gb",
    "rtx-4060-8gb",
    "rtx-4090",
    "h100-80gb",
]


def test_the_table_has_the_devices_that_people_name():
    assert set(WANTED) <= set(devices())
    assert {one.kind for one in devices().values()} == set(CLASSES) - {"other"}


def test_every_device_is_possible_and_has_its_source():
    for device in devices().values():
        assert 0 < device.usable_gib <= device.memory_gib
        assert 5 < device.bandwidth_gbs < 10_000
        assert device.engines
        assert len(device.source) > 20
        if device.verified:
            assert "http" in device.source, device.name


def refusal(engine, type):
    """Why the table says that the engine does not take a type; None where it takes it."""
    covering = (
        refused.why
        for refused in engine.refuses
        if any(fnmatchcase(type, pattern) for pattern in refused.types)
    )
    return next(covering, None)


def test_every_engine_makes_what_its_target_can_make():
    """Each type is planned for a real architecture with the engine's options; refusals hold."""
    outline = family()["Phi-4-mini-instruct"]
    for engine in engines().values():
        assert engine.target in MODULES
        of = target(engine.target)
        for types in engine.types.values():
            for type in types:
                assert type in of.types, (engine.name, type)
                assert refusal(engine, type) is None, (engine.name, type)
                recipe = Recipe(engine.target, type=type, options=engine.options)
                assert of.plan(outline.architecture, outline.survey, recipe.form).nbytes > 10**8


def test_a_refusal_covers_what_it_names():
    npu = engines()["openvino-npu"]
    assert "symmetric" in refusal(npu, "int4-asym-g128")
    assert "128" in refusal(npu, "int4-sym-g64")
    assert refusal(npu, "int4-sym-g128") is None
    assert "K-quants" in refusal(engines()["gguf-adreno"], "Q4_K_M")


def test_a_device_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    table = read_user_devices(path)
    assert list(table) == ["board", "larger", "pi"]
    assert table["larger"].title == "A board"
    assert table["larger"].usable == 3 << 30
    assert [one.name for one in table["board"].engines] == ["tpu", "gguf-cpu-arm"]
    assert table["pi"].title == "Raspberry Pi 5, 8 GB"
    assert table["pi"].bandwidth_gbs == devices()["raspberry-pi-5-4gb"].bandwidth_gbs
    assert find_device(f"{path}:larger").memory_gib == 4
    with pytest.raises(RequestError, match="say which"):
        find_device(str(path))


@pytest.mark.parametrize(
    "before, after, fault",
    [
        ("usable_gib = 1.5", "usable_gib = 2.5", "more than memory_gib"),
        ("bandwidth_gbs = 10", "bandwidth_gbs = -1", "positive number"),
        ("bandwidth_gbs = 10", 'bandwidth_gbs = "fast"', "should be a float"),
        ("memory_gib = 2", "memory_gib = true", "should be a float"),
        ("memory_gib = 2", "memory_gib = nan", "nan is no number"),
        ('source = "its label"', "", "lacks source"),
        ('class = "iot"', 'class = "toaster"', "one of iot"),
        ('"tpu", "gguf-cpu-arm"', '"gpu"', "'gpu'"),
        ('["tpu", "gguf-cpu-arm"]', "[]", "found none"),
        ('source = "its label"', 'source = "x"\ncolour = "red"', "no field colour"),
        ('like = "board"', 'like = "nothing"', "no device that is known"),
        ('like = "board"', 'like = "larger"', "more than 8 times"),
        ('source = "its label"', 'like = "larger"', "more than 8 times"),
        ("efficiency = 0.5", "efficiency = 1.5", "share of the bandwidth"),
        ("types.int8", "types.int5", "'int5'"),
        ('types.int8 = ["int8-b32"]', 'types.int8 = "int8-b32"', "list names"),
        ("[board]", "[board", "not valid TOML"),
    ],
)
def test_a_file_with_a_fault_is_told_where(tmp_path, before, after, fault):
    path = tmp_path / "mine.toml"
    assert before in MINE
    path.write_text(MINE.replace(before, after, 1))
    with pytest.raises(InputError, match=fault) as error:
        read_user_devices(path)
    assert "mine.toml" in str(error.value)


def test_a_name_that_is_nearly_one():
    with pytest.raises(RequestError, match="raspberry-pi-5-8gb"):
        find_device("raspberry-pi-5-8GB ")
    with pytest.raises(InputError, match="cannot read"):
        find_device("nowhere.toml")


def test_this_machine(monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name : A Chip 9\nflags : sse2 avx2 avx512f amx_int8\n")
    monkeypatch.setattr(here, "CPUINFO", cpuinfo)
    monkeypatch.setattr(here, "COPY_BYTES", 1 << 20)
    monkeypatch.setattr(here, "_openvino_devices", lambda: ["CPU", "GPU", "NPU"])
    monkeypatch.setattr(here, "_nvidia_card", lambda: "RTX 4090")
    monkeypatch.setattr(here.platform, "machine", lambda: "x86_64")
    machine = find_device("this")
    assert "A Chip 9" in machine.title
    assert machine.features == ("avx2", "avx512f", "amx_int8")
    assert machine.bandwidth_gbs > 0.5
    assert 0 < machine.usable_gib <= machine.memory_gib
    names = [one.name for one in machine.engines]
    assert names[:2] == ["openvino-gpu", "openvino-npu"]
    assert "gguf-cpu-x86" in names
    assert "RTX 4090" in machine.absent[0].why
