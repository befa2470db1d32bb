"""The answers of replies: extraction and equality, against the faults known of published graders.

The cases are those that the evaluation code of SkyThought (arXiv 2502.07374) and its issues made known; the texts are
our own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from lengthwise.answer_equality import answer_parts, plain_maths, read_number, same_answer
from lengthwise.answer_worker import equal_by_algebra
from lengthwise.answers import choice_letter, choice_of_text, final_answer, gsm8k_answer, last_box
from lengthwise.pass_at_k import pass_at_k, pass_at_k_sizes

DATA = Path(os.environ.get("LENGTHWISE_DATA", "nowhere"))


def rows(name: str) -> list[dict]:
    if not (DATA / name).is_file():
        pytest.skip(f"LENGTHWISE_DATA names no folder with {name}")
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


class TestFinalAnswer:
    @pytest.mark.parametrize(
        ("text", "answer"),
        [
            (r"\boxed{5}", "5"),
            (r"so $\boxed{\frac{1}{\sqrt{2}}}$.", r"\frac{1}{\sqrt{2}}"),
            (r"\boxed{\left\{ x \mid x > 1 \right.}", r"\left\{ x \mid x > 1 \right."),
            (r"\boxed{\{1, \{2\}\}}", r"\{1, \{2\}\}"),
            (r"First \boxed{3}. No: \boxed{4}.", "4"),
            (r"\boxed{x = \boxed{7}}", "7"),
            (r"\fbox{12}", "12"),
            (r"\boxed 9", "9"),
            (r"\boxed{}, the answer is 6", "6"),
            (r"the answer is 6, that is \boxed{8}", "8"),
            ("The final answer is $\\frac{3}{4}$. I hope this helps.", r"\frac{3}{4}"),
            ("The answer is 2. But the final answer is 3.", "3"),
            ("I will state the final answer later. The answer is 5.", "5"),
            ("**Final Answer:** 42", "42"),
            ("### Final Answer\n\n\\(x^2 + 1\\)", "x^2 + 1"),
            ("The answer is **1,234**.", "1,234"),
            ("The answer is 3.5.", "3.5"),
            ("The answer is $18 per day.", "$18 per day"),
            ("The answer is 7, because 3 + 4 = 7.", "7"),
            ("The answer is 3, 4 and 5.", "3, 4 and 5"),
            ("The correct answer to the puzzle is 11", "11"),
            ("Answer: 12 apples", "12 apples"),
            ("2 + 3 = 5\n#### 5", "5"),
            ("#### Step 1\nWe add.\n#### 1. Sum up\nso five", None),
            ("所以答案是42。", "42"),
            ("最终答案为：\\(\\frac{1}{2}\\)", r"\frac{1}{2}"),
            ("We get 5, then 6", None),
            ("", None),
        ],
    )
    def test_the_order_of_places(self, text, answer):
        assert final_answer(text) == answer

    def test_a_cut_text_has_no_answer(self):
        cut = r"Adding 3 and 4 gives 7, so the total is \boxed{7 + \frac{1}{2"
        assert final_answer(cut) is None
        assert final_answer("We add 3 and 4 to get", last_number=True) == "4"

    def test_an_answer_in_the_thoughts_only_is_none(self):
        # The thinking part is taken off before; what is left has no answer.
        assert final_answer("I have thought about it.") is None

    @pytest.mark.parametrize(
        ("text", "number"),
        [("it costs $1,250.50 in all", "1,250.50"), ("x is -3.", "-3"), ("about 45%", "45%"), ("none", None)],
    )
    def test_the_last_number(self, text, number):
        assert final_answer(text, last_number=True) == number
        assert final_answer(text) is None

    def test_boxes(self):
        assert last_box(r"\boxed{1} \boxed{2") == "1"
        assert last_box("no box") is None

    def test_gsm8k(self):
        assert gsm8k_answer("a\n#### -1,200") == "-1200"
        with pytest.raises(ValueError, match="####"):
            gsm8k_answer("the answer is 5")


SAME = [
    ("5", "5.0"),
    ("1,000", "1000"),
    (r"10,\!080", "10080"),
    (r"11,\! 111,\! 111,\! 100", "11111111100"),
    ("1{,}000{,}000", "1000000"),
    (r"2\,500", "2500"),
    ("12 000", "12000"),
    ("025", "25"),
    ("−7", "-7"),
    (r"\$36", "36"),
    ("$18", "18"),
    (r"\frac{14}{3}", "14/3"),
    (r"\dfrac{17}{50}", "0.34"),
    (r"\frac43", r"\frac{4}{3}"),
    (r"\frac 59", "5/9"),
    (r"-\frac{1}{2}", "-.5"),
    (r"1\frac{4}{5}", "1.8"),
    ("137 1/2", r"137 \frac{1}{2}"),
    ("0.333333", r"\frac{1}{3}"),
    (r"6.72 \times 10^{-5}", ".0000672"),
    ("50%", "0.5"),
    (r"50\%", "50"),
    ("50 percent", r"50\%"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90 degrees"),
    (r"864 \mbox{ inches}^2", "864"),
    (r"15\mbox{ cm}^2", r"15 \text{ cm}^2"),
    ("15 cm", "15"),
    (r"\frac{270}7\text{ degrees}", r"\frac{270}{7}"),
    ("x = 5", "5"),
    (r"x \in [-2,7]", "[-2, 7]"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    (r"(\frac{1}{2}, 3]", "(0.5, 3]"),
    ("1,-2", "-2, 1"),
    ("3, 5 and 7", "7, 3, 5"),
    (r"1 \pm \sqrt{19}", r"1-\sqrt{19}, 1+\sqrt{19}"),
    (r"\{1, 2\}", "{2, 1}"),
    (r"\text{Evelyn}", "evelyn"),
    (r"\text{(C)}", "C"),
    (r"204_{5}", "204_5"),
    ("204", "204_5"),
    (r"x^5 + 1.", "x^5+1"),
]

DIFFERENT = [
    ("5", "500"),
    ("500", "5"),
    ("0.05", "5"),
    ("5%", "500"),
    ("10000", "10001"),
    ("10000.0", "10001"),
    ("1000000", "1000001"),
    ("0.33", r"\frac{1}{3}"),
    ("0.0000672", "0.0000671"),
    ("10000.000001", "10000"),
    ("3.14", "3.15"),
    ("(3,4]", "(3,4)"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "(1,2,3)"),
    ("1, 2", "1, 2, 3"),
    ("5 or 6", "5"),
    ("52_8", "52_9"),
    ("52_8", "42"),
    ("west", r"\text{east}"),
    ("B", r"\text{(C)}"),
    ("", "5"),
    ("1 2", "12"),
    ("3 5, 1", "35, 1"),
]

BY_ALGEBRA = [
    ("2(x + 1)", "2x + 2", True),
    (r"\sqrt{16}", "4", True),
    (r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt{3}}{3}", True),
    (r"[\pi^2/8, 5\pi^2/4]", r"\left[ \frac{\pi^2}{8}, \frac{5 \pi^2}{4} \right]", True),
    (r"\{-2, 1+\sqrt5, 1-\sqrt5\}", r"\{1\pm\sqrt{5},-2\}", True),
    (r"(9,36)\cup(0,9)", r"(0,9) \cup (9,36)", True),
    (r"\begin{pmatrix} -\frac13 \\ 2 \end{pmatrix}", r"\begin{pmatrix} -1/3 \\ 2 \end{pmatrix}", True),
    ("-5x + 7y - 4 = 0", "5x - 7y + 4 = 0", True),
    ("(a+b)(a-b)", "a^2 - b^2", True),
    (r"2^{10}", "1024", True),
    ("q - p", "p - q", False),
    (r"\tan x", r"\cot x", False),
    ("1+2j", "1+2i", False),
    ("5xy", "5", False),
    ("x > 5", "5", False),
    ("7.14", r"\sqrt{51}", False),
    ("(x, 3]", "(x + 1, 3]", False),
    ("2k+2", "2k-2", False),
    ("no idea at all", "5", False),
]


class TestSameAnswer:
    @pytest.mark.parametrize(("a", "b"), SAME)
    def test_same_by_writing(self, a, b):
        assert same_answer(a, b) is True
        assert same_answer(b, a) is True

    @pytest.mark.parametrize(("given", "gold"), DIFFERENT)
    def test_different_by_writing(self, given, gold):
        assert same_answer(given, gold, equal_by_algebra) is False

    def test_what_needs_no_algebra_asks_for_none(self):
        undecided = [pair for pair in [*SAME, *DIFFERENT] if same_answer(*pair) is None]
        assert undecided == []

    @pytest.mark.parametrize(("given", "gold", "same"), BY_ALGEBRA)
    def test_by_algebra(self, given, gold, same):
        assert same_answer(given, gold) is None
        assert same_answer(given, gold, equal_by_algebra) is same

    def test_an_answer_that_rambles_is_not_computed(self):
        assert same_answer("x + " * 1000 + "x", "1001x") is False

    @pytest.mark.parametrize("text", ["x", "5x", "1/0", r"\frac{1}{0}", "1.2.3", "", "1,00", "3 4"])
    def test_no_number(self, text):
        assert read_number(text) is None

    def test_a_fraction_that_is_zero(self):
        number = read_number(r"\frac{0}{5}")
        assert number is not None and number.value == 0
        assert same_answer("0", "0/5") is True

    def test_parts(self):
        assert answer_parts("(0,9) \\cup (9,36)") is None
        assert answer_parts("f(1,2)") is None
        assert answer_parts("1,000") is None
        assert plain_maths("y = 2x + 3 = 5") == "y = 2x + 3 = 5"


class TestChoiceLetter:
    @pytest.mark.parametrize(
        ("text", "letter"),
        [
            (r"\boxed{C}", "C"),
            (r"\boxed{\text{(B)}}", "B"),
            (r"\boxed{b}", "B"),
            (r"\boxed{D. Paris}", "D"),
            (r"\boxed{a cat}", None),
            ("B", "B"),
            ("(c)", "C"),
            ("**D**", "D"),
            ("The answer is B because A is false.", "B"),
            ("The answer is A.", "A"),
            ("The correct answer is (a) since it is so.", "A"),
            ("Answer: D", "D"),
            ("The answer is a cat.", None),
            ("A cat is on the mat", None),
            ("It is a matter of taste, I think.", None),
            ("A cat is a mammal, so option B", "B"),
            ("(A) is wrong. I choose (C)", "C"),
            ("Both A and B fail, leaving D.", "D"),
            ("vitamin-C and e.g. D-dimer", None),
            ("答案是B。", "B"),
            ("Plan E is right", None),
            ("", None),
        ],
    )
    def test_four_letters(self, text, letter):
        assert choice_letter(text, 4) == letter

    def test_more_letters(self):
        assert choice_letter("The answer is (J).", 10) == "J"
        assert choice_letter("I would say that I am lost", 10) is None
        assert choice_letter("The answer is I.", 10) == "I"

    def test_an_options_text(self):
        assert choice_of_text(r"\text{new york}", ["Paris", "New York"]) == "B"
        assert choice_of_text("x", ["x", "X"]) is None


class TestPassAtK:
    @pytest.mark.parametrize(
        ("n", "c", "k", "value"),
        [
            (10, 3, 5, 0.91667),
            (10, 3, 1, 0.3),
            (10, 0, 5, 0.0),
            (4, 1, 4, 1.0),
            (5, 3, 3, 1.0),
            (4, 2, 2, 0.83333),
        ],
    )
    def test_closed_form(self, n, c, k, value):
        assert pass_at_k(n, c, k) == pytest.approx(value, abs=5e-6)

    @pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, 1, 5), (4, 1, 0), (4, -1, 1)])
    def test_what_does_not_exist(self, n, c, k):
        with pytest.raises(ValueError, match="does not exist"):
            pass_at_k(n, c, k)

    def test_sizes(self):
        assert [pass_at_k_sizes(n) for n in (1, 2, 3, 16)] == [(), (2,), (2, 3), (2, 4, 8, 16)]


class TestPublishedReferenceAnswers:
    def test_math500(self):
        golds = rows("math500_test.jsonl")
        assert len(golds) == 500
        for row in golds:
            read = final_answer(rf"Therefore it is $\boxed{{{row['answer']}}}$.")
            assert read is not None and same_answer(read, row["answer"]) is True
            boxed = last_box(row["solution"])
            assert boxed is not None and same_answer(boxed, row["answer"]) is True

    def test_math500_against_the_next(self):
        answers = [row["answer"] for row in rows("math500_test.jsonl")]
        same = {(a, b) for a, b in zip(answers, answers[1:] + answers[:1], strict=True) if same_answer(a, b)}
        assert same == {("5", "x=5"), ("7", "7"), ("3", "3")}

    def test_gsm8k(self):
        golds = rows("gsm8k_test.jsonl")
        assert len(golds) == 1319
        for row in golds:
            read = final_answer(row["answer"])
            assert read is not None and same_answer(read, gsm8k_answer(row["answer"])) is True
