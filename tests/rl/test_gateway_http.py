"""Agents that are programs of their own: the `openai` and `anthropic` SDKs, unmodified, against the gateway's door."""

import asyncio
import json
from contextlib import asynccontextmanager

import anthropic
import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arcforge.chat.tokenizer import Tokenizer
from arcforge.clients.scripted import ScriptedTokenEngine
from arcforge.core.errors import EngineError, UserError
from arcforge.core.messages import Message, Sampling, Thinking, ToolSpec, turn_seed
from arcforge.core.protocols import CompletionRequest
from arcforge.rl.gateway import Gateway
from arcforge.rl.gateway_answers import as_completion, as_message
from arcforge.rl.gateway_http import GatewayDoor, serve
from arcforge.serve.chat_schema import ChatBody
from arcforge.serve.http import encoded
from arcforge.serve.messages_schema import MessagesBody

TOKENIZER = Tokenizer.train(["be brief what is two and three the answer is now add think of it"] * 4, 320)
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
OPENAI_TOOL = {"type": "function", "function": {"name": "add", "parameters": PARAMETERS}}
ANTHROPIC_TOOL = {"name": "add", "input_schema": PARAMETERS}
SYSTEM, USER = "be brief", "what is two and three"
OPENING = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]


def turn(*parts):
    """Ids from control tokens by name and text."""
    return [i for p in parts for i in ([TOKENIZER.id(p)] if p in TOKENIZER.control else TOKENIZER.encode(p))]


CALL = turn("think of it", "</think>", "now", "<tool_call>", "add", "<arg_key>", "a", "</arg_key>", "<arg_value>", "2")
CALL += turn("</arg_value>", "</tool_call>", "<|observation|>")
ANSWER = turn("it is", "</think>", "the answer is 5", "<|user|>")


class Rollout:
    """A gateway over a script behind its door, and clients of it; r0 is open."""

    def __init__(self, gateway, engine, url):
        self.gateway, self.engine, self.url = gateway, engine, url
        self.http = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)
        self.openai = openai.AsyncOpenAI(
            base_url=f"{url}/rollouts/r0/v1",
            api_key="none",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False, timeout=10),
        )
        self.claude = anthropic.AsyncAnthropic(
            base_url=f"{url}/rollouts/r0",
            api_key="none",
            max_retries=0,
            http_client=anthropic.DefaultAsyncHttpxClient(trust_env=False, timeout=10),
        )

    async def ask(self, messages, **more):
        more = {"model": "gpt-x", "tools": [OPENAI_TOOL], **more}
        return await self.openai.chat.completions.create(messages=messages, **more)

    async def ask_claude(self, messages, **more):
        thinking = {"type": "enabled", "budget_tokens": 1024}
        more = {"model": "claude-x", "max_tokens": 100, "system": SYSTEM, "tools": [ANTHROPIC_TOOL], **more}
        return await self.claude.messages.create(messages=messages, thinking=thinking, **more)

    async def forks(self):
        answer = await self.http.delete("/rollouts/r0")
        assert answer.status_code == 200
        return answer.json()["forks"]

    async def close(self):
        await self.http.aclose()
        await self.openai.close()
        await self.claude.close()


@asynccontextmanager
async def rollout(*turns, fixed=None, engine=None):
    left = list(turns)
    engine = engine or ScriptedTokenEngine(lambda prompt, sampling: left.pop(0), version=4)
    gateway = Gateway(engine, TOKENIZER, 2000)
    async with serve(GatewayDoor(gateway)) as url:
        talk = Rollout(gateway, engine, url)
        opened = await talk.http.post("/rollouts/r0", json=fixed)
        assert opened.status_code == 200 and opened.json()["openai_base_url"] == f"{url}/rollouts/r0/v1"
        assert opened.json()["anthropic_base_url"] == f"{url}/rollouts/r0"
        yield talk
        await talk.close()


def flat(spans):
    return [i for span in spans for i in span["ids"]]


async def ours(*turns):
    """What the gateway records of an agent of our own that holds the same conversation."""
    left = list(turns)
    gateway = Gateway(ScriptedTokenEngine(lambda prompt, sampling: left.pop(0), version=4), TOKENIZER, 2000)
    gateway.open("r0")
    messages = [Message(role=m["role"], content=m["content"]) for m in OPENING]
    while left:
        request = CompletionRequest(
            messages=tuple(messages),
            tools=(ToolSpec(name="add", parameters=PARAMETERS),),
            thinking=Thinking(),
            sampling=Sampling(max_tokens=100),
            session="r0",
        )
        messages += [(await gateway.complete(request)).message, Message(role="tool", content="5")]
    return [[span.model_dump() for span in fork] for fork in gateway.close("r0")]


REASONING = {
    "as the SDK's object": lambda message: message,
    "as reasoning_content": lambda message: as_dict(message, reasoning_content=message.reasoning),
    "left out": lambda message: as_dict(message, name="planner"),
    "empty": lambda message: as_dict(message, reasoning_content=""),
}


def as_dict(message, **more):
    calls = [{"id": c.id, "type": "function", "function": c.function.model_dump()} for c in message.tool_calls or ()]
    return {"role": "assistant", "content": message.content, "tool_calls": calls, **more}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("sent_back", REASONING)
def test_openai_an_agent_with_tools_is_recorded_like_one_of_ours(sent_back, stream):
    async def agent():
        async with rollout(CALL, CALL, ANSWER) as talk:
            messages = list(OPENING)
            for _ in range(2):
                message = await streamed(talk, messages) if stream else await whole(talk, messages)
                (call,) = message.tool_calls
                assert json.loads(call.function.arguments) == {"a": 2} and message.content == "now"
                assert message.reasoning == "think of it"
                messages += [REASONING[sent_back](message), {"role": "tool", "tool_call_id": call.id, "content": "5"}]
            last = await talk.ask(messages)
            assert last.choices[0].finish_reason == "stop" and last.choices[0].message.content == "the answer is 5"
            assert last.model == "gpt-x" and last.usage.prompt_tokens == len(talk.engine.prompts[2])
            assert last.usage.completion_tokens == len(ANSWER)
            assert last.usage.completion_tokens_details.reasoning_tokens == len(turn("it is"))
            forks = await talk.forks()
        assert forks == await ours(CALL, CALL, ANSWER)
        assert len(forks) == 1 and flat(forks[0]) == talk.engine.prompts[2] + ANSWER

    async def whole(talk, messages):
        answer = await talk.ask(messages)
        assert answer.choices[0].finish_reason == "tool_calls"
        return answer.choices[0].message

    async def streamed(talk, messages):
        chunks = [c async for c in await talk.ask(messages, stream=True, stream_options={"include_usage": True})]
        deltas = [c.choices[0].delta for c in chunks if c.choices]
        assert chunks[-2].choices[0].finish_reason == "tool_calls" and chunks[-1].usage.completion_tokens == len(CALL)
        message = {
            "role": "assistant",
            "content": "".join(d.content or "" for d in deltas),
            "reasoning": "".join(getattr(d, "reasoning", None) or "" for d in deltas),
            "tool_calls": [call.model_dump() for d in deltas for call in d.tool_calls or ()],
        }
        return openai.types.chat.ChatCompletionMessage.model_validate(message)

    asyncio.run(agent())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("thinking_sent_back", [True, False])
def test_anthropic_an_agent_with_tools_is_recorded_like_one_of_ours(thinking_sent_back, stream):
    async def agent():
        async with rollout(CALL, CALL, ANSWER) as talk:
            messages = [{"role": "user", "content": USER}]
            for _ in range(2):
                said = await answered(talk, messages)
                thought, text, call = said.content
                assert thought.thinking == "think of it" and text.text == "now" and call.input == {"a": 2}
                assert said.stop_reason == "tool_use" and said.usage.output_tokens == len(CALL)
                kept = said.content if thinking_sent_back else said.content[1:]
                result = {"type": "tool_result", "tool_use_id": call.id, "content": "5"}
                messages += [{"role": "assistant", "content": kept}, {"role": "user", "content": [result]}]
            last = await answered(talk, messages)
            assert last.stop_reason == "end_turn" and last.content[-1].text == "the answer is 5"
            assert last.usage.input_tokens == len(talk.engine.prompts[2]) and last.model == "claude-x"
            forks = await talk.forks()
        assert forks == await ours(CALL, CALL, ANSWER)

    async def answered(talk, messages):
        if not stream:
            return await talk.ask_claude(messages)
        said = talk.claude.messages.stream(
            model="claude-x",
            max_tokens=100,
            system=SYSTEM,
            tools=[ANTHROPIC_TOOL],
            messages=messages,
            thinking={"type": "enabled", "budget_tokens": 1024},
        )
        async with said as events:
            return await events.get_final_message()

    asyncio.run(agent())


PIECES = [[i] for i in TOKENIZER.control.values()] + [
    turn(word) for word in ("add", "a", "2", '{"b": [1.0, NaN]}', " ")
]
PIECES += [CALL, ANSWER, [7, 200, 255]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8), st.booleans())
def test_whatever_the_model_says_comes_back_as_the_same_turn(pieces, kept):
    """Through either API's JSON and back: a turn, malformed or not, never forks when an agent merely repeats it."""
    sampled = [i for piece in pieces for i in piece]

    async def hold(body, told, follow):
        left = [sampled, ANSWER]
        gateway = Gateway(ScriptedTokenEngine(lambda prompt, sampling: left.pop(0)), TOKENIZER, 2000)
        session = gateway.open("r")
        for _ in range(2):
            asked = parsed(body).turn(TOKENIZER)
            request = CompletionRequest(messages=asked.messages, tools=asked.tools, thinking=asked.thinking)
            answer = json.loads(encoded(told(await session.sample(request), parsed(body))))
            body = {**body, "messages": [*body["messages"], *follow(answer)]}
        return gateway.close("r")

    def parsed(body):
        return (MessagesBody if "max_tokens" in body else ChatBody).model_validate(body)

    def follow_openai(answer):
        message = answer["choices"][0]["message"]
        message = message if kept else {k: v for k, v in message.items() if not k.startswith("reasoning")}
        return [message, {"role": "tool", "content": "5", "tool_call_id": "x"}]

    def follow_anthropic(answer):
        blocks = [block for block in answer["content"] if kept or block["type"] != "thinking"]
        result = {"type": "tool_result", "tool_use_id": "x", "content": "5"}
        return [{"role": "assistant", "content": blocks}, {"role": "user", "content": [result]}]

    body = {"messages": OPENING, "tools": [OPENAI_TOOL]}
    told = lambda sampled, body: as_completion(sampled, body, {}, TOKENIZER)  # noqa: E731
    assert len(asyncio.run(hold(body, told, follow_openai))) == 1
    claude = {"messages": [{"role": "user", "content": USER}], "tools": [ANTHROPIC_TOOL], "max_tokens": 100}
    claude["thinking"] = {"type": "enabled"}
    assert len(asyncio.run(hold(claude, lambda sampled, body: as_message(sampled, "x"), follow_anthropic))) == 1


def test_an_agent_that_changes_its_history_forks_with_the_reason():
    async def agent():
        async with rollout(CALL, CALL, ANSWER, ANSWER) as talk:
            first = (await talk.ask(OPENING)).choices[0].message
            result = {"role": "tool", "tool_call_id": "x", "content": "5"}
            second = (await talk.ask([*OPENING, first, result])).choices[0].message
            edited = {**as_dict(first), "content": "nothing of the kind"}
            await talk.ask([*OPENING, edited, result, second, result])
            await talk.ask([*OPENING, {"role": "user", "content": "a summary"}])
            kept, drifted, shortened = await talk.forks()
        assert flat(kept) == talk.engine.prompts[1] + CALL
        assert flat(drifted) == talk.engine.prompts[2] + ANSWER and drifted[0]["mask_reason"] == "drift"
        assert flat(shortened) == talk.engine.prompts[3] + ANSWER and shortened[0]["mask_reason"] == "context"

    asyncio.run(agent())


def test_parallel_requests_of_one_rollout_are_each_recorded_once_on_their_own_branch():
    """A main agent and its helpers at the same time; their second turns go on where their first ones ended."""

    class Slow:
        running = 0
        prompts = []

        async def generate(self, prompt_ids, sampling, session=""):
            Slow.running += 1
            assert Slow.running == 1, "the requests of a rollout are answered one after the other"
            self.prompts.append(list(prompt_ids))
            await asyncio.sleep(0.02)
            Slow.running -= 1
            answer = CALL if prompt_ids.count(TOKENIZER.id("<|assistant|>")) == 1 else ANSWER
            script = ScriptedTokenEngine(lambda prompt, sampling: answer, version=4)
            return await script.generate(prompt_ids, sampling, session)

    async def helper(talk, number):
        messages = [{"role": "user", "content": f"think of {number}"}]
        message = (await talk.ask(messages)).choices[0].message
        messages += [as_dict(message), {"role": "tool", "tool_call_id": "x", "content": f"{number}"}]
        assert (await talk.ask(messages)).choices[0].message.content == "the answer is 5"

    async def agent():
        async with rollout(engine=Slow()) as talk:
            await asyncio.gather(*(helper(talk, number) for number in range(4)))
            forks = await talk.forks()
        assert len(forks) == 4 and all([s["source"] for s in fork] == ["prompt", "model"] * 2 for fork in forks)
        second_prompts = [flat(fork[:3]) for fork in forks]
        assert sorted(flat(fork[:1]) for fork in forks) + sorted(second_prompts) == sorted(
            p for p in talk.engine.prompts if p.count(TOKENIZER.id("<|assistant|>")) == 1
        ) + sorted(p for p in talk.engine.prompts if p.count(TOKENIZER.id("<|assistant|>")) == 2)
        assert len({tuple(flat(fork)) for fork in forks}) == 4

    asyncio.run(agent())


def test_the_owner_decides_how_turns_are_sampled_and_whether_they_think():
    asked = []

    def answer(prompt, sampling):
        asked.append(sampling)
        return turn("the answer", "<|user|>")

    fixed = {"temperature": 0.7, "top_p": 0.9, "seed": 5, "thinking": {"type": "disabled"}}

    async def agent():
        async with rollout(fixed=fixed, engine=ScriptedTokenEngine(answer)) as talk:
            said = (await talk.ask(OPENING, temperature=0, max_tokens=7)).choices[0].message
            assert said.content == "the answer" and said.reasoning is None
            await talk.ask_claude([{"role": "user", "content": "now"}], extra_body={"temperature": 0, "top_k": 3})
            await talk.ask(OPENING, top_p=0.1, seed=1, extra_body={"top_k": 20, "min_p": 0.1})
            unknown = await talk.http.post("/rollouts/r1", json={"temprature": 1})
            assert unknown.status_code == 400 and "temprature" in unknown.json()["error"]["message"]
        assert all((s.temperature, s.top_p, s.top_k, s.min_p) == (0.7, 0.9, 0, 0) for s in asked)
        assert [s.max_tokens for s in asked[:2]] == [7, 100]
        assert [s.seed for s in asked] == [turn_seed(5, 0), turn_seed(5, 1), turn_seed(5, 2)]
        assert all(prompt[-1] == TOKENIZER.id("</think>") for prompt in talk.engine.prompts)

    asyncio.run(agent())


def test_malformed_turns_token_ids_and_counts_are_told():
    broken = turn("it", "</think>", "<tool_call>", "add", "<arg_key>", "a", "<|observation|>")

    async def agent():
        async with rollout(broken, broken, ANSWER) as talk:
            choice = (await talk.ask(OPENING)).choices[0]
            assert choice.finish_reason == "stop" and "add" in choice.problem
            assert (await talk.ask_claude([{"role": "user", "content": "now"}])).stop_reason == "end_turn"
            told = await talk.ask(OPENING, logprobs=True, extra_body={"return_token_ids": True})
            assert told.prompt_token_ids == talk.engine.prompts[2] and told.choices[0].token_ids == ANSWER
            assert told.choices[0].weight_versions == [{"version": 4, "start": 0, "end": len(ANSWER)}]
            assert len(told.choices[0].logprobs.content) == len(ANSWER)
            counted = await talk.claude.messages.count_tokens(
                model="x", system=SYSTEM, messages=[{"role": "user", "content": USER}], tools=[ANTHROPIC_TOOL]
            )
            assert counted.input_tokens == len(talk.engine.prompts[0])

    asyncio.run(agent())


def test_a_full_context_is_said_in_the_words_that_agents_know():
    async def agent():
        async with rollout(CALL) as talk:
            with pytest.raises(openai.BadRequestError, match="this model's maximum context length is 2000 tokens"):
                await talk.ask([{"role": "user", "content": "what is two " * 2000}])
            with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
                await talk.ask_claude([{"role": "user", "content": "what is two " * 2000}])
            assert [model.id async for model in talk.openai.models.list()] == ["arcforge"]
            assert await talk.forks() == []

    asyncio.run(agent())


REFUSED = [
    {"n": 2},
    {"stop": ["x"]},
    {"tool_choice": "required"},
    {"logprobs": True, "top_logprobs": 3},
    {"logit_bias": {"5": 1}},
    {"extra_body": {"min_p": 0.1}},
    {"temperature": -1},
    {"messages": []},
    {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": "{"}}]}]},
]


def test_openai_what_cannot_be_recorded_is_refused():
    async def agent():
        async with rollout() as talk:
            for asked in REFUSED:
                with pytest.raises(openai.BadRequestError) as refused:
                    await talk.ask(**{"messages": OPENING, **asked})
                assert refused.value.body["type"] == "invalid_request_error" and refused.value.body["message"]
            assert await talk.forks() == [] and not talk.engine.prompts

    asyncio.run(agent())


def test_anthropic_what_cannot_be_recorded_is_refused():
    refusable = [{"stop_sequences": ["x"]}, {"tool_choice": {"type": "any"}}, {"extra_body": {"top_k": 5}}]

    async def agent():
        async with rollout() as talk:
            for asked in [*refusable, {"messages": [{"role": "nobody", "content": ""}]}]:
                with pytest.raises(anthropic.BadRequestError) as refused:
                    await talk.ask_claude(**{"messages": [{"role": "user", "content": USER}], **asked})
                assert refused.value.body["type"] == "error"
                assert refused.value.body["error"]["type"] == "invalid_request_error"
            assert await talk.forks() == [] and not talk.engine.prompts

    asyncio.run(agent())


def test_a_rollout_that_is_not_open_is_not_found_and_one_is_opened_once():
    async def agent():
        async with rollout(ANSWER) as talk:
            assert (await talk.http.post("/rollouts/r0")).status_code == 409
            message = (await talk.ask(OPENING)).choices[0].message
            with pytest.raises(openai.BadRequestError, match="answer already given"):
                await talk.ask([*OPENING, message])
            assert len(await talk.forks()) == 1
            with pytest.raises(openai.NotFoundError, match="'r0' is not open"):
                await talk.ask(OPENING)
            with pytest.raises(anthropic.NotFoundError) as missing:
                await talk.ask_claude([{"role": "user", "content": USER}])
            assert missing.value.body["error"]["type"] == "not_found_error"
            assert (await talk.http.delete("/rollouts/r0")).status_code == 404
            assert (await talk.http.post("/rollouts/r0/v1/embeddings")).status_code == 404

    asyncio.run(agent())


@pytest.mark.parametrize("error", [EngineError("connection reset"), RuntimeError("out of memory")])
def test_a_failed_engine_is_503_and_the_request_can_be_sent_again(error):
    def fails_twice(prompt, sampling):
        failures.append(1)
        if len(failures) < 3:
            raise error
        return ANSWER

    failures = []

    async def agent():
        async with rollout(engine=ScriptedTokenEngine(fails_twice)) as talk:
            with pytest.raises(openai.InternalServerError, match=str(error)) as failed:
                await talk.ask(OPENING, stream=True)
            assert failed.value.status_code == 503
            with pytest.raises(anthropic.InternalServerError) as failed:
                await talk.ask_claude([{"role": "user", "content": USER}])
            assert failed.value.status_code == 503 and failed.value.body["error"]["type"] == "api_error"
            retrying = talk.openai.with_options(max_retries=2)
            answer = await retrying.chat.completions.create(model="x", messages=OPENING)
            assert answer.choices[0].message.content == "the answer is 5"
            assert len(await talk.forks()) == 1

    asyncio.run(agent())


class Stuck:
    """Answers once it is told to."""

    def __init__(self):
        self.asked, self.go, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def generate(self, prompt_ids, sampling, session=""):
        self.asked.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.left.set()
            raise
        return await ScriptedTokenEngine(lambda prompt, sampling: ANSWER).generate(prompt_ids, sampling)


def test_a_client_that_hangs_up_or_a_rollout_that_closes_leaves_nothing_half_recorded():
    async def agent():
        async with rollout(engine=(engine := Stuck())) as talk:
            hung_up = asyncio.create_task(talk.ask(OPENING))
            await engine.asked.wait()
            hung_up.cancel()
            await asyncio.wait_for(engine.left.wait(), 5)
            engine.asked.clear()
            late = asyncio.create_task(talk.ask(OPENING))
            await engine.asked.wait()
            assert await talk.forks() == []
            engine.go.set()
            with pytest.raises(openai.NotFoundError, match="not open"):
                await late

    asyncio.run(agent())


def test_leaving_answers_what_waits_and_frees_the_port():
    async def agent():
        engine = Stuck()
        gateway = Gateway(engine, TOKENIZER, 2000)
        gateway.open("r0")  # by the orchestrator itself
        async with serve(GatewayDoor(gateway)) as url:
            talk = Rollout(gateway, engine, url)
            waiting = asyncio.create_task(talk.ask(OPENING))
            await engine.asked.wait()
            with pytest.raises(UserError, match="cannot listen"):
                async with serve(GatewayDoor(gateway), port=int(url.rpartition(":")[2])):
                    pass
        with pytest.raises(openai.InternalServerError, match="the gateway is stopping"):
            await waiting
        await talk.close()
        async with serve(GatewayDoor(gateway), port=int(url.rpartition(":")[2])) as again:
            assert again == url

    asyncio.run(agent())
