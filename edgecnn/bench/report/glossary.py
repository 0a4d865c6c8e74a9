"""The words of a report in plain English; `docs/for-the-plant.md` explains the same ones."""

from __future__ import annotations

WORDS: tuple[tuple[str, str], ...] = (
    ("part", "one piece that is inspected; here: one picture of it"),
    ("class", "what a part can be called: the good class, or a kind of defect"),
    ("label", "what a person said the part is; the test compares decisions with it"),
    ("missed defect", "a part with a defect that was called good: it would leave the plant"),
    ("false alarm", "a good part that was called a defect: it would be sorted out for nothing"),
    ("test images", "pictures that were kept away from training; all counts of mistakes are of these"),
    (
        "expect up to … (95 % sure)",
        "the upper end of a 95 % interval: so few pictures were tested that, with many more parts like them, the true "
        "share may be as high; more test pictures bring it closer to what was counted",
    ),
    ("limit, budget", "the longest time that a part may take, such as 30 ms for 99 of 100 parts (30ms@p99)"),
    ("ms", "millisecond: a thousandth of a second"),
    ("p50, p90, p99, p99.9", "50, 90, 99 of 100, or 999 of 1,000 parts took at most so long"),
    (
        "bound (99 % sure)",
        "a few thousand parts were timed, not all that will ever come; the bound is the time below which 99 of 100 "
        "parts stay with 99 % certainty; the verdict compares it with the limit",
    ),
    ("PASS", "the bound is within the limit: fast enough, on this machine, as it was measured"),
    ("FAIL", "shown to be too slow, or not to be used for another reason that is given"),
    (
        "INCONCLUSIVE",
        "neither is shown: too few parts were timed, or something disturbed the machine; the report says what to do",
    ),
    ("score", "how sure the network is of a decision, 0 to 100 %; a mistake with a high score is a bad sign"),
    ("variant", "the same network in another file format or with smaller numbers, such as onnx-int8"),
    ("fp32, fp16, int8", "how exact the numbers in a variant are: 32, 16 or 8 bits; fewer bits are faster and smaller"),
    ("the network as trained", "the network before it was converted: PyTorch with 32-bit numbers (eager fp32)"),
)
"""(word, meaning)."""
