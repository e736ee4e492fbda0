"""LoRA adapters: a model that is a base and low-rank changes of its matrices.

names      how PEFT calls files and tensors
settings   adapter_config.json
product    the change of one matrix, added to rows as they are read
adapted    a checkpoint with an adapter over it
"""
