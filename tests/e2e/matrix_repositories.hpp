// The matrix's repositories: one job in three languages, with the test runner of each. clamp()
// gives its value back as it came, and a test that is there says so.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace necrocode::test {

/// How a run comes to its workspace. Each repository has its own, so that every behaviour of the
/// matrix meets all of them.
enum class Way {
  kServices,   ///< claimed at the registry, in a slot of the pool, artifacts to the store
  kOwn,        ///< without services, in a workspace that the run makes from repo_url
  kLentClone,  ///< without services, in a clone of the user's
};

struct Repository {
  std::string name;
  Way way;
  std::vector<std::pair<std::string, std::string>> files;
  std::string source;  ///< the file that has to change
  std::string tests;   ///< the one that proves it, read-only for every task
  // What `source` may become.
  std::string right;
  std::string too_small;    ///< wrong: 9 in [0, 5] stays 9
  std::string too_large;    ///< wrong otherwise: -3 in [0, 5] stays -3
  std::string overwriting;  ///< right, and empties `tests` while they run
  std::string unequal;      ///< between what was and what was expected, as its test runner puts it
  std::vector<std::string> test_commands;
  bool detected;  ///< from its files, so that no task names them
};

inline Repository cpp_repository() {
  const std::string begin = "#include \"interval.hpp\"\n\n";
  const std::string head = "int clamp(int value, int low, int high) { return ";
  const std::string floor = "value < low ? low : ";
  const std::string ceiling = "value > high ? high : ";
  Repository cpp;
  cpp.name = "Cpp";
  cpp.way = Way::kOwn;
  cpp.source = "interval.cpp";
  cpp.tests = "tests/interval_test.cpp";
  cpp.files = {{"CMakeLists.txt",
                "cmake_minimum_required(VERSION 3.25)\n"
                "project(interval CXX)\n"
                "enable_testing()\n"
                "add_executable(interval_test interval.cpp tests/interval_test.cpp)\n"
                "target_include_directories(interval_test PRIVATE .)\n"
                "add_test(NAME interval COMMAND interval_test)\n"},
               {"interval.hpp", "#pragma once\n\nint clamp(int value, int low, int high);\n"},
               {cpp.source, begin + "int clamp(int value, int, int) { return value; }\n"},
               {cpp.tests,
                "#include <cstdio>\n\n"
                "#include \"interval.hpp\"\n\n"
                "int failures = 0;\n\n"
                "void expect(int is, int expected) {\n"
                "  if (is == expected) return;\n"
                "  std::printf(\"%d != %d\\n\", is, expected);\n"
                "  ++failures;\n"
                "}\n\n"
                "int main() {\n"
                "  expect(clamp(9, 0, 5), 5);\n"
                "  expect(clamp(-3, 0, 5), 0);\n"
                "  return failures;\n"
                "}\n"}};
  cpp.right = begin + head + floor + ceiling + "value; }\n";
  cpp.too_small = begin + "int clamp(int value, int low, int) { return " + floor + "value; }\n";
  cpp.too_large = begin + "int clamp(int value, int, int high) { return " + ceiling + "value; }\n";
  cpp.overwriting = "#include <fstream>\n\n" + cpp.right +
                    "static std::ofstream emptied(\"../tests/interval_test.cpp\");\n";
  cpp.unequal = " != ";
  cpp.test_commands = {"cmake -S . -B build", "cmake --build build",
                       "ctest --test-dir build --no-tests=error --output-on-failure --output-junit "
                       "necrocode-junit.xml"};
  cpp.detected = true;
  return cpp;
}

inline Repository python_repository() {
  const std::string head = "def clamp(value, low, high):\n    return ";
  Repository python;
  python.name = "Python";
  python.way = Way::kServices;
  python.source = "interval.py";
  python.tests = "tests/test_interval.py";
  python.files = {{"pyproject.toml", "[project]\nname = \"interval\"\nversion = \"1.0\"\n"},
                  {python.source, head + "value\n"},
                  {python.tests,
                   "import unittest\n\n"
                   "from interval import clamp\n\n\n"
                   "class Clamp(unittest.TestCase):\n"
                   "    def test_above(self):\n"
                   "        self.assertEqual(clamp(9, 0, 5), 5)\n\n"
                   "    def test_below(self):\n"
                   "        self.assertEqual(clamp(-3, 0, 5), 0)\n"}};
  python.right = head + "max(low, min(value, high))\n";
  python.too_small = head + "max(low, value)\n";
  python.too_large = head + "min(value, high)\n";
  python.overwriting = python.right + "\n\nopen('tests/test_interval.py', 'w').close()\n";
  python.unequal = " != ";
  python.test_commands = {"python3 -m unittest discover -s tests"};
  python.detected = true;
  return python;
}

inline Repository javascript_repository() {
  const std::string head = "exports.clamp = (value, low, high) => ";
  Repository javascript;
  javascript.name = "JavaScript";
  javascript.way = Way::kLentClone;
  javascript.source = "interval.js";
  javascript.tests = "test/interval.test.js";
  javascript.files = {{"package.json",
                       "{\n"
                       "  \"name\": \"interval\",\n"
                       "  \"version\": \"1.0.0\",\n"
                       "  \"scripts\": { \"test\": \"node --test\" }\n"
                       "}\n"},
                      {javascript.source, head + "value;\n"},
                      {javascript.tests,
                       "const assert = require('node:assert');\n"
                       "const test = require('node:test');\n\n"
                       "const { clamp } = require('../interval.js');\n\n"
                       "test('above', () => assert.strictEqual(clamp(9, 0, 5), 5));\n"
                       "test('below', () => assert.strictEqual(clamp(-3, 0, 5), 0));\n"}};
  javascript.right = head + "Math.max(low, Math.min(value, high));\n";
  javascript.too_small = head + "Math.max(low, value);\n";
  javascript.too_large = head + "Math.min(value, high);\n";
  javascript.overwriting =
      javascript.right + "require('node:fs').writeFileSync('test/interval.test.js', '');\n";
  javascript.unequal = " !== ";
  // What its package.json means; npm, which detection would ask, need not be installed.
  javascript.test_commands = {"node --test"};
  javascript.detected = false;
  return javascript;
}

inline std::vector<Repository> repositories() {
  return {cpp_repository(), python_repository(), javascript_repository()};
}

inline void PrintTo(const Repository& repository, std::ostream* out) {
  *out << repository.name;
}

}  // namespace necrocode::test
