"""`phiquant devices`."""

from pathlib import Path

from rich.table import Table

from phiquant.cli.console import out
from phiquant.cli.ending import Result
from phiquant.devices.device import CLASSES, Device
from phiquant.devices.table import devices, read_user_devices
from phiquant.errors import RequestError
from phiquant.targets.table import MODULES


def devices_command(
    kind: str | None, target: str | None, memory: float | None, file: Path | None
) -> Result:
    """The devices that are of `kind`, run `target`, and have `memory` GiB for a model."""
    if kind is not None and kind not in CLASSES:
        raise RequestError(f"expected a class among {', '.join(CLASSES)}, found {kind!r}")
    if target is not None and target not in MODULES:
        raise RequestError(f"expected a target among {', '.join(MODULES)}, found {target!r}")
    known = devices() if file is None else read_user_devices(file)
    listed = [
        device
        for device in known.values()
        if (kind is None or device.kind == kind)
        and (target is None or target in device.targets)
        and (memory is None or device.usable_gib >= memory)
    ]
    return Result({"devices": [device.as_json() for device in listed]}, lambda: _render(listed))


def _render(listed: list[Device]) -> None:
    table = Table("name", "device", "class", "GiB", "for a model", "GB/s", "runs", pad_edge=False)
    table.columns[0].no_wrap = True  # it is to be typed
    table.columns[0].overflow = "fold"
    for column in table.columns[3:6]:
        column.justify = "right"
    for device in listed:
        table.add_row(
            device.name,
            device.title,
            device.kind,
            f"{device.memory_gib:g}",
            f"{device.usable_gib:g}",
            f"{device.bandwidth_gbs:g}{'' if device.verified else ' ?'}",
            ", ".join(f"{engine.target} ({engine.provider})" for engine in device.engines),
        )
    out(table)
    if any(not device.verified for device in listed):
        out("? from memory or typical of a class, not looked up; --json has every source.")
