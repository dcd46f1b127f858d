#include "necrocode/llm/cassette_file.hpp"

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::llm {
namespace {

constexpr std::string_view kHead = "{\n  \"version\": 1,\n  \"entries\": [";
constexpr unsigned kMode = 0600;  // answers may be nobody else's business

std::string indented(const Json& value, std::string_view by) {
  const std::string newline = "\n" + std::string(by);
  return std::string(by) + replace_all(std::string(trim(value.pretty())), "\n", newline);
}

// As it stands in a file's list.
std::string listed(const Json& entry, bool first) {
  return (first ? "\n" : ",\n") + indented(entry, "    ");
}

std::string tail_of(const Cassette& cassette) {
  std::string tail = "\n  ]";
  if (!cassette.drills.empty()) {
    Json drills = Json::array();
    for (const DrillRule& rule : cassette.drills) drills.push_back(to_json(rule));
    tail += ",\n  \"drills\": " + std::string(trim(indented(drills, "  ")));
  }
  return tail + "\n}\n";
}

bool reads_back(const Json& entry) {
  const Json document = Json::object({{"version", 1}, {"entries", Json(Json::Array{entry})}});
  try {
    return Cassette::parse(document.dump()).entries.size() == 1;
  } catch (const ConfigError&) {
    return false;  // a NUL in a text, a field above its limit
  }
}

}  // namespace

CassetteFile::CassetteFile(std::filesystem::path path) : path_(std::move(path)) {
  Cassette cassette;
  std::error_code ignored;  // what cannot be looked at cannot be written either
  if (std::filesystem::exists(path_, ignored)) cassette = Cassette::load(path_);
  tail_ = tail_of(cassette);
  for (const CassetteEntry& entry : cassette.entries) {
    entries_ += listed(to_json(entry), count_++ == 0);
  }
  write(entries_);
}

bool CassetteFile::append(const CassetteEntry& entry) {
  const Json json = to_json(entry);
  const std::string added = listed(json, count_ == 0);
  const std::size_t size = kHead.size() + entries_.size() + added.size() + tail_.size();
  if (size > limits::kCassetteBytes || count_ >= limits::kCassetteEntries || !reads_back(json)) {
    return false;
  }
  write(entries_ + added);
  entries_ += added;
  ++count_;
  return true;
}

void CassetteFile::write(const std::string& entries) const {
  std::string text(kHead);
  text.append(entries).append(tail_);
  write_file_atomic(path_, text, kMode);
}

}  // namespace necrocode::llm
