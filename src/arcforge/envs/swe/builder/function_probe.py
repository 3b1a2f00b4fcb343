"""A pytest plugin, copied beside the suite: which of the checkout's functions every test enters. Standard library only.

Writes {"places": [[file relative to the working directory, first line], ...], "tests": {test: [index of a place, ...]}} to the
file that ARCFORGE_PROBE names.
"""

import json
import os
import sys
import threading

ROOT = os.getcwd() + os.sep
entered = {}
places = {}
tests = {}


def trace(frame, event, argument):
    """Only calls: no local trace function is returned, so lines cost nothing."""
    code = frame.f_code
    entered[id(code)] = code


def pytest_runtest_logstart(nodeid, location):
    entered.clear()
    threading.settrace(trace)
    sys.settrace(trace)


def pytest_runtest_logfinish(nodeid, location):
    sys.settrace(None)
    threading.settrace(None)
    codes = {(code.co_filename, code.co_firstlineno) for code in list(entered.values())}
    own = sorted((name[len(ROOT) :], line) for name, line in codes if name.startswith(ROOT))
    tests[nodeid] = [places.setdefault(place, len(places)) for place in own]


def pytest_sessionfinish(session):
    with open(os.environ["ARCFORGE_PROBE"], "w") as file:
        json.dump({"places": list(places), "tests": tests}, file)
