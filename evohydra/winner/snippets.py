"""How a winner is loaded, in a few lines of Python for its model card."""

PLACE = 'place = "."  # this directory, or OWNER/NAME on the hub'
TRANSFORMERS = """\
from transformers import {model}, {words}

{place}
{reader} = {words}.from_pretrained(place)
model = {model}.from_pretrained(place, dtype="auto")
"""
ANSWER = """\
inputs = tokenizer("YOUR PROMPT", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))
"""
ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

{place}
# base_model_name_or_path in adapter_config.json; a directory there is one of the machine that wrote the adapter.
base = "THE BASE"
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), place)
"""
VECTORS = """\
vectors = model(**tokenizer(["YOUR TEXT"], return_tensors="pt")).last_hidden_state  # (text, token, width)
"""
PIPELINE = """\
from diffusers import DiffusionPipeline

{place}
pipeline = DiffusionPipeline.from_pretrained(place)
"""
PICTURE = """\
pipeline("YOUR PROMPT").images[0].save("picture.png")
"""
STORED_ONCE = (
    "The layers of this checkpoint are stored once (`format=shared`). "
    "`python -m evohydra.winner.formats.shared . OUT` writes it as a plain Mistral to OUT, which is loaded so:\n\n"
)


def loading(library: str, task: str, format: str = "plain") -> str | None:
    """Markdown with the lines that load and ask a winner; None where we do not know how it is loaded.

    library, task: of its family, in the words of the hub. format: the name of the format in which it is written.
    """
    if library == "diffusers":
        return _block(PIPELINE, PICTURE)
    if library == "peft":
        return _block(ADAPTER, ANSWER)
    if library != "transformers":
        return None
    match task:
        case "text-generation":
            told = STORED_ONCE if format == "shared" else ""
            return told + _block(_transformers("AutoModelForCausalLM", "AutoTokenizer"), ANSWER)
        case "feature-extraction":
            return _block(_transformers("AutoModel", "AutoTokenizer"), VECTORS)
        case "image-text-to-text":
            return _block(_transformers("AutoModelForImageTextToText", "AutoProcessor"), "")
    return None


def _transformers(model: str, words: str) -> str:
    reader = words.removeprefix("Auto").lower()
    return TRANSFORMERS.format(model=model, words=words, reader=reader, place="{place}")


def _block(loads: str, asks: str) -> str:
    return f"```python\n{loads.format(place=PLACE)}{asks}```"
