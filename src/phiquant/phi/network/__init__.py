"""What decoders consist of, as values, and what a token meets on its way through them.

parts        linear layers, norms, attention, feed-forward parts, blocks: a network is a value
phi3         the network of `Phi3ForCausalLM`, from its dimensions
attention    a block's attention over stacked sequences, and its reverse
feed_forward the gate of a feed-forward part, and its reverse
norm         RMSNorm, and its reverse
rope         rotary position embedding
"""
