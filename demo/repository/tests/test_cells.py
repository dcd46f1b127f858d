import unittest

from strata_tables import parse_cell


class CellTest(unittest.TestCase):
    def test_numbers_are_numbers(self):
        self.assertEqual(parse_cell("42"), 42)
        self.assertIsInstance(parse_cell("42"), int)
        self.assertEqual(parse_cell(" -7 "), -7)
        self.assertEqual(parse_cell("0.5"), 0.5)
        self.assertEqual(parse_cell(".5e1"), 5.0)
        self.assertEqual(parse_cell("1e3"), 1000.0)

    def test_what_only_looks_like_a_number_stays_text(self):
        for text in ["0042", "1.2.3", "1e999", "1_000", "٣", "inf", "nan", "-", "0x10", "9" * 400]:
            self.assertEqual(parse_cell(text), text)

    def test_words_for_truth_and_for_nothing(self):
        self.assertIs(parse_cell("Yes"), True)
        self.assertIs(parse_cell("FALSE"), False)
        for text in ["", "  ", "NA", "n/a", "null"]:
            self.assertIsNone(parse_cell(text))

    def test_other_text_keeps_its_spaces(self):
        self.assertEqual(parse_cell(" north west "), " north west ")


if __name__ == "__main__":
    unittest.main()
