"""The engine behind HTTP: token ids for training, OpenAI chat, control of weights. One process per engine."""
