// The smallest test frame that still says what went wrong: TEST(name) { CHECK_EQ(a, b); }.
// A test ends at its first failed check; the program runs all tests and exits 1 if one failed.
#pragma once

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Registration {
  Registration(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

struct Failure {
  std::string what;
};

inline std::string show(std::string_view text) {
  return "'" + std::string(text) + "'";
}

template <typename Number, typename = std::enable_if_t<std::is_arithmetic_v<Number>>>
std::string show(Number number) {
  if constexpr (std::is_same_v<Number, bool>) return number ? "true" : "false";
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.17g", static_cast<double>(number));
  return buffer;
}

inline std::string at(const char* file, int line, const char* expression) {
  return std::string(file) + ":" + std::to_string(line) + ": " + expression;
}

template <typename Got, typename Expected>
void equal(const Got& got, const Expected& expected, const std::string& where) {
  if (got == expected) return;
  throw Failure{where + "\n    got      " + show(got) + "\n    expected " + show(expected)};
}

inline int run() {
  int failed = 0;
  for (const Test& test : tests()) {
    std::string problem;
    try {
      test.body();
      continue;
    } catch (const Failure& failure) {
      problem = failure.what;
    } catch (const std::exception& error) {
      problem = std::string("unexpected exception: ") + error.what();
    }
    ++failed;
    std::printf("FAILED %s\n  %s\n", test.name, problem.c_str());
    std::fflush(stdout);  // said even if a later test crashes
  }
  std::printf("%zu tests, %d failed\n", tests().size(), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace check

#define TEST(name)                                                        \
  static void test_##name();                                              \
  static const check::Registration registered_##name(#name, test_##name); \
  static void test_##name()

#define CHECK_EQ(got, expected) \
  check::equal((got), (expected), check::at(__FILE__, __LINE__, #got " == " #expected))

#define CHECK(condition) \
  check::equal(static_cast<bool>(condition), true, check::at(__FILE__, __LINE__, #condition))

// The statement must throw Error; the block that follows sees it as `error`.
#define CHECK_THROWS(statement, Error, examine)                                             \
  do {                                                                                      \
    bool threw = false;                                                                     \
    try {                                                                                   \
      static_cast<void>(statement);                                                         \
    } catch (const Error& error) {                                                          \
      threw = true;                                                                         \
      examine;                                                                              \
    }                                                                                       \
    check::equal(threw, true, check::at(__FILE__, __LINE__, #statement " throws " #Error)); \
  } while (false)

int main() {
  return check::run();
}
