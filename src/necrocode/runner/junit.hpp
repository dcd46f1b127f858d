// JUnit XML, as test tools write it: there is no standard, so what is read are the forms of
// Surefire, Gradle, pytest, GoogleTest, CTest and Node.js. The reports are foreign bytes: whoever
// wrote the tests wrote them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/masking.hpp"

namespace necrocode::runner {

/// Of one file; of what is kept of one case, before it is escaped.
inline constexpr std::size_t kJunitFileBytes = 8 * limits::kMiB;
inline constexpr std::size_t kJunitNameBytes = 512;
inline constexpr std::size_t kJunitTextBytes = 4 * limits::kKiB;
/// Of a round of tests.
inline constexpr std::size_t kJunitCases = 20'000;

/// All text is valid UTF-8, masked and printable; only `text` and `message` have line breaks.
struct TestCase {
  enum class Outcome { kPassed, kFailed, kError, kSkipped };
  std::string suite;      ///< names of the suites around it, "outer > inner"
  std::string classname;  ///< what the tool says: a class, module or file
  std::string name;
  std::string file;  ///< or empty
  double seconds = 0;
  Outcome outcome = Outcome::kPassed;
  std::string message{};  ///< of a failure, an error, a skip
  std::string text{};     ///< of a failure or error: what the tool printed, head and tail

  bool failed() const { return outcome == Outcome::kFailed || outcome == Outcome::kError; }
  /// "suite > class > name", each once.
  std::string title() const;
};

struct JunitReport {
  std::vector<TestCase> cases;
  std::size_t left_out = 0;  ///< cases beyond the limit, or nested too deeply
};

/// At most `cases_max` cases. XML of another kind holds none. No document type is read, so no
/// entity is defined or fetched. Throws InvalidResponse for what is no XML or longer than
/// kJunitFileBytes.
JunitReport parse_junit(std::string_view xml, const Masker& masker,
                        std::size_t cases_max = kJunitCases);

/// `text` for XML 1.0: escaped, for an attribute too; what XML has no character for is U+FFFD.
std::string xml_escape(std::string_view text);

}  // namespace necrocode::runner
