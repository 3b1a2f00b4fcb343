"""Chat templates of GLM-5's kind with any frame around their tools, as another maker's checkpoint folder holds one."""

import json
from pathlib import Path

from arcforge.chat.frame import COMPACT, OUR_FRAME, ToolsFrame
from arcforge.chat.tokenizer import Tokenizer

BODY = """\
[gMASK]<sop>
{%- if tools -%}
  {{- BEFORE -}}
  {%- for tool in tools -%}
    {{- (tool if WRAPPED else tool.function) | tojson(separators=SEPARATORS) -}}
    {{- AFTER if loop.last else BETWEEN -}}
  {%- endfor -%}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'assistant' -%}
    <|assistant|></think>{{ message.content }}
    {%- for call in message.tool_calls -%}
      <tool_call>{{ call.function.name }}
      {%- for key, value in call.function.arguments.items() -%}
        <arg_key>{{ key }}</arg_key><arg_value>
        {{- value if value is string else value | tojson(separators=ARGUMENT) }}</arg_value>
      {%- endfor -%}
      </tool_call>
    {%- endfor -%}
  {%- else -%}
    <|{{ message.role }}|>{{ message.content }}
  {%- endif -%}
{%- endfor -%}
"""
FRAME = ToolsFrame(
    before="<|system|>Callable things, <tools></tools> around them:\n<tools>\n",
    between="\n\n",
    after="\n</tools>\nCall one by <tool_call>its name</tool_call>. ",
    wrapped=True,
    separators=(", ", ": "),
    argument_separators=COMPACT,
)


def template(frame: ToolsFrame) -> str:
    values = {
        "BEFORE": json.dumps(frame.before),
        "BETWEEN": json.dumps(frame.between),
        "AFTER": json.dumps(frame.after),
        "WRAPPED": str(frame.wrapped),
        "SEPARATORS": repr(frame.separators),
        "ARGUMENT": repr(frame.argument_separators),
    }
    text = BODY
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def reloaded(tokenizer: Tokenizer, folder: Path, frame: ToolsFrame = FRAME) -> Tokenizer:
    """The tokenizer from a folder whose template has this frame."""
    assert frame != OUR_FRAME
    tokenizer.save(folder)
    (folder / "chat_template.jinja").write_text(template(frame))
    return Tokenizer.load(folder)
