"""Rendering a model's template as transformers does, and no further than it may go."""

import os
import sys

import pytest

from phiquant.evaluation import rendering
from phiquant.evaluation.chat import CONVERSATION
from phiquant.evaluation.rendering import render

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TEMPLATES = {
    "lines": (
        "{{ bos_token }}\n{% for message in messages %}\n    {% if message.role == 'user' %}\n"
        "<|user|>\n  {{ message['content'] }}\n    {% endif %}\n{% endfor %}\n"
        "{%- if add_generation_prompt %}\n<|assistant|>\n{% endif %}\n"
    ),
    "objects": "{{ messages | tojson }}{{ {'<': '>'} | tojson(indent=2) }}",
    "controls": "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}x{% endfor %}",
    "marks": "{% generation %}a{{ eos_token }}{% endgeneration %}\nb",
    "absent": "{{ pad_token }}|{{ tools }}|{{ documents is none }}",
    "methods": "{{ messages[1].content.replace('2', 'two').split('\n') | join('/') | upper }}",
    "spaces": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% endfor %}{{ ns.n }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_is_that_of_transformers(name):
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    expected = utilities.render_jinja_template(
        [list(CONVERSATION)], chat_template=TEMPLATES[name], add_generation_prompt=True, **TOKENS
    )[0][0]
    assert render(TEMPLATES[name], CONVERSATION, TOKENS).text == expected


ENDLESS = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ '", "TemplateSyntaxError"),
        pytest.param(
            "{{ 'x' * 10 ** 10 }}",
            "MiB",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="memory is not limited there"),
        ),
        ("{% for i in range(99999) %}{{ 'x' * 100 }}{% endfor %}", "characters"),
    ],
)
def test_what_goes_too_far_is_an_obstacle(template, why):
    text = render(template, CONVERSATION, TOKENS)
    assert text.text is None
    assert why in text.obstacle


@pytest.mark.skipif(os.name == "nt", reason="the time to compute is not limited there")
def test_a_template_that_computes_without_end_is_ended(monkeypatch):
    monkeypatch.setattr(rendering, "COMPUTING", 1)
    assert "more time to compute" in render(ENDLESS, CONVERSATION, TOKENS).obstacle


def test_an_endless_template_is_ended(monkeypatch):
    monkeypatch.setattr(rendering, "SECONDS", 0.5)
    text = render(ENDLESS, CONVERSATION, TOKENS)
    assert text.text is None
    assert "more than 0.5 seconds" in text.obstacle
