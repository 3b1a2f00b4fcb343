import subprocess
import sys

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.data.batches import Batch
from arcforge.data.packing import Tokens, pack

TEXT_FILES = "sources filters dedup baselines packing pieces drills retrieval repositories conversations mixing".split()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 3), st.integers(0, 99))
def test_targets_are_the_tokens_ahead_in_the_same_document(sizes, depth, seed):
    flags = torch.rand(sum(sizes), generator=torch.Generator().manual_seed(seed)) < 0.7
    documents, start = [], 0
    for size in sizes:
        documents.append(Tokens.of(range(start, start + size), flags[start : start + size].numpy()))
        start += size
    rows = pack(documents, 8, "best_fit", pad_id=999)
    batch = Batch.of(rows)
    assert batch.ids_BT.dtype == batch.document_ids_BT.dtype == torch.int64
    targets = batch.targets(depth)
    for n in range(len(rows)):
        for t in range(8):
            u = t + depth
            same = u < 8 and rows.document_ids[n, t] == rows.document_ids[n, u]
            expected = int(rows.ids[n, u]) if same and rows.loss_mask[n, u] else -100
            assert int(targets[n, t]) == expected


def test_a_batch_does_not_share_memory_with_its_rows():
    rows = pack([Tokens.of([1, 2, 3, 4])], 4, "truncate")
    batch = Batch.of(rows)
    rows.ids[:] = 0
    rows.loss_mask[:] = False
    assert batch.ids_BT.tolist() == [[1, 2, 3, 4]] and batch.loss_mask_BT.tolist() == [[False, True, True, True]]


def test_text_files_do_not_load_torch():
    code = (
        "import sys\n"
        + "".join(f"import arcforge.data.{name}\n" for name in TEXT_FILES)
        + "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
