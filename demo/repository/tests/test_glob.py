import unittest

import strata_tables
from strata_tables.glob import Glob, GlobError, select


class GlobTest(unittest.TestCase):
    def assert_matches(self, pattern, names):
        for name in names:
            self.assertTrue(Glob(pattern).matches(name), f"{pattern!r} on {name!r}")

    def assert_misses(self, pattern, names):
        for name in names:
            self.assertFalse(Glob(pattern).matches(name), f"{pattern!r} on {name!r}")

    def test_plain_text_matches_itself_and_the_whole_of_it(self):
        self.assert_matches("price", ["price"])
        self.assert_misses("price", ["prices", "a price", "Price", "", "pric"])
        self.assert_matches("", [""])
        self.assert_misses("", ["a"])

    def test_stars_and_question_marks(self):
        self.assert_matches("*", ["", "a", "a.b/c", "line\nbreak"])
        self.assert_matches("a*c", ["ac", "abc", "abcbc", "a/c"])
        self.assert_misses("a*c", ["a", "acb", "bac"])
        self.assert_matches("a?c", ["abc", "a?c", "a\nc", "aéc"])
        self.assert_misses("a?c", ["ac", "abbc"])
        self.assert_matches("*a*b*", ["ab", "xaxbx", "bab"])
        self.assert_misses("*a*b*", ["ba", ""])
        self.assert_matches("***x", ["x", "xx"])

    def test_sets_and_ranges(self):
        self.assert_matches("q[1-4]", ["q1", "q4"])
        self.assert_misses("q[1-4]", ["q0", "q5", "q", "q12", "q-"])
        self.assert_matches("[abx-z]", ["a", "b", "y"])
        self.assert_misses("[!0-9]x", ["1x", "x"])
        self.assert_matches("[!0-9]x", ["ax", "!x"])
        self.assert_matches("[]]", ["]"])
        self.assert_matches("[!]]", ["a"])
        self.assert_matches("[a-]", ["a", "-"])
        self.assert_matches("[*?]", ["*", "?"])
        self.assert_misses("[*?]", ["a"])

    def test_a_backslash_takes_the_next_character_as_it_is(self):
        self.assert_matches(r"\*", ["*"])
        self.assert_misses(r"\*", ["a", r"\*"])
        self.assert_matches(r"[\]\-a]", ["]", "-", "a"])
        self.assert_misses(r"[\]\-a]", ["\\", "^"])
        self.assert_matches(r"a\\b", ["a\\b"])

    def test_characters_of_regular_expressions_mean_nothing(self):
        self.assert_matches("a.b+(c|d)^$", ["a.b+(c|d)^$"])
        self.assert_misses("a.b", ["axb"])

    def test_letters_may_be_compared_without_their_case(self):
        self.assertTrue(Glob("PRICE_*", ignore_case=True).matches("price_eur"))
        self.assertTrue(Glob("[a-c]x", ignore_case=True).matches("BX"))
        self.assertTrue(Glob("stra[sß]e", ignore_case=True).matches("STRASE"))
        self.assertFalse(Glob("[!a-c]", ignore_case=True).matches("B"))

    def test_errors_tell_the_place(self):
        for pattern, position in [("ab[cd", 2), ("[", 0), ("[!]", 0), ("a\\", 1), ("x[z-a]", 2)]:
            with self.assertRaises(GlobError) as caught:
                Glob(pattern)
            self.assertEqual(caught.exception.position, position, pattern)
            self.assertIsInstance(caught.exception, ValueError)

    def test_many_stars_do_not_take_for_ever(self):
        self.assert_misses("*a" * 40 + "b", ["a" * 4000])
        self.assert_matches("*a" * 40 + "*", ["a" * 4000])


class SelectTest(unittest.TestCase):
    NAMES = ["id", "price_eur", "price_usd", "stock", "!odd"]

    def test_names_come_in_their_own_order_and_once(self):
        self.assertEqual(
            select(self.NAMES, ["stock", "price_*", "price_eur"]),
            ["price_eur", "price_usd", "stock"],
        )
        self.assertEqual(select(self.NAMES, []), [])

    def test_an_exclamation_mark_takes_names_out_again(self):
        self.assertEqual(select(self.NAMES, ["*", "!price_*"]), ["id", "stock", "!odd"])
        self.assertEqual(
            select(self.NAMES, ["*", "!price_*", "price_eur"]),
            ["id", "price_eur", "stock", "!odd"],
        )
        self.assertEqual(select(self.NAMES, [r"\!*"]), ["!odd"])

    def test_the_package_offers_both(self):
        self.assertIs(strata_tables.select, select)
        self.assertLessEqual({"Glob", "GlobError", "select"}, set(strata_tables.__all__))


if __name__ == "__main__":
    unittest.main()
