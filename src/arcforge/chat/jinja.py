"""The chat template as Jinja, for tools that read it from a checkpoint folder (transformers, vLLM, SGLang).

It says what `chat.template.render` says, token for token, and takes GLM-5's switches: `enable_thinking` (default true) and
`clear_thinking` (default true; false preserves the reasoning of every turn). One difference cannot be avoided: tools that
work on text turn a message that spells a control token into that token, `render` keeps it as text.
"""

CHAT_TEMPLATE = """\
{%- set compact = (',', ':') -%}
{%- set ns = namespace(last_user=-1) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{%- set ns.last_user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- macro text(content) -%}
  {%- if content is string -%}{{- content -}}
  {%- elif content is iterable -%}
    {%- for part in content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
[gMASK]<sop>
{%- if tools -%}
  {{- '<|system|># Tools<tools>' -}}
  {%- for tool in tools -%}
    {%- set spec = tool.function if tool.function is defined else tool -%}
    {{- '{"name":' ~ spec.name | tojson(ensure_ascii=False) -}}
    {%- if spec.description -%}{{- ',"description":' ~ spec.description | tojson(ensure_ascii=False) -}}{%- endif -%}
    {%- if spec.parameters -%}
      {{- ',"parameters":' ~ spec.parameters | tojson(ensure_ascii=False, separators=compact) -}}
    {%- endif -%}
    {{- '}' if loop.last else '}\\n' -}}
  {%- endfor -%}
  {{- '</tools>' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {{- '<|system|>' ~ text(message.content) -}}
  {%- elif message.role == 'user' -%}
    {{- '<|user|>' ~ text(message.content) -}}
  {%- elif message.role == 'tool' -%}
    {%- if loop.first or loop.previtem.role != 'tool' -%}{{- '<|observation|>' -}}{%- endif -%}
    {{- '<tool_response>' ~ text(message.content) ~ '</tool_response>' -}}
  {%- elif message.role == 'assistant' -%}
    {%- set kept = loop.index0 > ns.last_user or (clear_thinking is defined and not clear_thinking) -%}
    {{- '<|assistant|>' -}}
    {%- if kept and message.reasoning_content is string -%}
      {{- '<think>' ~ message.reasoning_content.strip() -}}
    {%- endif -%}
    {{- '</think>' ~ text(message.content).strip() -}}
    {%- for call in message.tool_calls or [] -%}
      {%- set called = call.function if call.function is defined else call -%}
      {{- '<tool_call>' ~ called.name -}}
      {%- for key, value in called.arguments.items() -%}
        {{- '<arg_key>' ~ key ~ '</arg_key><arg_value>' -}}
        {{- value if value is string else value | tojson(ensure_ascii=False, separators=compact) -}}
        {{- '</arg_value>' -}}
      {%- endfor -%}
      {{- '</tool_call>' -}}
    {%- endfor -%}
    {%- if loop.last and not add_generation_prompt -%}
      {{- '<|observation|>' if message.tool_calls else '<|user|>' -}}
    {%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|></think>' if enable_thinking is defined and not enable_thinking else '<|assistant|><think>' -}}
{%- endif -%}
"""
