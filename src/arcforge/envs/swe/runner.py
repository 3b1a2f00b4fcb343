"""The test runner inside the forked child: `runner.py NONCE` in a repository runs its test.py and reports every case.

It stands outside the directory that an agent can write, and reports values: whoever started it compares them with what it
knows and does not take the child's word for "passed". Standard library only; printed by the child's modules goes nowhere.

Report, one line of JSON on stdout: {"nonce", "cases": [[module, call, got, want], ...]} with call "" for a module that
could not be loaded or whose function raised. Exit code 0 iff every case passed.
"""

import ast
import json
import os
import sys

TEST_FILE = "test.py"
LARGEST = 10**9


def main():
    nonce = sys.argv.pop()
    dumps, write, leave = json.dumps, os.write, os._exit
    report = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    cases = run(TEST_FILE)
    write(report, dumps({"nonce": nonce, "cases": cases}).encode() + b"\n")
    leave(0 if all(call and type(got) is int and got == want for _, call, got, want in cases) else 1)


def run(path):
    """Cases of a test file, statement by statement: imports, assertions `f(x)==value`, anything else as it is."""
    cases, names, origin = [], {"__name__": "test"}, {}
    try:
        with open(path) as file:
            text = file.read()
        statements = ast.parse(text).body
    except BaseException:
        return [["test", "", None, None]]
    for statement in statements:
        module = "test"
        if isinstance(statement, ast.ImportFrom):
            module = statement.module
            origin.update({alias.asname or alias.name: module for alias in statement.names})
        compared = _compared(statement)
        try:
            if compared is None:
                exec(compile(ast.Module([statement], []), path, "exec"), names)
                continue
            name, call, want = compared
            module = origin.get(name, "test")
            values = [_value(call, path, names), _value(want, path, names)]
            cases.append([module, ast.get_source_segment(text, call), *values])
        except BaseException:
            cases.append([module, "", None, None])
    return cases


def _compared(statement):
    """(function name, call, value) of `assert name(...) == value`, None for another statement."""
    match statement:
        case ast.Assert(
            test=ast.Compare(left=ast.Call(func=ast.Name(id=name)) as call, ops=[ast.Eq()], comparators=[value])
        ):
            return name, call, value
    return None


def _value(node, path, names):
    """An int as it is, anything else (also a huge int) as a short text."""
    value = eval(compile(ast.Expression(node), path, "eval"), names)
    if type(value) is int:
        return value if -LARGEST < value < LARGEST else "huge"
    return repr(value)[:20]


if __name__ == "__main__":
    main()
