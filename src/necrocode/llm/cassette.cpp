#include "necrocode/llm/cassette.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

constexpr std::int64_t kVersion = 1;
constexpr double kSecondsMax = 3'600;
constexpr std::int64_t kDelayMax = 60'000;  // ms
constexpr std::int64_t kPiecesMax = 1'000'000;
constexpr std::size_t kConditionsMax = 100;
constexpr std::size_t kLinesMax = 1'000'000;
constexpr std::size_t kToolCallsMax = 1'000;
constexpr std::size_t kDrillRulesMax = 100;

struct DrillName {
  Drill drill;
  std::string_view name;
};
constexpr std::array kDrillNames = {DrillName{Drill::kStall, "stall"},
                                    DrillName{Drill::kReset, "reset"},
                                    DrillName{Drill::kCut, "cut"},
                                    DrillName{Drill::kGarbage, "garbage"},
                                    DrillName{Drill::kHtml, "html"},
                                    DrillName{Drill::kTruncate, "truncate"},
                                    DrillName{Drill::kRateLimit, "rate_limit"},
                                    DrillName{Drill::kError, "error"},
                                    DrillName{Drill::kKeepAlive, "keepalive"}};

using Names = std::vector<std::string_view>;
const Names kMatchNames = {"model", "contains", "not_contains"};
const Names kCompletionNames = {"content", "reasoning", "tool_calls", "finish_reason",
                                "usage",   "model",     "chunk",      "delay_ms"};
const Names kDrillMembers = {"drill", "seconds", "after", "status", "retry_after"};
const Names kRuleNames = {"match", "every", "probability", "seed", "times"};

Names both(const Names& a, const Names& b) {
  Names all = a;
  all.insert(all.end(), b.begin(), b.end());
  return all;
}

void allow_only(const Json& object, const Names& names, JsonFields& fields) {
  for (const auto& [name, value] : object.members()) {
    if (std::find(names.begin(), names.end(), name) == names.end())
      fields.fail(name, "unknown key");
  }
}

// ---- reading ----

CassetteMatch read_match(JsonFields& entry) {
  CassetteMatch read;
  entry.nested("match", [&](JsonFields& match) {
    read.model = match.string("model").value_or("");
    read.contains = match.strings("contains", kConditionsMax);
    read.not_contains = match.strings("not_contains", kConditionsMax);
    allow_only(match.value(), kMatchNames, match);
  });
  return read;
}

// A string, or an array of its lines.
std::string read_text(const Json& answer, JsonFields& fields, std::string_view name) {
  if (!answer[name].is_array()) {
    return fields.string(name, limits::kModelAnswerBytes).value_or("");
  }
  const auto lines = fields.strings(name, kLinesMax, limits::kModelAnswerBytes);
  std::string text = join(lines, "\n");
  if (text.size() <= limits::kModelAnswerBytes) return text;
  fields.fail(name, "must be at most " + std::to_string(limits::kModelAnswerBytes) + " bytes");
  return {};
}

std::vector<ToolCall> read_tool_calls(JsonFields& fields) {
  std::vector<ToolCall> calls;
  fields.each("tool_calls", kToolCallsMax, [&](JsonFields& call) {
    ToolCall& read = calls.emplace_back();
    read.id = call.required_string("id");
    read.name = call.required_string("name");
    read.arguments = call.string("arguments", limits::kModelAnswerBytes).value_or("{}");
    allow_only(call.value(), {"id", "name", "arguments"}, call);
  });
  return calls;
}

CompletionAnswer read_completion(const Json& answer, JsonFields& fields) {
  CompletionAnswer read;
  read.content = read_text(answer, fields, "content");
  read.reasoning = read_text(answer, fields, "reasoning");
  read.tool_calls = read_tool_calls(fields);
  const std::string_view finish = read.tool_calls.empty() ? "stop" : "tool_calls";
  read.finish_reason = fields.string("finish_reason").value_or(std::string(finish));
  read.model = fields.string("model").value_or("");
  fields.object("usage");  // for its type
  if (const Json* usage = answer.find("usage")) read.usage = *usage;
  read.chunk = static_cast<std::size_t>(fields.integer("chunk", 1, kPiecesMax).value_or(0));
  read.delay = std::chrono::milliseconds(fields.integer("delay_ms", 0, kDelayMax).value_or(0));
  return read;
}

RawAnswer read_raw(const Json& answer, JsonFields& fields) {
  allow_only(answer, {"status", "headers", "body"}, fields);
  RawAnswer read;
  read.status = static_cast<int>(fields.integer("status", 200, 599).value_or(200));
  const Json headers = fields.object("headers");
  for (const auto& [name, value] : headers.members()) {
    const auto text = value.as_string();
    if (!text || !net::is_valid_header(name, *text)) {
      fields.fail("headers",
                  "\"" + printable(name) + "\" is not a header field with a string as value");
    } else {
      read.headers.add(name, std::string(*text));
    }
  }
  const Json& body = answer["body"];
  if (const auto text = body.as_string()) {
    read.body = *text;
  } else if (!body.is_null()) {
    read.body = body.dump();
    if (!read.headers.get("Content-Type")) read.headers.set("Content-Type", "application/json");
  }
  return read;
}

DrillAnswer read_drill(const Json& answer, JsonFields& fields) {
  DrillAnswer read;
  read.seconds = fields.number("seconds", 0, kSecondsMax).value_or(read.seconds);
  const auto after = fields.integer("after", 0, kPiecesMax);
  if (after) read.after = static_cast<std::size_t>(*after);
  read.status = static_cast<int>(fields.integer("status", 400, 599).value_or(read.status));
  read.retry_after = fields.number("retry_after", 0, kSecondsMax).value_or(read.retry_after);
  const bool has_answer = std::any_of(kCompletionNames.begin(), kCompletionNames.end(),
                                      [&](std::string_view name) { return answer.find(name); });
  if (has_answer) read.answer = read_completion(answer, fields);
  const std::string name = fields.required_string("drill");
  if (const auto drill = parse_drill(name)) {
    read.drill = *drill;
  } else if (!name.empty()) {
    fields.fail("drill", "must be " + drill_names());
  }
  return read;
}

CassetteEntry read_entry(const Json& value, const std::string& pointer,
                         std::vector<FieldError>& errors) {
  CassetteEntry entry;
  JsonFields fields(value, pointer);
  if (value.is_object()) {
    allow_only(value, {"match", "times", "answer"}, fields);
    entry.match = read_match(fields);
    entry.times = fields.integer("times", 0).value_or(1);
    const Json& answer = value["answer"];
    JsonFields given(answer, fields.pointer("answer"));
    if (given.has("drill")) {
      allow_only(answer, both(kDrillMembers, kCompletionNames), given);
      entry.answer = read_drill(answer, given);
    } else if (given.has("status")) {
      entry.answer = read_raw(answer, given);
    } else if (given.has("content") || given.has("tool_calls")) {
      allow_only(answer, kCompletionNames, given);
      entry.answer = read_completion(answer, given);
    } else if (answer.is_object()) {
      fields.fail("answer", "must have content, tool_calls, status or drill");
    }
    fields.absorb(given);
  }
  errors.insert(errors.end(), fields.errors().begin(), fields.errors().end());
  return entry;
}

DrillRule read_rule(JsonFields& fields) {
  DrillRule rule;
  allow_only(fields.value(), both(kRuleNames, kDrillMembers), fields);
  rule.match = read_match(fields);
  rule.every = fields.integer("every", 1).value_or(1);
  rule.probability = fields.number("probability", 0, 1);
  rule.seed = static_cast<std::uint64_t>(fields.integer("seed", 0).value_or(1));
  rule.times = fields.integer("times", 0).value_or(0);
  if (rule.probability && fields.has("every")) {
    fields.fail("every", "does not go with probability");
  }
  rule.drill = read_drill(fields.value(), fields);
  return rule;
}

// ---- writing ----

// One of several lines as an array of them, so that a change shows as the lines it changes.
Json text_json(const std::string& text) {
  if (text.find('\n') == std::string::npos) return Json(text);
  Json lines = Json::array();
  for (const std::string_view line : split(text, '\n')) lines.push_back(line);
  return lines;
}

Json match_json(const CassetteMatch& match) {
  Json json = Json::object();
  if (!match.model.empty()) json.set("model", match.model);
  if (!match.contains.empty()) json.set("contains", match.contains);
  if (!match.not_contains.empty()) json.set("not_contains", match.not_contains);
  return json;
}

Json answer_json(const CompletionAnswer& answer) {
  Json json = Json::object();
  if (!answer.reasoning.empty()) json.set("reasoning", text_json(answer.reasoning));
  if (!answer.content.empty() || answer.tool_calls.empty()) {
    json.set("content", text_json(answer.content));
  }
  Json calls = Json::array();
  for (const ToolCall& call : answer.tool_calls) {
    calls.push_back(
        Json::object({{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}}));
  }
  if (calls.size() > 0) json.set("tool_calls", std::move(calls));
  const std::string_view usual = answer.tool_calls.empty() ? "stop" : "tool_calls";
  if (answer.finish_reason != usual) json.set("finish_reason", answer.finish_reason);
  if (answer.usage) json.set("usage", *answer.usage);
  if (!answer.model.empty()) json.set("model", answer.model);
  if (answer.chunk > 0) json.set("chunk", answer.chunk);
  if (answer.delay.count() > 0) json.set("delay_ms", answer.delay.count());
  return json;
}

Json answer_json(const RawAnswer& answer) {
  Json json = Json::object({{"status", answer.status}});
  Json headers = Json::object();
  for (const auto& [name, value] : answer.headers) headers.set(name, value);
  const auto body = Json::try_parse(answer.body);
  // As it would come back: only what dump() gives again byte for byte stands as JSON.
  const bool as_json = body && (body->is_object() || body->is_array()) &&
                       body->dump() == answer.body && answer.headers.get("Content-Type");
  if (headers.size() > 0) json.set("headers", std::move(headers));
  if (!answer.body.empty()) json.set("body", as_json ? *body : Json(answer.body));
  return json;
}

Json answer_json(const DrillAnswer& answer) {
  const DrillAnswer usual;
  Json json = Json::object({{"drill", to_string(answer.drill)}});
  if (answer.seconds != usual.seconds) json.set("seconds", answer.seconds);
  if (answer.after) json.set("after", *answer.after);
  if (answer.status != usual.status) json.set("status", answer.status);
  if (answer.retry_after != usual.retry_after) json.set("retry_after", answer.retry_after);
  if (!answer.answer) return json;
  const Json completion = answer_json(*answer.answer);
  for (const auto& [name, value] : completion.members()) json.set(name, value);
  return json;
}

// A value of a rule on the command line: the number it is, else its text.
Json rule_value(const std::string& text) {
  if (const auto whole = parse_int(text)) return Json(*whole);
  if (const auto number = parse_double(text)) return Json(*number);
  return Json(text);
}

// The output function of SplitMix64: well mixed bits from a counter.
std::uint64_t mixed(std::uint64_t value) {
  value += 0x9E3779B97F4A7C15U;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
  return value ^ (value >> 31);
}

}  // namespace

std::string_view to_string(Drill drill) {
  for (const DrillName& known : kDrillNames) {
    if (known.drill == drill) return known.name;
  }
  return "";
}

std::optional<Drill> parse_drill(std::string_view name) {
  for (const DrillName& known : kDrillNames) {
    if (known.name == name) return known.drill;
  }
  return std::nullopt;
}

std::string drill_names() {
  std::string text;
  for (const DrillName& known : kDrillNames) {
    if (!text.empty()) text += &known == &kDrillNames.back() ? " or " : ", ";
    text += known.name;
  }
  return text;
}

bool DrillRule::is_due(std::int64_t number) const {
  if (!probability) return number % every == 0;
  // The upper 53 bits, which a double holds: 0 up to but not 1.
  const std::uint64_t bits = mixed(mixed(seed) ^ static_cast<std::uint64_t>(number)) >> 11;
  return static_cast<double>(bits) / static_cast<double>(1ULL << 53) < *probability;
}

DrillRule DrillRule::parse(std::string_view text) {
  ErrorInfo info;
  info.target = "--drill " + printable(text);
  const auto parts = split(text, ':');
  Json rule = Json::object({{"drill", parts.front()}});
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::size_t equals = parts[i].find('=');
    if (equals == std::string_view::npos) {
      throw ConfigError("invalid drill: it is NAME[:KEY=VALUE]…", std::move(info));
    }
    rule.set(parts[i].substr(0, equals), rule_value(std::string(parts[i].substr(equals + 1))));
  }
  JsonFields fields(rule);
  DrillRule read = read_rule(fields);
  info.fields = fields.errors();
  if (!info.fields.empty()) throw ConfigError("invalid drill", std::move(info));
  return read;
}

std::string DrillRule::to_text() const {
  std::string text(to_string(drill.drill));
  const Json json = to_json(*this);
  for (const auto& [name, value] : json.members()) {
    if (value.is_number()) text += ":" + name + "=" + value.dump();
  }
  return text;
}

Json to_json(const CassetteEntry& entry) {
  Json json = Json::object();
  Json match = match_json(entry.match);
  if (match.size() > 0) json.set("match", std::move(match));
  if (entry.times != 1) json.set("times", entry.times);
  return json.set("answer",
                  std::visit([](const auto& answer) { return answer_json(answer); }, entry.answer));
}

Json to_json(const DrillRule& rule) {
  Json json = Json::object();
  Json match = match_json(rule.match);
  if (match.size() > 0) json.set("match", std::move(match));
  if (rule.every != 1) json.set("every", rule.every);
  if (rule.probability) json.set("probability", *rule.probability).set("seed", rule.seed);
  if (rule.times != 0) json.set("times", rule.times);
  const Json drill = answer_json(rule.drill);
  for (const auto& [name, value] : drill.members()) json.set(name, value);
  return json;
}

Cassette Cassette::parse(std::string_view text, std::string_view name) {
  Cassette cassette;
  ErrorInfo info;
  info.target = name;
  Json document;
  try {
    document = Json::parse(text, name);
  } catch (const InvalidResponse& error) {
    throw ConfigError(error.summary(), std::move(info));
  }
  JsonFields fields(document);
  if (document.is_object()) {
    fields.require("version");
    fields.require("entries");
  }
  fields.integer("version", kVersion, kVersion);
  std::size_t index = 0;
  for (const Json& entry : fields.array("entries", limits::kCassetteEntries)) {
    cassette.entries.push_back(
        read_entry(entry, "/entries/" + std::to_string(index++), info.fields));
  }
  fields.each("drills", kDrillRulesMax,
              [&](JsonFields& rule) { cassette.drills.push_back(read_rule(rule)); });
  allow_only(document, {"version", "entries", "drills"}, fields);
  info.fields.insert(info.fields.begin(), fields.errors().begin(), fields.errors().end());
  if (!info.fields.empty()) throw ConfigError("invalid cassette", std::move(info));
  return cassette;
}

Cassette Cassette::load(const std::filesystem::path& file) {
  return parse(read_file(file, limits::kCassetteBytes), file.string());
}

}  // namespace necrocode::llm
