"""How an artifact is run: a few lines of Python for onnxruntime-genai, as the model card has them.

The question goes through the model's chat template, which genai applies, where the artifact has
one.
"""

from pathlib import Path

from phiquant.phi.tokenizer.chat_templates import DEFAULT
from phiquant.phi.tokenizer.special_tokens import CompanionFiles

QUESTION = "'Why is the sky blue?'"
CONVERSATION = (
    f"tokenizer.apply_chat_template(json.dumps([{{'role': 'user', 'content': {QUESTION}}}]), "
    "add_generation_prompt=True)"
)
LINES = """
import json, onnxruntime_genai as og
model = og.Model('.')
tokenizer = og.Tokenizer(model)
prompt = tokenizer.encode({prompt})
options = og.GeneratorParams(model)
options.set_search_options(max_length=len(prompt) + 200)
generator = og.Generator(model, options)
generator.append_tokens(prompt)
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode(generator.get_sequence(0)[len(prompt):]))
"""


def command(path: Path) -> str:
    """The command that runs the artifact in `path`, typed there. Raises TokenizerError."""
    files = CompanionFiles.read(path)
    has_template = DEFAULT in dict(files.chat_templates)
    return f'python -c "{LINES.format(prompt=CONVERSATION if has_template else QUESTION)}"'
