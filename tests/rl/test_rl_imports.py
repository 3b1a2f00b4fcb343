import subprocess
import sys


def test_what_runs_beside_the_trainer_never_loads_torch():
    """Gateway and its door, orchestrator, buffer and the numpy parts print nothing; so do the processes made of them."""
    modules = ["buffer", "diagnostics", "gateway", "gateway_http", "orchestrator", "publish", "samples", "advantages"]
    processes = ["arcforge.pipeline.orchestrator", "arcforge.pipeline.task_worker"]
    names = ", ".join([f"arcforge.rl.{name}" for name in modules] + ["arcforge.launch.local", *processes])
    code = f"import sys, {names}\nraise SystemExit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert not found.stdout and not found.stderr
