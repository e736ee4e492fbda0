"""Conversations in the published formats, written out by hand."""

import json

from phiquant.phi.tokenizer.chat import chat_prompt, chat_text

PHI_3 = {"<|user|>", "<|end|>", "<|assistant|>", "<|system|>"}
PHI_4_MINI = PHI_3 | {"<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>"}
PHI_4 = {"<|im_start|>", "<|im_sep|>", "<|im_end|>"}
CHATML = {"<|im_start|>", "<|im_end|>"}

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why {so}?"},
    {"role": "assistant", "content": "Because."},
]
WITH_TOOLS = [
    {"role": "system", "content": "Help.", "tools": [{"name": "add"}]},
    {"role": "user", "content": "1 + 2"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "add", "arguments": {"a": 1}}]},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "3"},
]


def test_turns_in_each_format():
    assert chat_text(TURNS, PHI_3) == (
        "<|system|>Be brief.<|end|><|user|>Why {so}?<|end|><|assistant|>Because.<|end|>"
    )
    assert chat_text(TURNS, PHI_4) == (
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|>"
        "<|im_start|>user<|im_sep|>Why {so}?<|im_end|>"
        "<|im_start|>assistant<|im_sep|>Because.<|im_end|>"
    )
    assert chat_text(TURNS, CHATML) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhy {so}?<|im_end|>\n"
        "<|im_start|>assistant\nBecause.<|im_end|>\n"
    )
    assert chat_text(TURNS, ()) == "system: Be brief.\n\nuser: Why {so}?\n\nassistant: Because.\n\n"


def test_a_prompt_ends_where_the_answer_begins():
    assert chat_prompt("Why?", PHI_3) == "<|user|>Why?<|end|><|assistant|>"
    assert chat_prompt("Why?", CHATML).endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert chat_prompt("Why?", {"<|im_start|>"}) == "Why?"


def test_tools_go_between_tokens_that_the_vocabulary_has():
    assert chat_text(WITH_TOOLS, PHI_4_MINI | {"<|tool_response|>"}) == (
        '<|system|>Help.<|tool|>[{"name": "add"}]<|/tool|><|end|><|user|>1 + 2<|end|>'
        '<|assistant|><|tool_call|>[{"name": "add", "arguments": {"a": 1}}]<|/tool_call|><|end|>'
        "<|tool_response|>3<|end|><|assistant|>3<|end|>"
    )


def test_a_role_without_its_token_speaks_as_the_user():
    text = chat_text(WITH_TOOLS, PHI_3 - {"<|system|>"})
    assert text.startswith(f"<|user|>Help.{json.dumps([{'name': 'add'}])}<|end|><|user|>1 + 2")
    assert "<|user|>3<|end|>" in text
    assert "tool_" not in text.replace("tool_calls", "")
