import unittest

import strata_tables
from strata_tables.csv_reader import CsvError, read_dicts, read_rows


class RowsTest(unittest.TestCase):
    def rows(self, text, **options):
        return list(read_rows(text, **options))

    def error(self, text, **options):
        with self.assertRaises(CsvError) as caught:
            self.rows(text, **options)
        return caught.exception

    def test_plain_fields(self):
        self.assertEqual(self.rows("a,b\r\nc,d\r\n"), [["a", "b"], ["c", "d"]])
        self.assertEqual(self.rows("a;b", delimiter=";"), [["a", "b"]])
        self.assertEqual(self.rows(" a ,,\n"), [[" a ", "", ""]])

    def test_every_line_ending_counts_and_the_last_is_optional(self):
        for ending in ["\n", "\r\n", "\r"]:
            self.assertEqual(self.rows(f"a{ending}b"), [["a"], ["b"]])
            self.assertEqual(self.rows(f"a{ending}b{ending}"), [["a"], ["b"]])

    def test_blank_lines_are_no_rows_but_an_empty_quoted_field_is(self):
        self.assertEqual(self.rows(""), [])
        self.assertEqual(self.rows("\n\r\n\na\n\n"), [["a"]])
        self.assertEqual(self.rows('""\n'), [[""]])
        self.assertEqual(self.rows('""'), [[""]])

    def test_quotes_keep_delimiters_quotes_and_line_endings(self):
        self.assertEqual(self.rows('"a,b","c""d",e'), [["a,b", 'c"d', "e"]])
        self.assertEqual(self.rows('"x\r\ny\rz\n",1'), [["x\r\ny\rz\n", "1"]])
        self.assertEqual(self.rows('"""",""""""'), [['"', '""']])

    def test_a_byte_order_mark_is_no_part_of_the_first_field(self):
        self.assertEqual(self.rows('\ufeff"a",b'), [["a", "b"]])
        self.assertEqual(self.rows("a,\ufeffb"), [["a", "\ufeffb"]])

    def test_errors_name_the_line_on_which_they_begin(self):
        self.assertEqual(self.error('a\n"b\nc').line, 2)
        self.assertEqual(self.error('"a\nb"x,c').line, 2)
        self.assertEqual(self.error('a\r\nb\r\nc"d').line, 3)
        self.assertIn("line 3", str(self.error('a\rb\rc"d')))
        self.assertIsInstance(self.error('"'), ValueError)

    def test_delimiters_that_cannot_work_are_refused(self):
        for delimiter in ["", ",,", '"', "\n", "\r"]:
            with self.assertRaises(ValueError):
                list(read_rows("a", delimiter=delimiter))

    def test_pieces_give_the_same_rows_wherever_they_are_cut(self):
        text = '\ufeffa,"b""c"\r\n"",d\r"e\r\nf",\n\ng'
        expected = self.rows(text)
        self.assertEqual(len(expected), 4)
        for at in range(len(text) + 1):
            self.assertEqual(self.rows([text[:at], text[at:]]), expected)
        self.assertEqual(self.rows(iter(text)), expected)

    def test_rows_come_before_the_text_is_at_its_end(self):
        def pieces():
            yield "a,b\n"
            raise AssertionError("read on too far")

        self.assertEqual(next(iter(read_rows(pieces()))), ["a", "b"])


class DictsTest(unittest.TestCase):
    def test_the_first_row_names_the_columns(self):
        rows = list(read_dicts('name,"size, mm"\nbolt,6\n"nut",\n'))
        self.assertEqual(rows[0], {"name": "bolt", "size, mm": "6"})
        self.assertEqual(rows[1], {"name": "nut", "size, mm": ""})
        self.assertEqual(list(read_dicts("")), [])

    def test_a_row_of_another_width_is_an_error_with_its_line(self):
        for text in ['a,b\n"1\n2",3\n4\n', "a,b\n\n1,2\n4,5,6\n"]:
            with self.assertRaises(CsvError) as caught:
                list(read_dicts(text))
            self.assertEqual(caught.exception.line, 4)

    def test_a_column_cannot_stand_there_twice(self):
        with self.assertRaises(CsvError) as caught:
            list(read_dicts("a,b,a\n1,2,3\n"))
        self.assertIn("'a'", str(caught.exception))

    def test_the_package_offers_the_reader(self):
        self.assertIs(strata_tables.read_rows, read_rows)
        self.assertLessEqual({"CsvError", "read_dicts", "read_rows"}, set(strata_tables.__all__))


if __name__ == "__main__":
    unittest.main()
