"""SGLang servers as engines of the RL system: /generate, and control under SGLang's names.

    python -m sglang.launch_server --model-path MODEL [--enable-deterministic-inference]

Seeds are obeyed under --enable-deterministic-inference alone. Most builds tell one `weight_version` of an answer, read when it
ends. That is the version of all of its tokens only where no answer spans an update, and the two classes here see to it: an update
first interrupts what runs (pause_generation, mode abort), and the engine sends the interrupted request again, its tokens appended
to the prompt and its max_new_tokens shortened, which the server holds until generation continues. So the switch lies exactly
between two pieces, and keys and values are computed anew under the new weights. (mode in_place would let an answer span an update.)
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arcforge.clients.arcforge import HttpTokenEngine
from arcforge.clients.http import JsonClient, session_header
from arcforge.clients.token_client import HEALTH_TIMEOUT, PauseMode, PausingControl, Run, numbered, reported_runs
from arcforge.core.errors import UserError
from arcforge.core.messages import Sampling
from arcforge.core.runs import atomic_write
from arcforge.core.trajectory import TokenSpan


class Interruptions:
    """How many interruptions of a fleet have begun, and how many are over: told by its control, read by its engines.

    file: where the counts stand when control and engines are in different processes; one control writes it. Without a file both
    hold the same object.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file, self._begun, self._over = file, 0, 0
        self._read()

    @property
    def begun(self) -> int:
        self._read()
        return self._begun

    @property
    def over(self) -> int:
        self._read()
        return self._over

    def begin(self) -> None:
        self._write(self.begun + 1, self.over)

    def end(self) -> None:
        """All that have begun are over."""
        self._write(self.begun, self.begun)

    def _read(self) -> None:
        if self._file is not None and self._file.exists():
            self._begun, self._over = json.loads(self._file.read_text())

    def _write(self, begun: int, over: int) -> None:
        self._begun, self._over = begun, over
        if self._file is not None:
            atomic_write(self._file, json.dumps([begun, over]))


class SglangEngine(HttpTokenEngine):
    """One SGLang server. The model's own end ids stop an answer, and those that are asked for.

    interruptions: those that the control counts. An answer that ended in one is no end: the request is sent again.
    Without it, or when somebody else paused the server, the caller gets "abort". base_version: what weights are called that no
    update has named.
    """

    def __init__(
        self,
        base_url: str,
        timeout: float = 600.0,
        interruptions: Interruptions | None = None,
        base_version: int = 0,
    ) -> None:
        super().__init__(base_url, timeout)
        self._interruptions, self._base_version = interruptions or Interruptions(), base_version

    async def generate(
        self, prompt_ids: Sequence[int], sampling: Sampling, session: str = ""
    ) -> tuple[list[TokenSpan], str]:
        spans: list[TokenSpan] = []
        ids, left = list(prompt_ids), sampling.max_tokens
        while True:
            over = self._interruptions.over
            piece, finish = await super().generate(ids, sampling.model_copy(update={"max_tokens": left}), session)
            sampled = [i for span in piece for i in span.ids]
            spans, ids, left = _joined(spans, piece), ids + sampled, left - len(sampled)
            if finish != "abort" or self._interruptions.begun == over:
                return spans, finish
            # SGLang takes one more step after an abort, which may complete the answer.
            if sampled and sampled[-1] in sampling.stop_ids:
                return spans, "stop"
            if left <= 0:
                return spans, "length"

    def _body(self, prompt_ids: list[int], sampling: Sampling, request_id: str) -> dict[str, Any]:
        body = super()._body(prompt_ids, sampling, request_id)
        params = body["sampling_params"]
        params["sampling_seed"] = params.pop("seed")
        params.update(skip_special_tokens=False, no_stop_trim=True)
        if "cache_salt" in body:
            body["extra_key"] = body.pop("cache_salt")
        return body

    def _runs(self, meta: dict[str, Any], count: int) -> list[Run]:
        """Recent SGLang tells `weight_versions` of the tokens; before that, one version when the answer ends."""
        if not count:
            return []
        if "weight_versions" in meta:
            return reported_runs(meta["weight_versions"], self._number)
        return [Run(self._number(meta["weight_version"]), 0, count)]

    def _number(self, label: str | int) -> int:
        return numbered(label, self._base_version)

    def _headers(self, session: str) -> dict[str, str]:
        """X-SMG-Routing-Key is what SGLang's router keeps a session by."""
        headers = session_header(session)
        return {**headers, "x-smg-routing-key": session} if headers else {}

    async def score_batch(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """One request for each sequence; nothing is sampled."""
        return await asyncio.gather(*(self._score(list(ids)) for ids in batch))

    async def _score(self, ids: list[int]) -> list[float]:
        params = {"max_new_tokens": 0, "temperature": 1.0}
        body = {"input_ids": ids, "sampling_params": params, "return_logprob": True, "logprob_start_len": 0}

        def read(answer: Any) -> list[float]:
            told = answer["meta_info"]["input_token_logprobs"]
            if [row[1] for row in told] != ids:
                raise ValueError("input_token_logprobs are not those of input_ids")
            return [float(row[0]) for row in told[1:]]

        return await self._ask(self.path, body, read)


class SglangControl(PausingControl):
    """Control of SGLang servers. "keep" interrupts running requests, which the engine sends again (see the module); SGLang has no
    pause that waits: UserError."""

    def __init__(
        self, base_urls: Sequence[str], timeout: float = 600.0, interruptions: Interruptions | None = None
    ) -> None:
        super().__init__(base_urls, timeout)
        self._interruptions = interruptions or Interruptions()

    async def update_weights(self, folder: Path | str, version: int) -> None:
        await super().update_weights(folder, version)
        if not self._held:
            self._interruptions.end()

    async def resume(self) -> None:
        await super().resume()
        self._interruptions.end()

    async def _pause(self, engine: JsonClient, mode: PauseMode) -> None:
        if mode == "wait":
            raise UserError("pause wait: SGLang cannot; use keep or abort")
        if mode == "keep":
            self._interruptions.begin()
        await engine.post("/pause_generation", {"mode": "abort"})

    async def _load(self, engine: JsonClient, folder: str, version: int) -> None:
        """SGLang flushes its prefix cache itself; nothing runs, so it can."""
        body = {"model_path": folder, "weight_version": str(version), "flush_cache": True}
        await engine.post("/update_weights_from_disk", body)

    async def _resume(self, engine: JsonClient) -> None:
        await engine.post("/continue_generation", {})

    async def _health(self, engine: JsonClient) -> Any:
        await engine.get("/health", HEALTH_TIMEOUT)  # empty, but for its status
        label = (await engine.get("/model_info", HEALTH_TIMEOUT))["weight_version"]
        return {"version": None if label == "default" else int(label)}


def _joined(spans: list[TokenSpan], more: list[TokenSpan]) -> list[TokenSpan]:
    """Spans of two pieces of one answer; where the weights did not change between them, there is no boundary."""
    if not spans or not more or spans[-1].version != more[0].version:
        return spans + more
    last, first = spans[-1], more[0]
    merged = {"ids": last.ids + first.ids, "logprobs": last.logprobs + first.logprobs}
    return [*spans[:-1], last.model_copy(update=merged), *more[1:]]
