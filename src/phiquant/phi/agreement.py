"""Whether the tensors that are stored are those that config.json promises.

A checkpoint of hundreds of tensors that disagrees in one thing (a prefix, the number of layers)
disagrees in every name; so the one thing is looked for first, and of names only the first few are
told, with their number.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from phiquant.errors import CheckpointError
from phiquant.phi.listed import listed
from phiquant.phi.safetensors_file import SafetensorsTensor
from phiquant.phi.weight_files import WeightFiles
from phiquant.phi.widen import WEIGHT_DTYPES

Shapes = Mapping[str, tuple[int, ...]]
"""Of the tensors that a checkpoint is to have, by their names."""

LAYER = re.compile(r"model\.layers\.(\d+)\.")


def check_agreement(
    expected: Shapes, layers: int, tensors: Mapping[str, SafetensorsTensor], files: WeightFiles
) -> None:
    """Raise CheckpointError if a weight is missing, misshaped, of a type that is not read, or no
    part of the architecture, which is of so many `layers` and has the tensors `expected`. `files`
    are those that the tensors were read from.
    """
    faults = [
        *_faults_of_names(expected, layers, tensors),
        *_faults_of_shapes(expected, tensors),
        *_faults_of_types(tensors),
    ]
    if faults:
        told = "; ".join([*faults, *files.notes])
        raise CheckpointError(
            f"the tensors are not what config.json promises: {told}; "
            "config.json and weights have to be those of one model"
        )


def _faults_of_names(
    expected: Shapes, layers: int, tensors: Mapping[str, SafetensorsTensor]
) -> Iterator[str]:
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    prefix, count = _common_prefix(missing, extra)
    if 2 * count > len(expected):
        yield (
            f"their names begin with {prefix} ({listed(extra, 1)}), which is no part of a "
            "Phi-3's; save the inner network alone, or take the prefix off"
        )
        return
    stored = _layers_in(tensors)
    if stored and stored != layers and _only_layers_differ(missing, extra):
        yield f"num_hidden_layers is {layers}, and the tensors make {stored} layers"
        return
    if missing:
        yield f"missing: {listed(missing)}"
        if missing == ["lm_head.weight"]:
            yield 'where the head is the embedding, config.json says "tie_word_embeddings": true'
    if extra:
        yield f"not part of the architecture: {listed(extra)}"


def _common_prefix(missing: Collection[str], extra: Sequence[str]) -> tuple[str, int]:
    """What stands most often before missing names among the extra ones, and how often."""
    wanted = set(missing)
    prefixes: Counter[str] = Counter()
    for name in extra:
        parts = name.split(".")
        ends = (number for number in range(1, len(parts)) if ".".join(parts[number:]) in wanted)
        number = next(ends, None)
        if number is not None:
            prefixes[".".join(parts[:number]) + "."] += 1
    return next(iter(prefixes.most_common(1)), ("", 0))


def _layers_in(tensors: Mapping[str, SafetensorsTensor]) -> int:
    """The number of layers that have tensors; 0 if their numbers leave gaps."""
    numbers = {int(match[1]) for name in tensors if (match := LAYER.match(name))}
    return len(numbers) if numbers == set(range(len(numbers))) else 0


def _only_layers_differ(missing: Sequence[str], extra: Sequence[str]) -> bool:
    """Whether either only whole layers are missing, or only further layers are stored."""
    names = [*missing, *extra]
    return bool(missing) != bool(extra) and all(LAYER.match(name) for name in names)


def _faults_of_shapes(expected: Shapes, tensors: Mapping[str, SafetensorsTensor]) -> Iterator[str]:
    misshaped = [
        f"{name} (expected {list(shape)}, found {list(tensors[name].shape)})"
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    ]
    if misshaped:
        yield f"misshaped: {listed(misshaped)}"


def _faults_of_types(tensors: Mapping[str, SafetensorsTensor]) -> Iterator[str]:
    mistyped = [
        f"{name} ({tensor.dtype})"
        for name, tensor in tensors.items()
        if tensor.dtype not in WEIGHT_DTYPES
    ]
    if mistyped:
        yield f"not one of {', '.join(WEIGHT_DTYPES)}: {listed(mistyped)}"
