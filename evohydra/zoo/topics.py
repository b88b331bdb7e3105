"""The texts of the tiny encoders' example: English and Japanese words about six topics, mixed with words about none."""

import random
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "ja"]
SEED = 17
COUNT = 2400  # texts of the benchmark, in turn English and Japanese
WORDS: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "animals": ("dog", "cat", "horse", "bird", "fish", "cow", "sheep", "rabbit", "fox", "bear"),
        "food": ("bread", "rice", "soup", "cheese", "apple", "egg", "cake", "salt", "onion", "noodle"),
        "weather": ("rain", "snow", "wind", "cloud", "storm", "sun", "fog", "ice", "heat", "thunder"),
        "school": ("teacher", "lesson", "book", "pencil", "exam", "class", "homework", "student", "desk", "chalk"),
        "travel": ("train", "ticket", "hotel", "airport", "map", "suitcase", "bus", "harbour", "bridge", "road"),
        "music": ("song", "piano", "guitar", "drum", "violin", "choir", "concert", "melody", "flute", "rhythm"),
    },
    "ja": {
        "animals": ("犬", "猫", "馬", "鳥", "魚", "牛", "羊", "兎", "狐", "熊"),
        "food": ("パン", "米", "汁", "チーズ", "林檎", "卵", "菓子", "塩", "玉葱", "麺"),
        "weather": ("雨", "雪", "風", "雲", "嵐", "太陽", "霧", "氷", "暑さ", "雷"),
        "school": ("先生", "授業", "本", "鉛筆", "試験", "教室", "宿題", "生徒", "机", "黒板"),
        "travel": ("電車", "切符", "旅館", "空港", "地図", "鞄", "バス", "港", "橋", "道"),
        "music": ("歌", "ピアノ", "ギター", "太鼓", "バイオリン", "合唱", "演奏会", "旋律", "笛", "拍子"),
    },
}
OTHERS: dict[Language, tuple[str, ...]] = {
    "en": ("the", "today", "very", "some", "near", "often", "old", "new", "we", "they", "like", "see"),
    "ja": ("その", "今日", "とても", "少し", "近く", "よく", "古い", "新しい", "私", "彼ら", "好き", "見る"),
}
TOPICS = tuple(WORDS["en"])
LANGUAGES: tuple[Language, ...] = ("en", "ja")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Topical:
    """A text and its topic."""

    text: str
    topic: str


def vocabulary() -> list[str]:
    """All tokens, special ones first."""
    words = [word for language in WORDS for topic in TOPICS for word in WORDS[language][topic]]
    return [*SPECIAL, *words, *(word for language in OTHERS for word in OTHERS[language])]


def draw(rng: random.Random, language: Language) -> Topical:
    """A text of a random topic: two of its words, one of each of two other topics, and three of none."""
    topic, *others = rng.sample(TOPICS, 3)
    words = [*rng.sample(WORDS[language][topic], 2), *(rng.choice(WORDS[language][other]) for other in others)]
    words += rng.sample(OTHERS[language], 3)
    rng.shuffle(words)
    return Topical(" ".join(words), topic)


def benchmark() -> list[Topical]:
    """The texts of `tiny_topics`, each once."""
    rng = random.Random(SEED)
    found: dict[str, Topical] = {}
    while len(found) < COUNT:
        text = draw(rng, LANGUAGES[len(found) % 2])
        found.setdefault(text.text, text)
    return list(found.values())


def draw_unseen(rng: random.Random, language: Language, held_out: frozenset[str]) -> Topical:
    """A text that is none of `held_out`, in whatever order its words stand."""
    while True:
        text = draw(rng, language)
        if words_of(text.text) not in held_out:
            return text


def words_of(text: str) -> str:
    """The words of a text in one order, so that texts of the same words are equal."""
    return " ".join(sorted(text.split()))
