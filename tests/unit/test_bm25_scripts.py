"""BM25 in the scripts of the world: the right passage comes first, with and without spaces between words."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pytest

from hf_negmine.base.schema import FloatArray
from hf_negmine.teachers import BM25Teacher
from hf_negmine.teachers.words import words_of

TEXTS = {
    "Chinese": {
        "太阳能板怎么清洗": "清洗太阳能板每年需要两次。",
        "酸面包需要多久发酵": "酸面包需要一整夜的时间发酵。",
        "水獭吃什么": "水獭主要吃鱼。",
        "小提琴弦为什么会断": "小提琴弦在张力过大时会断裂。",
        "报税截止日期": "报税的截止日期在春季。",
    },
    "Japanese": {
        "カワウソは何を食べますか": "カワウソは主に魚を食べて暮らしている。",
        "太陽光パネルの掃除の頻度": "太陽光パネルは年に二回、掃除が必要です。",
        "バイオリンの弦が切れる理由": "張力が強すぎるとバイオリンの弦は切れる。",
        "確定申告の締め切り": "確定申告の締め切りは春です。",
    },
    "Korean": {
        "수달은 무엇을 먹나요": "수달이 먹는 것은 주로 물고기다.",
        "태양광 패널을 청소하는 횟수": "태양광 패널의 청소는 일 년에 두 번 한다.",
        "바이올린의 줄이 끊어지는 이유": "바이올린 줄은 너무 팽팽하면 끊어진다.",
        "세금 신고의 마감일": "세금신고는 마감일이 봄이다.",
    },
    "Thai": {
        "นากกินอะไรเป็นอาหาร": "นากกินปลาเป็นอาหารหลัก",
        "แผงโซลาร์เซลล์ต้องล้างบ่อยแค่ไหน": "ควรล้างแผงโซลาร์เซลล์ปีละสองครั้ง",
        "ทำไมสายไวโอลินขาด": "สายไวโอลินขาดเมื่อตึงเกินไป",
        "กำหนดยื่นภาษีวันไหน": "กำหนดยื่นภาษีอยู่ในฤดูใบไม้ผลิ",
    },
    "Khmer": {"ត្រីរស់នៅឯណា": "ត្រីរស់នៅក្នុងទឹក។", "ផ្កាឈូកមានពណ៌អ្វី": "ផ្កាឈូកមានពណ៌ផ្កាឈូកឬស។"},
    "Burmese": {"ငါးများဘယ်မှာနေသလဲ": "ငါးများသည်ရေထဲတွင်နေသည်။", "ကြာပန်းအရောင်": "ကြာပန်း၏အရောင်သည်ပန်းရောင်ဖြစ်သည်။"},
    "Hindi": {
        "पानी में कौन सा जानवर मछली खाता है": "ऊदबिलाव पानी का जानवर है और मछली खाता है।",
        "सौर पैनल की सफाई": "सौर पैनल साल में दो बार साफ करें, सफाई ज़रूरी है।",
        "वायलिन के तार क्यों टूटते हैं": "ज़्यादा तनाव से वायलिन के तार टूटते हैं।",
    },
    "Bengali": {"ভোঁদড় কী খায়": "ভোঁদড় প্রধানত মাছ খায়।", "বেহালার তার কেন ছেঁড়ে": "বেশি টানে বেহালার তার ছেঁড়ে।"},
    "Arabic": {
        "ماذا يأكل ثعلب الماء": "يأكل ثَعْلَب الماءِ السمك.",
        "متى الموعد النهائي للضرائب": "الموعد النهائي للضرائب في الربيع.",
        "لماذا تنقطع أوتار الكمان": "تنقطع أوتار الكمان عند الشد الزائد.",
    },
    "Hebrew": {
        "מה אוכלת לוטרה": "לוּטְרָה אוכלת בעיקר דגים.",
        "מועד הגשת דוח המס": "מועד הגשת הדוח הוא באביב, ואז משלמים את המס.",
    },
    "mixed": {
        "iPhone手机壳推荐": "最好的iPhone手机壳是硅胶的。",
        "Python入門の本": "Python入門に良い本を紹介する。",
        "ｉＰａｄ 价格": "iPad的价格下降了。",
        "how do otters sleep": "Otters sleep in dens, 水獭睡在洞穴里。",
    },
}
EVERYTHING = [passage for texts in TEXTS.values() for passage in texts.values()]


def scores_of(teacher: BM25Teacher, queries: list[str], passages: list[str]) -> FloatArray:
    return teacher.index(pa.array(passages, pa.large_string())).scores(queries)


@pytest.mark.parametrize("language", ["english", None, "german", "arabic", "hindi"])
@pytest.mark.parametrize("script", TEXTS)
def test_the_right_passage_comes_first_among_all_languages(script: str, language: str | None) -> None:
    queries = list(TEXTS[script])
    scores = scores_of(BM25Teacher(language), queries, EVERYTHING)
    assert [EVERYTHING[best] for best in scores.argmax(axis=1)] == list(TEXTS[script].values())
    assert len(np.unique(scores, axis=0)) == len(queries), "no two queries have the same list"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iPhone手机壳", ["iphone", "手机", "机壳"]),
        ("2024年の水、火", ["2024", "年の", "の水", "火"]),
        ("データ ﾃﾞｰﾀ", ["デー", "ータ", "デー", "ータ"]),
        ("ＡＢＣ１２３", ["abc123"]),
        ("𠮷野家へ", ["𠮷野", "野家", "家へ"]),
        ("葛\N{VARIATION SELECTOR-17}城", ["葛城"]),
        ("한국어를", ["한국", "국어", "어를"]),
        ("ที่นี่", ["ที่นี่"]),
        ("ត្រី។", ["ត្រី"]),
        ("བོད་སྐད།", ["བོད", "སྐད"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("ශ්\N{ZERO WIDTH JOINER}රී", ["ශ්රී"]),
        ("العَرَبِيَّة كتـاب", ["العربية", "كتاب"]),
        ("שָׁלוֹם", ["שלום"]),
        ("می\N{ZERO WIDTH NON-JOINER}خواهم", ["می", "خواهم"]),
        ("İstanbul'da", ["istanbul", "da"]),
        ("😀 smile ❤️ 1️⃣", ["smile"]),
        ("", []),
    ],
)
def test_the_words_of_a_text(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize("text", ["Crème brûlée déjà vu", "Ångström, naïve façade", "Việt Nam", "ガイドの本", "한국어"])
def test_composed_and_decomposed_text_has_the_same_words(text: str) -> None:
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    assert words_of(decomposed) == words_of(text)


def test_the_unknown_language_of_a_script_without_spaces_is_told_that_it_needs_none() -> None:
    with pytest.raises(ValueError, match=r"language 'chinese' is not .* \(Chinese, Japanese, Thai\), which need none"):
        BM25Teacher("chinese")
