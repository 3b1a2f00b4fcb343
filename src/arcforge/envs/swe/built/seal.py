"""A pytest plugin, copied into the grader's sandbox: the last line of a suite that came to its end. Standard library only.

What it says it read from its standard input before anything else ran, so that a program under test that prints a whole suite's log and
leaves does not know it. It is kept in a closure: a program that looks for it among all objects of its process finds it.
"""

import os
import sys


def _sealed():
    word, out = sys.stdin.readline().strip(), os.dup(1)

    def pytest_unconfigure(config):
        config.get_terminal_writer().flush()
        sys.stdout.flush()
        os.write(out, f"\n{word}\n".encode())

    return pytest_unconfigure


pytest_unconfigure = _sealed()
