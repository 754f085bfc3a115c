from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from prmkit.data.chat import (
    check_tokenizer,
    encode_demonstration,
    encode_prompt,
    end_token_ids,
    read_demonstrations,
    token_ends,
)
from prmkit.data.types import Message, Prompt
from prmkit.errors import DataError, ModelError
from prmkit.models.tiny import make_tiny, tiny_tokenizer

CORPUS = [
    "How many apples are left? 12 - 5 = 7 apples.",
    "caf\u00e9 costs 3\u20ac \u2192 \U0001f600 ok",
    "\u6570\u5b66",
]


def byte_level() -> PreTrainedTokenizerBase:
    """A byte-level BPE with few merges, so that characters outside ASCII span tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn here') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    return tokenizer


def metaspace() -> PreTrainedTokenizerBase:
    """A decoder that strips the space before the first word, as SentencePiece models do."""
    words = ["<end>", "\u2581How", "\u2581are", "\u2581you", "?", "\u2581"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    backend.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def naive_ends(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> tuple[int, ...]:
    text = tokenizer.decode(ids, skip_special_tokens=True)
    ends = []
    for i in range(len(ids)):
        part = tokenizer.decode(ids[: i + 1], skip_special_tokens=True)
        while not text.startswith(part):
            part = part[:-1]
        ends.append(len(part))
    return tuple(ends)


def ask(*contents: str) -> Prompt:
    return Prompt(id="p7", messages=tuple(Message(role="user", content=c) for c in contents), answer="")


def test_the_prompt_goes_through_the_chat_template() -> None:
    tokenizer = byte_level()
    ids = encode_prompt(tokenizer, ask("How many?"))
    assert isinstance(ids, tuple)
    assert tokenizer.decode(ids) == "[user]How many?[assistant]"


def test_a_demonstration_is_the_prompt_then_the_completion_by_itself_then_the_end() -> None:
    tokenizer = tiny_tokenizer()
    # <pad> <eos> 0..9 + - = ; # ? space: 3 is 5, + is 12, 8 is 10, = is 14, ? is 17, 1 is 3, # is 16
    prompt_ids, completion_ids = encode_demonstration(tokenizer, ask("3+8=?"), "3+8=11#11")
    assert prompt_ids == (5, 12, 10, 14, 17)
    assert completion_ids == (5, 12, 10, 14, 3, 3, 16, 3, 3, 1)
    assert encode_prompt(tokenizer, ask("3+8=?")) == prompt_ids


def test_what_cannot_be_encoded_names_the_prompt() -> None:
    with pytest.raises(DataError, match=r"prompt p7: the model's tokenizer cannot encode it \(WordLevel"):
        encode_prompt(tiny_tokenizer(), ask("x"))
    with pytest.raises(DataError, match=r"prompt p7: .* cannot encode the completion 'eleven'"):
        encode_demonstration(tiny_tokenizer(), ask("3+8=?"), "eleven")
    system = Prompt(id="p8", messages=(Message(role="system", content="s"),), answer="")
    with pytest.raises(DataError, match=r"prompt p8: .*no system turn here"):
        encode_prompt(byte_level(), system)


def test_a_character_that_spans_tokens_exists_from_its_last_token() -> None:
    tokenizer = byte_level()
    ids = tokenizer("a\U0001f9ea!")["input_ids"]  # the test tube is four bytes: F0 9F A7 AA
    text, ends = token_ends(tokenizer, [*ids, tokenizer.eos_token_id])
    assert text == "a\U0001f9ea!"
    assert len(ids) > 3
    assert ends == (1,) * (len(ids) - 2) + (2, 3, 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text, 12 - 5 = 7",
        "\u6570\u5b66\u6570\u5b66 \U0001f600\U0001f9ea\u20ac\u00e9",
        "\ufffd\ufffd x",
        "a\r\n\n b",
    ],
)
def test_ends_equal_naive_decoding_at_every_cut(text: str) -> None:
    tokenizer = byte_level()
    ids = tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
    for cut in range(len(ids) + 1):
        for some in (ids[:cut], ids[cut:]):  # both ends may fall inside a character
            decoded, ends = token_ends(tokenizer, some)
            assert decoded == tokenizer.decode(some, skip_special_tokens=True)
            assert ends == naive_ends(tokenizer, some)
            assert list(ends) == sorted(ends)
            assert (ends[-1] if ends else 0) == len(decoded)


def test_ends_of_random_tokens_equal_naive_decoding() -> None:
    tokenizer = byte_level()
    for seed in range(20):
        ids = [(seed * 977 + i * i * 131 + i * 37) % len(tokenizer) for i in range(40)]
        assert token_ends(tokenizer, ids)[1] == naive_ends(tokenizer, ids)


def test_a_decoder_that_strips_the_first_space() -> None:
    tokenizer = metaspace()
    # "How" "are" "you" "?": 3, then with a space 7, 11, 12; the end token adds nothing
    assert token_ends(tokenizer, [1, 2, 3, 4, 0]) == ("How are you?", (3, 7, 11, 12, 12))
    # An end token in front, which is skipped: the window then begins with it
    ids = [0, 2, 0, 3, 5, 1]
    assert token_ends(tokenizer, ids)[1] == naive_ends(tokenizer, ids)


def test_one_end_per_character_of_the_tiny_tokenizer() -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer("3+8=11;11+5=16#16")["input_ids"] + [tokenizer.eos_token_id]
    assert token_ends(tokenizer, ids) == ("3+8=11;11+5=16#16", (*range(1, 18), 17))


class CountingTokenizer:
    """Counts the tokens that are decoded."""

    def __init__(self, inner: PreTrainedTokenizerBase) -> None:
        self.inner, self.decoded = inner, 0

    def decode(self, ids: list[int], **options: bool) -> str:
        self.decoded += len(ids)
        return str(self.inner.decode(ids, **options))


def test_ends_decode_a_bounded_number_of_tokens_for_each_token() -> None:
    tokenizer = byte_level()
    ids = tokenizer("12 - 5 = 7 \U0001f9ea " * 300)["input_ids"]
    counting = CountingTokenizer(tokenizer)
    _, ends = token_ends(counting, ids)  # type: ignore[arg-type]
    assert len(ends) == len(ids) > 2000
    # The whole once; then per token the piece before and the window, of at most four tokens each here, and the closing
    assert counting.decoded < 8 * len(ids)


@pytest.mark.parametrize(("configured", "expected"), [([4, 1], (1, 4)), (3, (1, 3)), (None, (1,))])
def test_end_tokens_come_from_the_tokenizer_then_from_the_generation_config(
    tmp_path: Path, configured: int | list[int] | None, expected: tuple[int, ...]
) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_tiny(tmp_path, seed=0, size="micro"))
    model.generation_config.eos_token_id = configured
    assert end_token_ids(model, tiny_tokenizer()) == expected


def test_a_tokenizer_without_template_or_end_token_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    check_tokenizer(tokenizer, "m")
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"^m: the tokenizer has no chat template; add chat_template\.jinja"):
        check_tokenizer(tokenizer, "m")
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r"^m: the tokenizer has no end token"):
        check_tokenizer(tokenizer, "m")


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_demonstrations_in_each_form(tmp_path: Path) -> None:
    user, system, reply = (
        {"role": role, "content": text}
        for role, text in (("user", "2+3?"), ("system", "Be brief."), ("assistant", "5"))
    )
    path = write(
        tmp_path / "d.jsonl",
        {"prompt": "2+3?", "completion": "5"},
        {"prompt": [system, user], "completion": [reply], "id": "mine", "answer": "5"},
        {"messages": [system, user, reply]},
    )
    short = Message(role="user", content="2+3?")
    long = (Message(role="system", content="Be brief."), short)
    assert read_demonstrations(path) == [
        (Prompt(id="d.jsonl:1", messages=(short,), answer=""), "5"),
        (Prompt(id="mine", messages=long, answer="5"), "5"),
        (Prompt(id="d.jsonl:3", messages=long, answer=""), "5"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q"}, "expected the fields 'prompt' and 'completion', or 'messages'"),
        ({"prompt": 3, "completion": "a"}, "field 'prompt' must be a list"),
        ({"prompt": "q", "completion": ""}, "field 'completion' is blank"),
        ({"prompt": [], "completion": "a"}, "field 'prompt' must be a list"),
        ({"messages": []}, "field 'messages' must be a list"),
        ({"messages": ["q"]}, "turn 1 of 'messages' is no object"),
        ({"messages": [{"role": "human", "content": "q"}]}, "turn 1 of 'messages' has role 'human'; use one of"),
        ({"messages": [{"role": "user"}]}, "turn 1 of 'messages': no field 'content'"),
        ({"messages": [{"role": "user", "content": "q"}]}, "the last turn is the user's"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "no turn comes before the completion"),
        ({"prompt": "q", "completion": [{"role": "assistant", "content": "a"}] * 2}, "'completion' has 2 turns"),
    ],
)
def test_a_bad_demonstration_is_named(tmp_path: Path, row: object, message: str) -> None:
    path = write(tmp_path / "d.jsonl", {"prompt": "q", "completion": "a"}, row)
    with pytest.raises(DataError) as error:
        read_demonstrations(path)
    assert str(error.value).startswith(f"{path}:2: ")
    assert message in str(error.value)
