"""From a table's TOML to devices, every field checked.

A device is a TOML table under its name; `like` takes over what another device of the same file or
of the shipped tables states. `engines` lists names from data/engines.toml, or, in a user's file,
of tables `[engine.NAME]` in the same file.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from phiquant.devices.device import CLASSES, Absent, Device, Engine, Refusal
from phiquant.errors import InputError
from phiquant.planning.precision import PRECISIONS, Precision

Table = Mapping[str, Any]

DEVICE_FIELDS = {
    "title": str,
    "class": str,
    "memory_gib": float,
    "usable_gib": float,
    "bandwidth_gbs": float,
    "engines": list,
    "source": str,
}
DEVICE_EXTRAS = {"like": str, "verified": bool, "refuses": list, "features": list}
ENGINE_FIELDS = {
    "target": str,
    "provider": str,
    "computes": list,
    "types": dict,
    "efficiency": float,
    "basis": str,
}
ENGINE_EXTRAS = {"options": dict, "refuses": list, "most_context": int}


def read_toml(path: Path) -> dict[str, Any]:
    """The parsed file; InputError if it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid TOML: {error}") from error


def read_engines(document: Table, where: str) -> dict[str, Engine]:
    """The engines of a parsed file, by name. Raises InputError."""
    return {name: _engine(name, table, f"{where}: {name}") for name, table in document.items()}


def read_devices(
    document: Table, where: str, engines: Mapping[str, Engine], known: Mapping[str, Table]
) -> dict[str, Device]:
    """The devices of a parsed file, by name; `known` are tables that `like` may name."""
    return {
        name: _device(name, resolve(name, document, known, where), f"{where}: {name}", engines)
        for name in document
    }


def resolve(
    name: str, document: Table, known: Mapping[str, Table], where: str, seen: tuple[str, ...] = ()
) -> Table:
    """The device's table, with what it lacks taken from the table that `like` names."""
    table = document.get(name, known.get(name))
    if not isinstance(table, dict):
        raise InputError(f"{where}: expected a table [{name}], found {table!r:.60}")
    model = table.get("like")
    if model is None:
        return table
    if not isinstance(model, str) or model in (*seen, name) or model not in {**known, **document}:
        raise InputError(f"{where}: {name} is like {model!r}, which is no device that is known")
    base = resolve(model, document, known, where, (*seen, name))
    return {**base, **{key: value for key, value in table.items() if key != "like"}}


def _device(name: str, table: Table, where: str, engines: Mapping[str, Engine]) -> Device:
    _check(table, DEVICE_FIELDS, DEVICE_EXTRAS, where)
    if table["class"] not in CLASSES:
        raise InputError(
            f"{where}: class should be one of {', '.join(CLASSES)}, found {table['class']!r}"
        )
    memory, usable = _positive(table, "memory_gib", where), _positive(table, "usable_gib", where)
    if usable > memory:
        raise InputError(f"{where}: usable_gib {usable:g} is more than memory_gib {memory:g}")
    unknown = [engine for engine in table["engines"] if engine not in engines]
    if unknown or not table["engines"]:
        raise InputError(
            f"{where}: engines should be among {', '.join(engines)}; found "
            f"{', '.join(map(repr, unknown)) or 'none'}"
        )
    return Device(
        name=name,
        title=table["title"],
        kind=table["class"],
        memory_gib=memory,
        usable_gib=usable,
        bandwidth_gbs=_positive(table, "bandwidth_gbs", where),
        engines=tuple(engines[engine] for engine in table["engines"]),
        source=table["source"],
        verified=table.get("verified", False),
        absent=tuple(
            Absent(**_texts(refusal, ("engine", "why"), where))
            for refusal in table.get("refuses", [])
        ),
        features=tuple(map(str, table.get("features", []))),
    )


def _engine(name: str, table: object, where: str) -> Engine:
    if not isinstance(table, dict):
        raise InputError(f"{where}: expected a table, found {table!r:.60}")
    _check(table, ENGINE_FIELDS, ENGINE_EXTRAS, where)
    words = [*table["computes"], *table["types"]]
    strange = [word for word in words if word not in PRECISIONS]
    if strange:
        raise InputError(
            f"{where}: precisions should be among {', '.join(PRECISIONS)}; found {strange[0]!r}"
        )
    efficiency = _positive(table, "efficiency", where)
    if efficiency > 1:
        raise InputError(f"{where}: efficiency is a share of the bandwidth, found {efficiency:g}")
    for types in table["types"].values():
        if not isinstance(types, list) or not all(isinstance(name, str) for name in types):
            raise InputError(f"{where}: types should list names, found {types!r:.60}")
    refuses = []
    for refusal in table.get("refuses", []):
        if not isinstance(refusal, dict) or not isinstance(refusal.get("types"), list):
            raise InputError(f"{where}: a refusal needs types and why, found {refusal!r:.60}")
        refuses.append(
            Refusal(tuple(map(str, refusal["types"])), _texts(refusal, ("why",), where)["why"])
        )
    return Engine(
        name=name,
        target=table["target"],
        provider=table["provider"],
        options=tuple((key, str(value)) for key, value in table.get("options", {}).items()),
        computes=tuple(cast(list[Precision], table["computes"])),
        types={cast(Precision, key): tuple(names) for key, names in table["types"].items()},
        refuses=tuple(refuses),
        efficiency=efficiency,
        basis=table["basis"],
        most_context=table.get("most_context"),
    )


def _check(
    table: Table, fields: Mapping[str, type], extras: Mapping[str, type], where: str
) -> None:
    missing = [name for name in fields if name not in table]
    unknown = [name for name in table if name not in fields and name not in extras]
    if missing or unknown:
        raise InputError(
            f"{where}: "
            + "; ".join(
                f"{what} {', '.join(names)}"
                for what, names in (("it lacks", missing), ("there is no field", unknown))
                if names
            )
        )
    for name, kind in {**fields, **extras}.items():
        value = table.get(name)
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if name in table and (not fits or (kind is not bool and isinstance(value, bool))):
            raise InputError(f"{where}: {name} should be a {kind.__name__}, found {value!r:.60}")


def _positive(table: Table, name: str, where: str) -> float:
    value = float(table[name])
    if not 0 < value < float("inf"):
        raise InputError(f"{where}: {name} should be a positive number, found {value:g}")
    return value


def _texts(table: object, names: tuple[str, ...], where: str) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(table.get(name), str) for name in names):
        raise InputError(f"{where}: expected {' and '.join(names)} in words, found {table!r:.60}")
    return {name: table[name] for name in names}
