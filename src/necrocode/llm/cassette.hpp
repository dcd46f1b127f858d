// Cassette: the recorded or written answers that a replay server gives. A JSON file:
//
//   {"version": 1,
//    "entries": [
//      {"match": {"model": "gpt-4", "contains": ["interval map"], "not_contains": ["failed"]},
//       "times": 1,
//       "answer": {"content": "…", "usage": {…}, "finish_reason": "stop", "model": "gpt-4-0613"}},
//      {"answer": {"status": 429, "headers": {"Retry-After": "1"}, "body": {"error": {…}}}},
//      {"answer": {"drill": "stall", "seconds": 30}}]}
//
// match: every condition must hold; none at all matches everything. `contains` and `not_contains`
// look at the contents of all messages, joined by newlines. times: how often the entry answers, 1
// when not said, 0 for ever. The first entry in file order that matches and is not used up answers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::llm {

struct CassetteMatch {
  std::string model;  ///< empty: any
  std::vector<std::string> contains;
  std::vector<std::string> not_contains;
};

/// {"content", "usage", "finish_reason", "model"}: a completion.
struct CompletionAnswer {
  std::string content;
  std::optional<Json> usage;  ///< as given, also null; when absent, estimated at four bytes a token
  std::string finish_reason = "stop";
  std::string model;  ///< empty: the request's
};

/// {"status", "headers", "body"}: a raw HTTP answer. A body that is not a string is sent as JSON.
struct RawAnswer {
  int status = 200;
  net::Headers headers;
  std::string body;
};

/// {"drill"}: what a bad day looks like.
enum class Drill {
  kStall,    ///< silence for `seconds` (default 60), then 504
  kReset,    ///< the connection closes after the answer's head
  kCut,      ///< the connection closes in the middle of the answer's body
  kGarbage,  ///< 200 and bytes that are not JSON
  kHtml,     ///< 200 and a web page
};
std::string_view to_string(Drill drill);

struct DrillAnswer {
  Drill drill = Drill::kStall;
  double seconds = 60;
};

struct CassetteEntry {
  CassetteMatch match;
  std::int64_t times = 1;  ///< 0: for ever
  std::variant<CompletionAnswer, RawAnswer, DrillAnswer> answer;
};

struct Cassette {
  std::vector<CassetteEntry> entries;

  /// Throws ConfigError that names every defect with its JSON pointer; unknown keys are defects.
  /// `name` stands for the text in messages.
  static Cassette parse(std::string_view text, std::string_view name = "cassette");
  /// The same of a file; StorageError when it cannot be read.
  static Cassette load(const std::filesystem::path& file);
};

}  // namespace necrocode::llm
