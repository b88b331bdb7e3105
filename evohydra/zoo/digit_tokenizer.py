"""A CLIP tokenizer that knows the words of the captions in English, and their characters and numbers in Japanese."""

from collections.abc import Sequence

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from evohydra.zoo.digit_captions import ENDINGS, NOUNS, NUMBERS, OPENERS

LENGTH = 16
END = "</w>"  # a token that ends a word


class Merges:
    """The vocabulary of a byte-level BPE, and its merges in the order of their ranks."""

    def __init__(self) -> None:
        """Begin with the bytes."""
        letters = sorted(ByteLevel.alphabet())
        self.vocabulary = dict.fromkeys([*letters, *(letter + END for letter in letters)])
        self.pairs: dict[tuple[str, str], None] = {}

    def join(self, parts: Sequence[str]) -> str:
        """Add the merges that make one token of the parts, from left to right, and return it."""
        whole = parts[0]
        for part in parts[1:]:
            self.pairs[whole, part] = None
            whole += part
            self.vocabulary[whole] = None
        return whole

    def characters(self, text: str) -> list[str]:
        """Make each character of the text a token, inside of a word and at its end; return those of this text."""
        tokens = [self.join(list(spelled(character))) for character in text]
        last = spelled(text[-1])
        self.join([*last[:-1], last[-1] + END])
        return tokens


def spelled(text: str) -> str:
    """Return the text's UTF-8 bytes as the letters by which a byte-level BPE writes them."""
    (piece,) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return str(piece[0])


def build_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer; it pads to `LENGTH` with its last token, as CLIP's does."""
    merges = Merges()
    for group in (OPENERS["ja"], NOUNS["ja"], ENDINGS["ja"], *NUMBERS["ja"]):
        for character in sorted({c for text in group for c in text.replace("{}", "")}):
            merges.characters(character)
    for words in NUMBERS["ja"]:
        for word in words:
            tokens = merges.characters(word)
            merges.join(tokens)
            merges.join([*tokens[:-1], tokens[-1] + END])
    english = " ".join([*OPENERS["en"], *NOUNS["en"], *(word for words in NUMBERS["en"] for word in words)])
    for word in sorted({word for word in english.split() if word.isalpha()}):
        merges.join([*word[:-1], word[-1] + END])
    tokens = [*merges.vocabulary, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)}, merges=list(merges.pairs), model_max_length=LENGTH
    )
