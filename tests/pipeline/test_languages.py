"""Texts without spaces between words, and accents that distinguish words: what docs/languages.md names works."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from shardtrain.cli.main import main
from shardtrain.errors import CorpusFormatError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.plan import plan_build
from shardtrain.vectorize.spaces import lack_spaces

CHINESE = {1: "这个水壶很好用我喜欢", 2: "这个水壶太慢坏了不推荐"}
DIVIDED = {1: "这个 水壶 很 好 用 我 喜欢", 2: "这个 水壶 太 慢 坏 了 不 推荐"}
NOTE = "the texts have nearly no spaces between words"


def write(path: Path, texts: dict[int, str]) -> Path:
    rows = [f"{1 + i % 2},{texts[1 + i % 2]}第{i}次" for i in range(60)]
    path.write_text("\n".join(["label,text", *rows, ""]), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "texts",
    [
        ["这个水壶很好用", "太慢坏了", "不推荐这个水壶"],
        ["这个水壶很好用，我喜欢。 下次再买，谢谢你们！", "太慢了，坏了。不推荐给朋友们。"],
        ["このやかんはとても使いやすいです。", "遅くて壊れました。"],
        ["กาต้มน้ำนี้ใช้ดีมาก ฉันชอบมากจริงๆ", "ช้าเกินไปแล้วก็เสียเร็วมาก ไม่แนะนำ"],
        ["កំសៀវនេះល្អណាស់ខ្ញុំចូលចិត្ត", "យឺតពេកហើយខូច"],
        ["这个 iPhone15 水壶很好用我喜欢推荐给大家", "我买了 Sony 的耳机非常喜欢"],
        ["ACGTTTGACCATGACCATTACGGATTACCAGT", "TTGACCATGACCATTACGGATTACCAGTACGT"],
        ["", "  ", "这个水壶很好用我喜欢", "太慢坏了不推荐给你"],
    ],
    ids=["Chinese", "with punctuation", "Japanese", "Thai", "Khmer", "with Latin names", "codes", "with blank texts"],
)
def test_texts_without_spaces_are_recognised(texts: list[str]) -> None:
    assert lack_spaces(texts)


@pytest.mark.parametrize(
    "texts",
    [
        ["This kettle works well.", "Too slow, and broken."],
        ["good", "bad", "awful"],
        ["Donaudampfschifffahrtsgesellschaft", "schlecht", "gut"],
        ["这个 水壶 很 好 用 我 喜欢", "太 慢 坏 了 不 推荐"],
        ["このやかん は とても 使い やすい です", "遅く て 壊れ まし た"],
        ["กาต้มน้ำ นี้ ใช้ ดี มาก", "ช้า เกิน ไป แล้ว ก็ เสีย เร็ว"],
        ["이 주전자는 정말 좋아요", "너무 느리고 고장났어요"],
        ["आधुनिक मानक हिन्दी किताब अच्छी है", "बहुत धीमा और टूटा हुआ"],
        ["The word 水壶 means kettle in Chinese.", "I like 咖啡 very much"],
        [],
        ["", " "],
    ],
    ids=[
        "English",
        "single words",
        "long words",
        "divided Chinese",
        "divided Japanese",
        "divided Thai",
        "Korean",
        "Hindi",
        "Chinese words in English",
        "no text",
        "blank texts",
    ],
)
def test_other_texts_are_not(texts: list[str]) -> None:
    assert not lack_spaces(texts)


def test_the_error_and_the_plan_name_the_analyzer_that_works(tmp_path: Path) -> None:
    corpus = write(tmp_path / "zh.csv", CHINESE)
    with pytest.raises(CorpusFormatError, match=r"nearly no spaces.* n-grams of characters") as caught:
        build(corpus, tmp_path / "words", BuildOptions(workers=1))
    assert caught.value.on_command_line.endswith("with --analyzer char")
    assert "--min-df 1" not in caught.value.on_command_line
    assert any(
        NOTE in line and "--analyzer char" in line for line in plan_build(corpus, tmp_path / "x", BuildOptions()).notes
    )
    options = BuildOptions(workers=1, analyzer="char")
    assert build(corpus, tmp_path / "characters", options).num_features > 20
    assert not any(NOTE in line for line in plan_build(corpus, tmp_path / "x", options).notes)


@pytest.mark.parametrize("vectorizer", ["ngram", "count", "hashing", "sequence"])
@pytest.mark.parametrize(("texts", "said"), [(CHINESE, True), (DIVIDED, False)], ids=["undivided", "divided"])
def test_a_build_says_in_one_line_that_texts_have_no_spaces(
    vectorizer: str, texts: dict[int, str], said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write(tmp_path / "zh.csv", texts)
    command = ["build", str(corpus), "--vectorizer", vectorizer]
    main([*command, "--out", str(tmp_path / "out")])
    lines = [line for line in capsys.readouterr().err.splitlines() if NOTE in line]
    assert len(lines) == said
    assert all("--analyzer char" in line for line in lines)
    assert main([*command, "--out", str(tmp_path / "plan"), "--dry-run"]) == 0
    assert (NOTE in capsys.readouterr().out) == said


def test_a_bad_row_is_left_to_the_pass_that_reports_it(tmp_path: Path) -> None:
    corpus = write(tmp_path / "zh.csv", CHINESE)
    corpus.write_text(corpus.read_text(encoding="utf-8") + "1\n", encoding="utf-8")
    assert not any(NOTE in line for line in plan_build(corpus, tmp_path / "x", BuildOptions()).notes)
    with pytest.raises(CorpusFormatError, match="line 62: 1 column"):
        build(corpus, tmp_path / "out", BuildOptions(workers=1))


def test_words_that_are_rare_are_told_the_usual_remedy(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [f"{1 + i % 2},{''.join(rng.choices('abcdefghij', k=9))}" for i in range(40)]
    (tmp_path / "rare.csv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(CorpusFormatError) as caught:
        build(tmp_path / "rare.csv", tmp_path / "out", BuildOptions(workers=1))
    assert "--min-df 1" in caught.value.on_command_line
    assert "--analyzer" not in caught.value.on_command_line


@pytest.mark.parametrize(
    ("twins", "analyzer"),
    [
        (("das ist schon so", "das ist schön so"), "word"),
        (("hace un ano papa", "hace un año papá"), "word"),
        (("ちち かき はは", "ぢぢ がぎ ばば"), "word"),
        (("ma ban", "má bạn"), "word"),
        (("что мои", "что мой"), "word"),
        (("सजा राज", "सज़ा राज़"), "char_wb"),
        (("ไมใช", "ไม่ใช่"), "char"),
    ],
    ids=["German", "Spanish", "Japanese", "Vietnamese", "Russian", "Hindi", "Thai"],
)
@pytest.mark.parametrize("strip_accents", ["unicode", "none"])
def test_accents_tell_texts_apart_only_where_they_are_kept(
    strip_accents: str, twins: tuple[str, str], analyzer: str, tmp_path: Path
) -> None:
    (tmp_path / "twins.csv").write_text("\n".join(f"{i % 2},{twins[i % 2]}" for i in range(20)), encoding="utf-8")
    options = BuildOptions(workers=1, strip_accents=strip_accents, analyzer=analyzer, validation_fraction=0)
    build(tmp_path / "twins.csv", tmp_path / "out", options)
    with open_shards(tmp_path / "out") as shards:
        x, y = shards.train.rows(0, shards.train.num_examples)
    rows = x.toarray()
    first, second = rows[y == 0], rows[y == 1]
    assert (first == first[0]).all()
    assert (second == second[0]).all()
    assert (first[0] == second[0]).all() == (strip_accents == "unicode")
