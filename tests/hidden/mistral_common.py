"""Stands before the package of this name in commands that tests start: users do not have it.

`gguf` imports it wherever it is installed, which takes as long as a small command does.
"""

raise ImportError("mistral_common is hidden from commands that tests start")
