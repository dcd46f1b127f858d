#include "necrocode/exec/frozen_attributes.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "necrocode/base/text.hpp"
#include "necrocode/exec/plain_git.hpp"

namespace necrocode::exec {
namespace {

constexpr std::array<std::string_view, 7> kKnown = {
    "text", "eol", "crlf", "ident", "filter", "working-tree-encoding", "diff"};
constexpr std::string_view kMacro = "[attr]";
constexpr std::string_view kBlank = " \t\r";
constexpr std::size_t kLineBytes = 2048;  // git's own bound
constexpr int kMacroDepth = 8;

using Attributes = std::vector<std::string>;

std::string_view skip_blank(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of(kBlank), text.size()));
}

// Takes the pattern off `line`; nothing when its quotes do not end.
std::optional<std::string> take_pattern(std::string_view& line) {
  if (!line.starts_with('"')) {
    const std::size_t end = std::min(line.find_first_of(kBlank), line.size());
    std::string pattern(line.substr(0, end));
    line.remove_prefix(end);
    return pattern;
  }
  std::string pattern;
  for (std::size_t i = 1; i < line.size(); ++i) {
    if (line[i] == '"') {
      line.remove_prefix(i + 1);
      return pattern;
    }
    if (line[i] != '\\') {
      pattern += line[i];
      continue;
    }
    if (++i == line.size()) break;
    constexpr std::string_view kNames = "abtnvfr", kMeant = "\a\b\t\n\v\f\r";
    const std::size_t known = kNames.find(line[i]);
    if (line[i] >= '0' && line[i] <= '3' && i + 2 < line.size()) {
      pattern +=
          static_cast<char>((line[i] - '0') * 64 + (line[i + 1] - '0') * 8 + line[i + 2] - '0');
      i += 2;
    } else {
      pattern += known == kNames.npos ? line[i] : kMeant[known];
    }
  }
  return std::nullopt;
}

// `pattern` of a file in `folder`, as from the top.
std::string from_top(const std::string& folder, const std::string& pattern) {
  if (folder.empty()) return pattern;
  std::string prefix = "/";
  for (const char c : folder) {
    if (std::string_view("*?[]\\").find(c) != std::string_view::npos) prefix += '\\';
    prefix += c;
  }
  if (pattern.find('/') == std::string::npos) return prefix + "/**/" + pattern;
  return prefix + (pattern.starts_with('/') ? "" : "/") + pattern;
}

class Freezer {
 public:
  void add(const std::string& folder, std::string_view content) {
    for (const std::string_view whole : split(content, '\n')) {
      std::string_view line = skip_blank(whole);
      if (line.empty() || line.front() == '#' || whole.size() >= kLineBytes) continue;
      const auto pattern = take_pattern(line);
      if (!pattern || pattern->starts_with('!')) continue;
      const Attributes attributes = words(line);
      if (pattern->starts_with(kMacro)) {
        if (folder.empty()) macros_[pattern->substr(kMacro.size())] = attributes;
        continue;
      }
      rules_.emplace_back(from_top(folder, *pattern), attributes);
    }
  }

  // Macros hold for all rules, those before them too.
  std::string text() const {
    std::string text = "*";
    for (const std::string_view name : kKnown) text.append(" !").append(name);
    text += '\n';
    for (const auto& [pattern, attributes] : rules_) {
      std::string known;
      for (const std::string& attribute : attributes) write_out(attribute, 0, known);
      if (!known.empty()) text += in_quotes(pattern) + known + "\n";
    }
    return text;
  }

 private:
  static Attributes words(std::string_view line) {
    Attributes words;
    for (line = skip_blank(line); !line.empty(); line = skip_blank(line)) {
      const std::size_t end = std::min(line.find_first_of(kBlank), line.size());
      words.emplace_back(line.substr(0, end));
      line.remove_prefix(end);
    }
    return words;
  }

  // Of one line, later ones win in git, and what a macro says counts where it stands.
  void write_out(const std::string& attribute, int depth, std::string& text) const {
    const auto macro = macros_.find(attribute);
    if (macro != macros_.end() && depth < kMacroDepth) {
      for (const std::string& inner : macro->second) write_out(inner, depth + 1, text);
      return;
    }
    std::string_view name = attribute;
    if (name.starts_with('-') || name.starts_with('!')) name.remove_prefix(1);
    name = name.substr(0, name.find('='));
    if (std::find(kKnown.begin(), kKnown.end(), name) != kKnown.end()) {
      text.append(" ").append(attribute);
    }
  }

  std::map<std::string, Attributes> macros_ = {{"binary", {"-diff", "-merge", "-text"}}};
  std::vector<std::pair<std::string, Attributes>> rules_;
};

}  // namespace

std::string frozen_attributes(const std::vector<AttributesFile>& files, std::string_view info) {
  Freezer freezer;
  for (const AttributesFile& file : files) freezer.add(file.folder, file.content);
  freezer.add("", info);
  return freezer.text();
}

}  // namespace necrocode::exec
