"""A program of its own, that `trials.tried` starts: what a file of a model says is done once, within bounds.

It imports little, so that it begins in a fraction of a second. The request is JSON on standard input, the answer JSON
on standard output: `{"length": ...}`, the largest number of characters or tokens, or `{"error": ...}`, why it failed.
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from contextlib import suppress


def bound(seconds: float, memory: int) -> None:
    """Let the system end this process after `seconds` of computing, and give it no more than `memory` bytes."""
    with suppress(ImportError, ValueError, OSError):  # Windows has no such limits; whoever started it counts the time
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        most = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def template_length(template: str, variables: Mapping[str, object]) -> int:
    """The length of what a chat template makes, in characters; transformers' own functions and tags are there."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 (jinja2's own way)

        def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, indent=None, **_: json.dumps(value, indent=indent)
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = time.strftime
    return len(environment.from_string(template).render(**variables))


def most_tokens(parts: Mapping[str, object], text: str) -> int:
    """Of a tokenizer's normalizer, pre-tokenizer, post-processor and decoder: the most that they make of `text`."""
    from tokenizers import Tokenizer

    model = {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], **parts, "model": model}
    tokenizer = Tokenizer.from_str(json.dumps(whole))
    normalizer, decoder = tokenizer.normalizer, tokenizer.decoder
    return max(
        len(normalizer.normalize_str(text)) if normalizer is not None else 0,
        len(tokenizer.encode(text).ids),
        len(decoder.decode(list(text))) if decoder is not None else 0,
    )


def main() -> None:
    """Answer the request."""
    request = json.load(sys.stdin)
    try:
        if request["what"] == "template":
            import jinja2.sandbox  # noqa: F401 (before the clock starts)

            bound(request["seconds"], request["memory"])
            length = template_length(request["template"], request["variables"])
        else:
            import tokenizers  # noqa: F401

            bound(request["seconds"], request["memory"])
            length = most_tokens(request["parts"], request["text"])
        answer: dict[str, object] = {"length": length}
    except MemoryError:
        answer = {"memory": True}
    except RecursionError:
        answer = {"error": "it is nested too deep"}
    except BaseException as error:  # what libraries in Rust raise is no Exception
        answer = {"error": f"{type(error).__name__}: {error}"[:500]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
