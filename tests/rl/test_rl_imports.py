import subprocess
import sys


def test_what_runs_beside_the_trainer_never_loads_torch():
    """Gateway, orchestrator, buffer and the numpy parts start in milliseconds and print nothing."""
    modules = ["buffer", "diagnostics", "gateway", "orchestrator", "publish", "samples", "advantages"]
    names = ", ".join([f"arcforge.rl.{name}" for name in modules] + ["arcforge.launch.local"])
    code = f"import sys, {names}\nraise SystemExit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert not found.stdout and not found.stderr
