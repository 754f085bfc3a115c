r"""What may stand around a plain number without changing it: currency signs, units, and the words that are none of them."""

from __future__ import annotations

import re

CURRENCY = "(?:[A-Z]{1,2}\\$|[$€£\u00a5₹₽₩৳฿]|Rs\\.?|USD|EUR|GBP|RMB|KES|Ksh\\.?)"
PERCENT = (
    "(?:%|\\\\(?:text|mathrm|mbox)\\{ ?(?:[Pp]er ?cent|\\\\?%) ?\\}"
    "|[Pp]er ?cent|[Pp]ercentage|[Pp]ct|[Pp]rozent|por ?ciento|pour ?cent|процент[\u0400-\u04ff]{0,2})"
)
_OTHER_LETTERS = (
    "\u0400-\u04ff\u0980-\u09e5\u0c00-\u0c65\u0e01-\u0e3e\u0e40-\u0e4e\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
)
"""Scripts that may join a unit to its number. Greek is none of them: its letters are variables and pi."""
_WORD = rf"[A-Za-z\u00c0-\u024f{_OTHER_LETTERS}][A-Za-z\u00c0-\u024f{_OTHER_LETTERS}.'-]+"
_JOINED = "(?:mm|cm|dm|km|mg|kg|ml|cl|min|hrs?|mph|ft|lbs?|oz|kJ|kW|Hz|Pa)(?![A-Za-z])"
_SHORT = "(?:mm|cm|dm|km|m|mg|kg|g|ml|cl|l|s|min|h|hr|ft|in|lb|oz)"
"""One letter, as in `5m`, is a variable unless it is clear that it is none, as in `5 m²` and `5 m/s`."""
UNIT = (
    r"(?P<degree> ?(?:\^ ?\{? ?\\circ ?\}?|\\degree|\u00b0)(?: ?[CF])?)"
    r"|(?P<latex_unit> ?\\(?:text|textbf|textit|textrm|mathrm|mbox)\{(?P<latex_words>[A-Za-z. ~/]+)\})"
    rf"|(?P<words> ?[{_OTHER_LETTERS}]{{1,12}}|(?: {_WORD}){{1,4}}| ?{_JOINED}| ?{_SHORT}(?= ?[\u00b2\u00b3/]))"
    rf"(?P<per> ?/ ?{_WORD}| ?/ ?{_SHORT}| per {_WORD})?"
)
"""Groups `degree`, `latex_unit` with its `latex_words`, and `words` with `per`."""

_ODD_PARTS = (
    "factorial factorials choose permute doubled tripled halved sevenths ninths eleventh elevenths twelfth twelfths sixteenth "
    "sixteenths twentieth twentieths thirtieth thirtieths"
)
ODD_PARTS = tuple(_ODD_PARTS.split())
"""Words after a number that surely make it another one, besides common ones that also count things: `3 dozen`, `5 quarters`."""
_POWERS = "lakh lakhs crore crores trillions bn mn mln mrd tn"
POWERS = tuple(_POWERS.split())
"""Of ten, besides the common ones."""
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron rho sigma tau upsilon phi chi omega "
    "varepsilon vartheta varphi"
)
_NO_VOWEL = re.compile("[b-df-hj-np-tv-z]{2,4}")
_FUNCTION = re.compile("(?:sin|cos|tan|cot)[abhnptuxy]?")
"""Two to four small letters that are more likely variables or a function than a unit; `y` is no vowel here."""
_SHORT_UNITS = (
    "mm cm dm km mg kg ml cl dl lb lbs ft hr hrs yr yrs yd yds wk wks mth mths mph kph kmh kmph kwh rpm bps kw hz khz mhz ghz kj "
    "kn db kb mb gb tb kbps mbps ms ns nm ly pt pts qt qts tsp tbsp tbs pcs pc pp sq cc cts ct hp pm st nd rd th ppm bbl cwt dry "
    "fly sky spy gym gyms myth try"
)
_KNOWN = frozenset(_SHORT_UNITS.split())
_ENGLISH = (
    "hundred thousand million billion trillion hundreds thousands millions billions dozen dozens score half halves third "
    "thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh eighth eighths ninth tenth tenths hundredth "
    "hundredths thousandth thousandths squared cubed times plus minus over divided mod modulo and or to by of is not "
    "percent base pi sqrt sin cos tan cot log ln exp inf infinity more less than"
)
_OTHERS = (
    "mil millones millón cien ciento cientos docena docenas mille milliard milliards douzaine cent tausend millionen milliarde "
    "milliarden dutzend тысяч тысяча тысячи миллион миллиона миллионов elfu laki und oder y o et ou или na au prozent procent "
    "porciento pourcent asilimia процент процентов"
)
_NOT_UNITS = frozenset((*_ENGLISH.split(), *ODD_PARTS, *POWERS, *_GREEK.split(), *_OTHERS.split(), "\u0438"))
"""Words that scale a number or belong to a formula, so they may not be dropped."""
_SCALES = re.compile(
    "[十百千万萬亿億兆半倍分割且或和与]|パー|พัน|ล้าน|หมื่น|แสน|ร้อย|โหล|হাজার|লক্ষ|লাখ|কোটি|শত|వేల|లక్ష|కోటి|మిలియన్|శాత"
)
"""The same in scripts that join a number with the word: ten, thousand, half, times, per cent, and, or."""


def is_unit(words: str) -> bool:
    """Whether words after a number may be dropped."""
    plain = re.sub("[~./]", " ", words).split()
    return not (
        _SCALES.search(words)
        or _NOT_UNITS.intersection(word.lower() for word in plain)
        or any((_NO_VOWEL.fullmatch(word) or _FUNCTION.fullmatch(word)) and word not in _KNOWN for word in plain)
    )
