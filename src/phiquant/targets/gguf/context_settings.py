"""Where the settings of a context lie in llama.cpp's `llama_context_params`.

llama.h changes this struct every few months: builds 9294 to 11739 have four layouts, which differ
by fields inserted between the groups below. So no offset is taken for granted. The library itself
hands out the struct with its defaults, and the groups are recognised by these; within a group the
fields have kept their order and their defaults since the group came into being. A struct in which
a group is not recognised is refused before anything is written into it.

    offset 0    n_ctx 512, n_batch 2048, n_ubatch 512
                ... counts of sequences, outputs and threads; the kind of the context, 0
    enums       rope_scaling_type -1, pooling_type -1, attention_type -1, flash_attn_type -1
    floats      rope_freq_base 0, rope_freq_scale 0, yarn_ext_factor -1, yarn_attn_factor -1,
                yarn_beta_fast -1, yarn_beta_slow -1, yarn_orig_ctx 0 (an integer), defrag_thold -1
    pointers    cb_eval NULL, cb_eval_user_data NULL, at the next multiple of 8
    cache       type_k F16, type_v F16
                ... callbacks and switches
"""

import struct
from collections.abc import Mapping

START = struct.pack("<3I", 512, 2048, 512)
MIDDLE = struct.pack("<4i6fIf", -1, -1, -1, -1, 0, 0, -1, -1, -1, -1, 0, -1)
POINTERS = bytes(16)
CACHE = struct.pack("<2i", 1, 1)

SEARCHED = 256
"""Bytes of the struct among which the groups are looked for."""
UNSET = struct.pack("<i", -1)
"""An enum that leaves the choice to the model. A fifth one beside the four would be a new field."""


def settings_in(defaults: bytes) -> Mapping[str, int]:
    """The offset in bytes of each setting, a 32-bit integer, by its name in llama.h.

    `defaults` is a `llama_context_params` as llama.cpp hands it out; bytes beyond its end may
    follow. Raises ValueError, with a phrase that names what is not recognised.
    """
    if not defaults.startswith(START):
        raise ValueError("n_ctx, n_batch and n_ubatch are not its first fields")
    middle = defaults.find(MIDDLE, 0, SEARCHED)
    if middle < 0 or middle % 4 or defaults[middle - 4 : middle] == UNSET:
        raise ValueError("flash_attn_type is not among the fields that it used to be among")
    pointers = -(-(middle + len(MIDDLE)) // 8) * 8
    cache = pointers + len(POINTERS)
    if defaults[pointers : cache + len(CACHE)] != POINTERS + CACHE:
        raise ValueError("type_k and type_v are not where they used to be")
    return {
        "n_ctx": 0,
        "n_batch": 4,
        "n_ubatch": 8,
        "flash_attn_type": middle + 12,
        "type_k": cache,
        "type_v": cache + 4,
    }
