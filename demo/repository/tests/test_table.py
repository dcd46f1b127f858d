import math
import unittest

import strata_tables
from strata_tables.csv_reader import CsvError, read_rows
from strata_tables.table import Summary, Table

SALES = """\
region,article,amount,price
north,bolt,10,0.5
south,bolt,4,0.75
north,nut,NA,0.25
"west, outer",nut,6,0.25
south,"6"" pipe",2,8
"""


class TableTest(unittest.TestCase):
    def setUp(self):
        self.table = Table.from_csv(SALES)

    def test_cells_are_typed_and_columns_keep_their_order(self):
        self.assertEqual(self.table.columns, ("region", "article", "amount", "price"))
        self.assertEqual(len(self.table), 5)
        self.assertEqual(self.table.column("amount"), [10, 4, None, 6, 2])
        self.assertEqual(self.table.column("article")[4], '6" pipe')
        self.assertEqual(self.table.column("region")[3], "west, outer")

    def test_rows_of_the_reader_can_be_used_directly(self):
        header, *rows = read_rows(SALES)
        table = Table(header, rows)
        self.assertEqual(table.column("price"), ["0.5", "0.75", "0.25", "0.25", "8"])
        with self.assertRaisesRegex(ValueError, "row 2"):
            Table(["a", "b"], [[1, 2], [3]])
        with self.assertRaisesRegex(ValueError, "'a'"):
            Table(["a", "a"], [])

    def test_wrong_csv_and_unknown_columns_are_named(self):
        with self.assertRaises(CsvError):
            Table.from_csv('a,b\n"1')
        with self.assertRaisesRegex(KeyError, "colour"):
            self.table.column("colour")
        self.assertEqual(Table.from_csv("").columns, ())

    def test_a_summary_leaves_out_what_is_missing(self):
        summary = self.table.summary("amount")
        self.assertIsInstance(summary, Summary)
        self.assertEqual((summary.count, summary.missing), (4, 1))
        self.assertEqual((summary.minimum, summary.maximum), (2, 10))
        self.assertEqual((summary.mean, summary.median), (5.5, 5))
        self.assertAlmostEqual(summary.deviation, math.sqrt(35 / 3))

    def test_a_summary_of_few_numbers(self):
        one = Table(["x"], [[7]]).summary("x")
        self.assertEqual((one.mean, one.median, one.deviation), (7, 7, None))
        none = Table(["x"], [[None]]).summary("x")
        self.assertEqual((none.count, none.missing, none.mean, none.minimum), (0, 1, None, None))

    def test_only_numbers_have_a_summary(self):
        with self.assertRaisesRegex(TypeError, "region"):
            self.table.summary("region")
        with self.assertRaises(TypeError):
            Table(["x"], [[True]]).summary("x")

    def test_sums_do_not_lose_small_numbers(self):
        table = Table(["x"], [[1e16], [1.0], [-1e16], [1.0]])
        self.assertEqual(table.summary("x").mean, 0.5)


class GroupTest(unittest.TestCase):
    def setUp(self):
        self.table = Table.from_csv(SALES)

    def test_groups_come_in_the_order_of_their_first_row(self):
        sums = self.table.group_by("region", total=("amount", "sum"), rows=("region", "count"))
        self.assertEqual(sums.columns, ("region", "total", "rows"))
        self.assertEqual(
            list(sums.rows()), [("north", 10, 2), ("south", 6, 2), ("west, outer", 6, 1)]
        )

    def test_several_keys_and_all_reductions(self):
        groups = self.table.group_by(
            ["article", "price"],
            least=("amount", "min"),
            most=("amount", "max"),
            mean=("amount", "mean"),
            known=("amount", "count"),
        )
        self.assertEqual(groups.columns[:2], ("article", "price"))
        self.assertEqual(list(groups.rows())[2], ("nut", 0.25, 6, 6, 6, 1))

    def test_a_group_without_numbers_has_no_mean_and_the_sum_zero(self):
        table = Table(["k", "v"], [["a", None], ["b", 2]])
        groups = table.group_by("k", sum=("v", "sum"), mean=("v", "mean"))
        self.assertEqual(list(groups.rows()), [("a", 0, None), ("b", 2, 2)])

    def test_true_one_and_one_point_zero_are_the_same_number_but_not_the_same_key(self):
        table = Table(["k"], [[1], [True], ["1"], [None], [1]])
        self.assertEqual(table.group_by("k", n=("k", "count")).column("n"), [2, 1, 1, 0])

    def test_what_cannot_be_grouped_is_refused(self):
        with self.assertRaisesRegex(ValueError, "median"):
            self.table.group_by("region", x=("amount", "median"))
        with self.assertRaisesRegex(KeyError, "colour"):
            self.table.group_by("colour", x=("amount", "sum"))
        with self.assertRaisesRegex(ValueError, "'region'"):
            self.table.group_by("region", region=("amount", "sum"))
        with self.assertRaisesRegex(TypeError, "article"):
            self.table.group_by("region", x=("article", "sum"))

    def test_the_package_offers_the_table(self):
        self.assertIs(strata_tables.Table, Table)
        self.assertLessEqual({"Summary", "Table"}, set(strata_tables.__all__))


if __name__ == "__main__":
    unittest.main()
