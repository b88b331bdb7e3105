"""Chat templates of mergekit configurations: by name, written out, or the one that most models have."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from evohydra.families import tokenizers
from evohydra.files import Plain

AUTO = "auto"
LEAST = 20  # characters of one that is written out
logger = logging.getLogger(__name__)

ALPACA = (
    "{{ messages | selectattr('role', 'equalto', 'system') | map(attribute='content') | list | last | default('') "
    "| trim }}{{ '\\n\\n' }}"
    "{% set headings = {'user': 'Instruction', 'assistant': 'Response', 'user_context': 'Input'} %}"
    "{% for message in messages %}{% if message['role'] in headings %}"
    "{{ '### ' + headings[message['role']] + ':\\n' + message['content'] | trim }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{ '### Response:\\n' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
EXAONE = (  # with the spaces and empty lines that mergekit's has
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ ' ' * 8 + '[|system|][|endofturn|]\\n\\n' }}{% endif %}"
    "{{ '    [|' + message['role'] + '|]' + message['content'] + '\\n' + ' ' * 8 }}"
    "{{ ('' if message['role'] == 'user' else '[|endofturn|]') + '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '    [|assistant|]\\n' }}{% endif %}"
)
LLAMA3 = (  # with the empty line behind each message that mergekit's has
    "{% for message in messages %}{{ bos_token if loop.first else '' }}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim "
    "+ '<|eot_id|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL = (
    "{% set system = messages[0]['role'] == 'system' %}{% set turns = messages[1:] if system else messages %}"
    "{{ bos_token }}{% for message in turns %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('After an optional system message, roles have to alternate: user, assistant, user, ...') }}"
    "{% endif %}{% if message['role'] == 'user' %}"
    "{{ ' [INST] ' + (messages[0]['content'] + '\\n\\n' if loop.first and system else '') + message['content'] "
    "+ ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('Roles have to be user and assistant, but for a system message at the start') }}"
    "{% endif %}{% endfor %}"
)
NAMED: Mapping[str, str] = {
    "alpaca": ALPACA,
    "chatml": CHATML,
    "exaone": EXAONE,
    "llama3": LLAMA3,
    "mistral": MISTRAL,
}


def chat_template(config: Plain, directories: Sequence[Path]) -> str | None:
    """The template that a configuration asks for, None for the tokenizer's own; ValueError for a name of none.

    `directories` are those of all models, in the order in which the configuration names them: "auto" is the template
    that most of them have, of several the first.
    """
    wanted = config.get("chat_template")
    if wanted is None or wanted == "":
        return None
    if not isinstance(wanted, str):
        raise ValueError(f"chat_template: expected auto, one of {', '.join(NAMED)}, or a template, got {wanted!r}")
    if wanted == AUTO:
        return _most_common(directories)
    if wanted in NAMED:
        return NAMED[wanted]
    if len(wanted) < LEAST or "{" not in wanted:
        raise ValueError(f"chat_template: expected auto, one of {', '.join(NAMED)}, or a template, got {wanted!r}")
    return wanted


def _most_common(directories: Sequence[Path]) -> str | None:
    found: list[str] = []
    for directory in directories:
        if tokenizers.has_files(directory):
            template = tokenizers.load(directory).chat_template
            template = template.get("default") if isinstance(template, dict) else template
            found += [template.strip()] if template else []
    if not found:
        logger.warning("chat_template: auto, but none of the models has a chat template")
        return None
    return Counter(found).most_common(1)[0][0]
