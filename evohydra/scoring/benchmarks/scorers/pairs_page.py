"""A page on which a person chooses between two pictures, again and again; it needs no network and saves a file."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image

LARGEST = 768  # pixels of a side on the page


@dataclass(frozen=True)
class Pair:
    """A picture beside the reference for the same prompt and seed; `name` says nothing about which is which."""

    name: str
    prompt: str
    reference: Image.Image
    picture: Image.Image

    @property
    def reference_is_left(self) -> bool:
        """As good as random, and the same each time."""
        return int(self.name, 16) % 2 == 0

    def score(self, choice: str) -> float:
        """1 where `choice` is the picture, 0 where it is the reference, 0.5 for a tie."""
        if choice == "tie":
            return 0.5
        return float((choice == "right") == self.reference_is_left)


def pairs_page(pairs: Sequence[Pair]) -> str:
    """The page as HTML, with all pictures inside."""
    shown = [
        {
            "pair": pair.name,
            "prompt": pair.prompt,
            "left": _packed(pair.reference if pair.reference_is_left else pair.picture),
            "right": _packed(pair.picture if pair.reference_is_left else pair.reference),
        }
        for pair in pairs
    ]
    data = json.dumps(shown, ensure_ascii=False).replace("</", "<\\/")  # a prompt cannot end the script
    return PAGE.replace("PAIRS", data)


def _packed(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((LARGEST, LARGEST))
    packed = BytesIO()
    small.save(packed, "WEBP", quality=92)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Which picture fits the prompt better?</title>
<style>
:root { color-scheme: light dark; } body { font: 16px system-ui, sans-serif; margin: 1rem auto; max-width: 70rem;
text-align: center; } #pictures { display: flex; gap: 1rem; } #pictures button { flex: 1; padding: .5rem; }
#pictures img { width: 100%; image-rendering: pixelated; } #pictures .chosen { outline: 4px solid #2a9d4a; }
img[data-large] { image-rendering: auto !important; } #prompt { font-size: 1.3rem; min-height: 2em; }
button { font: inherit; }
</style>
<h1>Which picture fits the prompt better?</h1>
<p id="prompt"></p>
<div id="pictures"><button id="left"><img alt="left"></button><button id="right"><img alt="right"></button></div>
<p><button id="back">Back</button> <button id="tie">No difference (space)</button> <button id="next">Next</button></p>
<p id="progress"></p>
<p><button id="save">Save choices.json</button><br>Click a picture, or press an arrow key. Then put the saved file where
evohydra said, and give its command again.</p>
<script>
const pairs = PAIRS;
const key = "evohydra " + pairs.map(p => p.pair).join("").slice(0, 64) + pairs.length;
const element = id => document.getElementById(id);
let choices = {}, at = 0;
try { choices = JSON.parse(localStorage.getItem(key)) || {}; } catch (error) { choices = {}; }
function show() {
  const pair = pairs[at];
  element("prompt").textContent = pair.prompt;
  for (const side of ["left", "right"]) {
    const image = element(side).firstChild;
    image.onload = () => image.toggleAttribute("data-large", image.naturalWidth >= 256);
    image.src = pair[side];
    element(side).classList.toggle("chosen", choices[pair.pair] === side);
  }
  const done = Object.keys(choices).length;
  element("progress").textContent = `Pair ${at + 1} of ${pairs.length} (${pair.pair}), ${done} chosen`;
}
function move(step) { at = Math.min(Math.max(at + step, 0), pairs.length - 1); show(); }
function choose(choice) {
  choices[pairs[at].pair] = choice;
  try { localStorage.setItem(key, JSON.stringify(choices)); } catch (error) { /* kept until the page is closed */ }
  move(1);
}
for (const choice of ["left", "right", "tie"]) element(choice).onclick = () => choose(choice);
element("back").onclick = () => move(-1);
element("next").onclick = () => move(1);
element("save").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(choices, null, 1)], {type: "application/json"}));
  link.download = "choices.json";
  link.click();
};
document.onkeydown = event => {
  const choice = {ArrowLeft: "left", ArrowRight: "right", " ": "tie"}[event.key];
  if (choice) { event.preventDefault(); choose(choice); }
};
show();
</script></html>
"""
