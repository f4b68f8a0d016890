"""A text corpus as numbers: count its words once, then write each paragraph as numbers of the commonest words.

    python examples/text_tokens.py tokens.jsonl

The corpus is Python's own language reference, as every Python has it for help().
"""

import re
import sys
from collections import Counter
from pydoc_data.topics import topics

from taktline import expand, keep, line, per_worker, read, write

VOCABULARY = 1_000  # words; 0 stands for all others
WORD = re.compile(r"[a-z_]+|[0-9]+|[^\sa-z_0-9]")


def paragraphs(topic):
    """One text, as many paragraphs as it has."""
    name, text = topic
    return [{"topic": name, "text": part} for part in text.split("\n\n")]


def has_words(paragraph):
    return any(character.isalpha() for character in paragraph["text"])


def tokens(paragraph):
    return paragraph | {"tokens": WORD.findall(paragraph["text"].lower())}


def words(paragraph):
    return paragraph["tokens"]


class Encode:
    """Words become numbers, the commonest 1. Built once in each worker."""

    def __init__(self, vocabulary):
        self.numbers = {word: number for number, word in enumerate(vocabulary, 1)}

    def __call__(self, paragraph):
        numbers = [self.numbers.get(word, 0) for word in paragraph["tokens"]]
        return {"topic": paragraph["topic"], "tokens": numbers}


split = line(expand(paragraphs), keep(has_words), tokens)


def main(target):
    counts = Counter()
    line(split, words, name="count").run(topics.items(), counts.update)
    vocabulary = [word for word, _ in counts.most_common(VOCABULARY)]
    encode = line(split, per_worker(Encode, vocabulary), name="encode")
    print(encode.run(topics.items(), write(target)))
    known = sum(number > 0 for paragraph in read(target) for number in paragraph["tokens"])
    print(
        f"{counts.total():,} tokens, {len(counts):,} different ones; {known / counts.total():.1%} are in the vocabulary"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
