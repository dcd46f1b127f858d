// Cassette: the recorded or written answers that a replay server gives. A JSON file:
//
//   {"version": 1,
//    "entries": [
//      {"match": {"model": "gpt-4", "contains": ["interval map"], "not_contains": ["failed"]},
//       "times": 1,
//       "answer": {"content": "…", "usage": {…}, "finish_reason": "stop", "model": "gpt-4-0613"}},
//      {"answer": {"content": ["first line", "second line"], "reasoning": "…",
//                  "tool_calls": [{"id": "call_1", "name": "look", "arguments": "{\"at\":1}"}]}},
//      {"answer": {"status": 429, "headers": {"Retry-After": "1"}, "body": {"error": {…}}}},
//      {"answer": {"drill": "stall", "seconds": 30}}],
//    "drills": [
//      {"match": {"contains": ["tree"]}, "every": 3, "drill": "rate_limit", "retry_after": 2}]}
//
// match: every condition must hold; none at all matches everything. `contains` and `not_contains`
// look at the contents of all messages, joined by newlines. times: how often the entry answers, 1
// when not said, 0 for ever. The first entry in file order that matches and is not used up answers.
//
// drills: what goes wrong beside the entries. The first that matches and is due takes the place of
// the answer that an entry would have given, and uses up nothing of that entry: the client that
// tries again finds it. Where no entry answers there is no drill either.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "necrocode/base/json.hpp"
#include "necrocode/llm/model.hpp"
#include "necrocode/net/http.hpp"

namespace necrocode::llm {

struct CassetteMatch {
  std::string model;  ///< empty: any
  std::vector<std::string> contains;
  std::vector<std::string> not_contains;
};

/// {"content" and/or "tool_calls", "reasoning", "finish_reason", "usage", "model", "chunk",
/// "delay_ms"}: an answer in no dialect's words, to be spoken in each. A text may be given as an
/// array of its lines, which is also how one of several lines is written.
struct CompletionAnswer {
  std::string content;
  std::string reasoning;
  std::vector<ToolCall> tool_calls;
  /// Usage's names (prompt_tokens, completion_tokens, total_tokens, cached_tokens,
  /// cache_write_tokens, reasoning_tokens), or null; when absent, estimated at four bytes a token.
  std::optional<Json> usage;
  /// OpenAI's words: stop, length, tool_calls, content_filter. When not said, tool_calls beside
  /// tool calls, else stop.
  std::string finish_reason = "stop";
  std::string model;      ///< empty: the request's
  std::size_t chunk = 0;  ///< bytes of text in a streamed piece; 0: the server's choice
  std::chrono::milliseconds delay{0};  ///< before each streamed piece
};

/// {"status", "headers", "body"}: a raw HTTP answer. A body that is not a string is sent as JSON.
struct RawAnswer {
  int status = 200;
  net::Headers headers;
  std::string body;
};

/// What a bad day looks like. Those marked * happen in the middle of an answer when `after` is
/// given: after so many pieces of a streamed one, or half of a whole one.
enum class Drill {
  kStall,      ///< * silence for `seconds`, then 504; in the middle: then the rest
  kReset,      ///< * the connection closes after the answer's head
  kCut,        ///< * the connection closes in the middle of the answer's body
  kGarbage,    ///< * 200 and bytes that are not JSON; in the middle: between two pieces
  kHtml,       ///< 200 and a web page
  kTruncate,   ///< * ends cleanly, but without its second half: no finish, no [DONE], no closing }
  kRateLimit,  ///< 429 with Retry-After of `retry_after`
  kError,      ///< * `status`; in the middle of a stream: an error event
  kKeepAlive,  ///< nothing but signs of life for `seconds` (comments, pings, blanks), then closed
};
std::string_view to_string(Drill drill);
/// Nothing when there is none of that name.
std::optional<Drill> parse_drill(std::string_view name);
/// "stall, reset, …", for messages and help.
std::string drill_names();

/// {"drill", "seconds", "after", "status", "retry_after"} and what a completion has: the answer
/// that goes wrong, by default a sentence.
struct DrillAnswer {
  Drill drill = Drill::kStall;
  double seconds = 60;
  std::optional<std::size_t> after{};
  int status = 500;
  double retry_after = 1;
  std::optional<CompletionAnswer> answer{};
};

struct CassetteEntry {
  CassetteMatch match;
  std::int64_t times = 1;  ///< 0: for ever
  std::variant<CompletionAnswer, RawAnswer, DrillAnswer> answer;
};

/// When answers go wrong: {"match", "every" or "probability" and "seed", "times"} and a drill.
/// Counts the questions it matches: the same questions in the same order go wrong alike each time.
struct DrillRule {
  CassetteMatch match;
  std::int64_t every = 1;               ///< of the questions it matches
  std::optional<double> probability{};  ///< instead of `every`: of each of them, 0 to 1
  std::uint64_t seed = 1;               ///< of that chance
  std::int64_t times = 0;               ///< how often at most; 0: for ever
  DrillAnswer drill;

  /// True when the `number`th question that it matches, from 1, goes wrong.
  bool is_due(std::int64_t number) const;
  /// NAME[:KEY=VALUE]…, as a command line says it: "rate_limit:every=3:retry_after=2". Throws
  /// ConfigError.
  static DrillRule parse(std::string_view text);
  /// The same form, with what differs from the defaults and a chance's seed.
  std::string to_text() const;
};

struct Cassette {
  std::vector<CassetteEntry> entries;
  std::vector<DrillRule> drills;

  /// Throws ConfigError that names every defect with its JSON pointer; unknown keys are defects.
  /// `name` stands for the text in messages.
  static Cassette parse(std::string_view text, std::string_view name = "cassette");
  /// The same of a file; StorageError when it cannot be read.
  static Cassette load(const std::filesystem::path& file);
};

/// What Cassette::parse() reads; members in one order, without those that are as by default.
Json to_json(const CassetteEntry& entry);
Json to_json(const DrillRule& rule);

}  // namespace necrocode::llm
