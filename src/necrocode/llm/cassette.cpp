#include "necrocode/llm/cassette.hpp"

#include <algorithm>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

constexpr std::int64_t kVersion = 1;
constexpr double kStallSecondsMax = 3'600;
constexpr std::size_t kConditionsMax = 100;

void allow_only(const Json& object, std::initializer_list<std::string_view> names,
                JsonFields& fields) {
  for (const auto& [name, value] : object.members()) {
    if (std::find(names.begin(), names.end(), name) == names.end())
      fields.fail(name, "unknown key");
  }
}

CassetteMatch read_match(JsonFields& entry) {
  CassetteMatch read;
  entry.nested("match", [&](JsonFields& match) {
    read.model = match.string("model").value_or("");
    read.contains = match.strings("contains", kConditionsMax);
    read.not_contains = match.strings("not_contains", kConditionsMax);
    allow_only(match.value(), {"model", "contains", "not_contains"}, match);
  });
  return read;
}

CompletionAnswer read_completion(const Json& answer, JsonFields& fields) {
  allow_only(answer, {"content", "usage", "finish_reason", "model"}, fields);
  CompletionAnswer read;
  read.content = fields.string("content", limits::kModelAnswerBytes).value_or("");
  read.finish_reason = fields.string("finish_reason").value_or("stop");
  read.model = fields.string("model").value_or("");
  fields.object("usage");  // for its type
  if (const Json* usage = answer.find("usage")) read.usage = *usage;
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
  allow_only(answer, {"drill", "seconds"}, fields);
  DrillAnswer read;
  read.seconds = fields.number("seconds", 0, kStallSecondsMax).value_or(read.seconds);
  const std::string name = fields.required_string("drill");
  for (const Drill drill :
       {Drill::kStall, Drill::kReset, Drill::kCut, Drill::kGarbage, Drill::kHtml}) {
    if (name == to_string(drill)) {
      read.drill = drill;
      return read;
    }
  }
  fields.fail("drill", "must be stall, reset, cut, garbage or html");
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
      entry.answer = read_drill(answer, given);
    } else if (given.has("status")) {
      entry.answer = read_raw(answer, given);
    } else if (given.has("content")) {
      entry.answer = read_completion(answer, given);
    } else if (answer.is_object()) {
      fields.fail("answer", "must have content, status or drill");
    }
    fields.absorb(given);
  }
  errors.insert(errors.end(), fields.errors().begin(), fields.errors().end());
  return entry;
}

}  // namespace

std::string_view to_string(Drill drill) {
  switch (drill) {
    case Drill::kStall:
      return "stall";
    case Drill::kReset:
      return "reset";
    case Drill::kCut:
      return "cut";
    case Drill::kGarbage:
      return "garbage";
    case Drill::kHtml:
      return "html";
  }
  return "stall";
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
  allow_only(document, {"version", "entries"}, fields);
  info.fields.insert(info.fields.begin(), fields.errors().begin(), fields.errors().end());
  if (!info.fields.empty()) throw ConfigError("invalid cassette", std::move(info));
  return cassette;
}

Cassette Cassette::load(const std::filesystem::path& file) {
  return parse(read_file(file, limits::kCassetteBytes), file.string());
}

}  // namespace necrocode::llm
