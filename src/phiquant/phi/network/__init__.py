"""What decoders consist of, as values, and what a token meets on its way through them.

parts         linear layers, norms, attention, feed-forward parts, blocks: a network is a value
channels      what feeds a layer's input channels
linear        products with weights that are read in bands
norm          RMSNorm, and its reverse
rope          rotary position embedding
attention, attention_gradient   one sequence's attention, and its reverse
gate          the gate of a feed-forward part, and its reverse
stack         a block's attention over stacked sequences, and its reverse
held_block    a block with its weights at hand, there and back
"""
