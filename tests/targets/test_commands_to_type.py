"""The line that an artifact's card shows is for typing: a stranger's words do not get into it."""

import pytest
from gguf_models import tiny_checkpoint, write_gguf

from phiquant.targets.table import target


@pytest.mark.parametrize("name", ["x$(touch evil).gguf", "it's.gguf", "-o.gguf", 'a"b.gguf'])
def test_a_files_name_that_cannot_be_typed_is_not_shown(tmp_path, name):
    write_gguf(tiny_checkpoint(tmp_path / "tiny"), tmp_path / "out", precision="fp32")
    gguf = target("gguf")
    (file,) = (tmp_path / "out").glob("*.gguf")
    assert file.name in gguf.command(tmp_path / "out")
    file.rename(file.with_name(name))
    for line in (gguf.command(tmp_path / "out"), gguf.command_here(tmp_path / "out") or ""):
        assert name not in line
    assert "MODEL.gguf" in gguf.command(tmp_path / "out")


def test_a_device_that_is_none_is_not_shown(tmp_path):
    info = "<rt_info><phiquant><device value=\"CPU'); evil('\"/></phiquant></rt_info>"
    (tmp_path / "openvino_model.xml").write_text(f"<net>{info}</net>")
    line = target("openvino").command(tmp_path)
    assert "evil" not in line
    assert "'CPU'" in line
