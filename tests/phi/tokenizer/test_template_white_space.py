"""A restated template means to an engine that trims nothing what the original means to Jinja's
trimming, which is how transformers renders.
"""

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phiquant.phi.tokenizer.template_white_space import explicit_white_space

TRIMMING = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
PLAIN = jinja2.Environment(keep_trailing_newline=True)

PIECES = (
    *("{% if x %}", "{%- if x -%}", "{%+ if x %}", "{% if x +%}", "{% endif %}", "{%- endif %}"),
    *("{% endif -%}", "{% for i in [1, 2] %}", "{% endfor %}", "{% raw %}", "{%- raw -%}"),
    *("{% endraw %}", "{%- endraw -%}", "{% set z = {'a': {'b': '%}'}} %}", "{{ z }}"),
    *("{{ y }}", "{{- y }}", "{{ y -}}", "{{-1}}", "{{- -1}}", "{{ '\n' }}", "{{ {'a': {}} }}"),
    *('{{ "}}" }}', "{{ 'it\\'s' }}", "{# c #}", "{#- c -#}", "{# %} +#}"),
    *("\n", "\n\n", "\r\n", "\r", " ", "   ", "\t", "\x0b", "\u00a0", "a", "é b\n", "'", "{", "}"),
)


def rendered(environment, template):
    return environment.from_string(template).render(x=1, y="Y", z="Z")


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10))
def test_any_template(pieces):
    template = "".join(pieces)
    try:
        expected = rendered(TRIMMING, template)
    except jinja2.TemplateError:
        return
    if template.count("raw") % 2:  # the library takes a raw block without an end at the very end
        return
    restated = explicit_white_space(template)
    assert rendered(PLAIN, restated) == expected
    assert rendered(TRIMMING, restated) == expected
    assert explicit_white_space(restated) == restated


def test_what_is_written():
    lines = "{% for m in messages %}\r\n    {{ m.role }}:\r\n  {% endfor %}\r\n{# end #}\r\n"
    assert explicit_white_space(lines) == (
        "{% for m in messages %}{{ '    ' }}{{ m.role }}:{{ '\\n' }}{% endfor %}"
    )
    line = "{{ bos_token }}{% if x %}<|user|>{{ x }}{% endif %}"
    assert explicit_white_space(line) == line


@pytest.mark.parametrize("broken", ["{{ 'a }}", "{% if x", "{# never", "{% raw %} x", "{{ (1 }}"])
def test_a_broken_template_stays_as_it_is(broken):
    template = f"  a\n{broken}\n"
    assert explicit_white_space(template) == template


def test_strings_that_never_end_take_no_long_time():
    """Twice as much takes about twice as long; a minute here would be a search at every quote."""
    template = "{{ " + "'\\" * 200_000
    assert explicit_white_space(template) == template
