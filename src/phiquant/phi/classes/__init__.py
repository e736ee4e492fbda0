"""One small module a model class: the network that its configuration describes, and its names."""
