"""Task families over files that a user points to: GSM8K, HumanEval, MBPP, and problems with a LaTeX answer."""
