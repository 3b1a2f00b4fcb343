"""One folder per operator; `naive.py` is the definition in plain PyTorch and the CPU path."""
