"""The evaluation of one stage's checkpoint as a process of one thread:
`python -m arcforge.pipeline.evaluation_worker CONFIG.toml RUN_FOLDER STAGE`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from arcforge.core.errors import DISK, UserError
from arcforge.core.runs import RunFolder
from arcforge.pipeline.evaluate import write_part
from arcforge.pipeline.recipe import load_recipe
from arcforge.pipeline.workspace import Workspace


def main(arguments: list[str]) -> int:
    config, folder, stage = arguments
    torch.set_num_threads(1)
    try:
        write_part(Workspace(load_recipe(Path(config)), RunFolder(folder)), stage)
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DISK:
            raise
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
